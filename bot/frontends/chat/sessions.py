"""Sessions: a signed cookie with the person's name and the rooms that the browser has entered."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from itsdangerous import BadData, URLSafeTimedSerializer

from storage.atomic import atomic_write

ROOMS_MOST = 30
LIFETIME = 30 * 24 * 3600
"""Lifetime of a login, in seconds."""
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A person in a browser."""

    name: str
    rooms: tuple[str, ...] = ()

    def joined(self, room: str) -> "Session":
        """The session after entering a room; the last one entered comes first."""
        others = tuple(other for other in self.rooms if other != room)
        return replace(self, rooms=(room, *others)[:ROOMS_MOST])

    def left(self, room: str) -> "Session":
        """The session after leaving a room."""
        return replace(self, rooms=tuple(other for other in self.rooms if other != room))


class Signer:
    """Turns sessions into signed cookies and back. Raises ValueError for a key of fewer than 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"a signing key has at least {_KEY_BYTES} bytes")
        how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        self._serializer = URLSafeTimedSerializer(key, salt="avatar chat session", signer_kwargs=how)

    @classmethod
    def at(cls, path: Path) -> "Signer":
        """A signer with the key in this file. A missing or too short file gets a new key, which ends all logins."""
        key = path.read_bytes() if path.exists() else b""
        if len(key) < _KEY_BYTES:
            key = secrets.token_bytes(_KEY_BYTES)
            with atomic_write(path) as draft:
                draft.touch(0o600)
                draft.chmod(0o600)  # also if an earlier process left the draft behind
                draft.write_bytes(key)
        return cls(key)

    def cookie(self, session: Session) -> str:
        """The session as a signed cookie value."""
        return self._serializer.dumps([session.name, list(session.rooms)])

    def session(self, cookie: str) -> Session | None:
        """The session of a cookie, or None if this signer did not make it or it is older than LIFETIME."""
        # The library skips other characters, and the cookies that it makes have none.
        if not cookie.isascii():
            return None
        try:
            name, rooms = self._serializer.loads(cookie, max_age=LIFETIME)
        except BadData:
            return None
        return Session(name, tuple(rooms))
