"""The errors of storage."""

from collections.abc import Callable
from typing import Any


class UserError(Exception):
    """An error that the user can fix, never a bug. `code` names it, `facts` hold its figures; no prose."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code, facts)
        self.code = code
        self.facts: dict[str, Any] = facts

    def __str__(self) -> str:
        return self.code

    def __reduce__(self) -> tuple[Callable[..., "UserError"], tuple[type["UserError"], str, dict[str, Any]]]:
        # Exceptions are pickled by their arguments alone, and between processes the facts must not get lost.
        return _restored, (type(self), self.code, self.facts)


def _restored(kind: type[UserError], code: str, facts: dict[str, Any]) -> UserError:
    error = kind.__new__(kind)
    # A subclass may take other arguments, or none.
    UserError.__init__(error, code, **facts)
    return error


class UnknownBlob(KeyError):
    """No blob is stored under this key."""


class RedisUnavailable(RuntimeError):
    """The embedded Redis did not start; the message says where its log is."""
