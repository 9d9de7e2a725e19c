"""Who a browser is: a signed cookie that holds a name and the rooms it has entered."""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOMS_MOST = 30
LIFETIME = 30 * 24 * 3600
"""Seconds that a log-in lasts."""


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
    """Turns sessions into cookies that nobody else can make, and back."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def at(cls, path: Path) -> "Signer":
        """With the secret in this file, which is made the first time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        except FileExistsError:
            pass
        return cls(path.read_bytes())

    def cookie(self, session: Session) -> str:
        """The session as a signed cookie value."""
        fields = [session.name, list(session.rooms), int(time.time()) + LIFETIME]
        body = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
        return f"{body}.{self._signature(body)}"

    def session(self, cookie: str) -> Session | None:
        """The session of a cookie, or None if it is not ours or too old."""
        body, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        try:
            name, rooms, until = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        return Session(name, tuple(rooms)) if until > time.time() else None

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()
