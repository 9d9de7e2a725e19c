"""The rows of the records, as frozen values. Every time is aware and in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from storage.jobs import TERMINAL, JobKind, Payload, State, from_json

AvatarState = Literal["draft", "training", "ready", "failed"]
GranteeKind = Literal["room", "user"]


@dataclass(frozen=True, slots=True)
class User:
    """A person's account on one platform; `platform_id` is their id there.

    `id` is the person's: the same on every platform that they linked. quota: {"trainings": int, "pictures": int} a day,
    if an operator gave this person their own.
    """

    id: str
    platform: str
    platform_id: str
    name: str
    created: datetime
    banned: datetime | None = None
    quota: dict[str, int | None] | None = None


@dataclass(frozen=True, slots=True)
class Avatar:
    """A person that is learned, or will be. `adapter_key` is a blob once the state is ready."""

    id: str
    owner_id: str
    token: str
    noun: str
    state: AvatarState
    adapter_key: str | None
    details: dict[str, Any]
    created: datetime
    word: str | None = None
    """The token under which it was learned, if it was renamed since."""
    preferred: datetime | None = None
    """When its owner made it the default. The avatar with the latest time is the owner's default."""

    @property
    def learned_as(self) -> str:
        """The word that the adapter answers to."""
        return self.word or self.token


@dataclass(frozen=True, slots=True)
class AdapterOutcome:
    """What a training gives its avatar, which is then ready: the adapter's blob, and details that replace the old."""

    avatar_id: str
    adapter_key: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of an album. verdict: {"ok": bool, "codes": [...], "facts": {...}} once inspected."""

    id: str
    avatar_id: str
    position: int
    key: str
    verdict: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Job:
    """A request to an engine, and how it went. error: {"code": str, "facts": {...}}."""

    id: str
    kind: JobKind
    user_id: str
    frontend: str
    room: str
    payload: Payload
    state: State
    attempt: int
    created: datetime
    started: datetime | None
    finished: datetime | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    cancel_requested: bool
    progress_ref: str | None
    delivered: datetime | None
    place: str | None = None
    """The room in which its person asked for it, as the grantee_id of a grant names a room."""
    language: str | None = None
    """The language of its person's request, such as `de`; the answer is in the same language."""
    request: str | None = None
    """The key of the platform's request that made it; unique among its person's jobs."""

    @property
    def over(self) -> bool:
        """No state follows this one."""
        return self.state in TERMINAL


def job_from_row(row: Row[Any]) -> Job:
    """A row of `jobs` with its typed payload."""
    return job_from_values(dict(row._mapping))


def job_from_values(values: Mapping[str, Any]) -> Job:
    """The values of a row of `jobs` with their typed payload."""
    kind = JobKind(values["kind"])
    payload = from_json(kind, values["payload"])
    return Job(**{**values, "kind": kind, "state": State(values["state"]), "payload": payload})


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture a job drew, and the seed that draws it again."""

    id: str
    job_id: str
    position: int
    key: str
    seed: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """An owner's permission to a room or a user to draw the avatar, until `expires`, or for good if that is None.

    grantee_id: a user's id, or "platform:room", since two platforms may call different rooms the same.
    """

    id: str
    avatar_id: str
    grantee_kind: GranteeKind
    grantee_id: str
    created: datetime
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """A user's agreement to a version of the terms for an avatar."""

    id: str
    user_id: str
    avatar_id: str
    version: str
    created: datetime


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A line of the local web chat's history. `dedupe` is unique in its room."""

    id: int
    room: str
    author: str
    body: dict[str, Any]
    dedupe: str | None
    created: datetime


@dataclass(frozen=True, slots=True)
class Linked:
    """Two accounts that became one person. renamed: the old and the new token of each avatar that was renamed because
    both had one of that token."""

    user: User
    others: tuple[User, ...]
    renamed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What an erasure took out of the records, and the blobs to erase too: keys, and prefixes that end in a slash.

    stopped: the jobs, erased or emptied, that were under way.
    """

    keys: list[str]
    counts: dict[str, int]
    stopped: list[Job]


@dataclass(frozen=True, slots=True)
class Notice:
    """An operator's message to one room, not posted yet."""

    id: str
    frontend: str
    room: str
    text: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Note:
    """Something a frontend has to remember of its platform. `key` is unique in its `space`.

    owner: the account it is about, as platform:id; None if it is about nobody.
    """

    space: str
    key: str
    body: dict[str, Any]
    created: datetime
    owner: str | None
