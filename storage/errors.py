"""What storage raises on purpose."""

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]


class UserError(Exception):
    """Wrong input, or something a rule refuses; never a bug. `code` names it, `facts` hold its figures; no prose."""

    def __init__(self, code: str, **facts: JSON) -> None:
        super().__init__(code, facts)
        self.code = code
        self.facts: dict[str, JSON] = facts

    def __str__(self) -> str:
        return self.code


class UnknownBlob(KeyError):
    """No blob is stored under this key."""


class RedisUnavailable(RuntimeError):
    """The embedded Redis did not start; the message says where its log is."""
