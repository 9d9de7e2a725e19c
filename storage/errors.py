"""The errors of storage."""

from typing import Any


class UserError(Exception):
    """An error that the user can fix, never a bug. `code` names it, `facts` hold its figures; no prose."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code, facts)
        self.code = code
        self.facts: dict[str, Any] = facts

    def __str__(self) -> str:
        return self.code


class UnknownBlob(KeyError):
    """No blob is stored under this key."""


class RedisUnavailable(RuntimeError):
    """The embedded Redis did not start; the message says where its log is."""
