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
    """A person's account on one platform; `platform_id` is its id there.

    `id` is the person's, which all linked accounts share. quota: {"trainings": int, "pictures": int} a day, if an
    operator set it for this person.
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
    """A person to learn, or a learned one. `adapter_key` is the key of a blob once the state is ready."""

    id: str
    owner_id: str
    token: str
    noun: str
    state: AvatarState
    adapter_key: str | None
    details: dict[str, Any]
    created: datetime
    word: str | None = None
    """The token that it was trained with, if it was renamed since."""
    preferred: datetime | None = None
    """When its owner made it the default. The owner's default is the avatar with the latest time."""

    @property
    def learned_as(self) -> str:
        """The token that the adapter was trained with."""
        return self.word or self.token


@dataclass(frozen=True, slots=True)
class AdapterOutcome:
    """The result of a training, which makes its avatar ready: the adapter's blob key, and details that replace the
    avatar's."""

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
    grant_scope: str | None = None
    """The room that the request came from, named as in `Grant.grantee_id`: "platform:room". None for old jobs."""
    language: str | None = None
    """The language of the request, such as `de`; the answer is in the same language."""
    request: str | None = None
    """The key of the platform's request that made it; unique among the user's jobs."""

    @property
    def over(self) -> bool:
        """No state follows this one."""
        return self.state in TERMINAL


def job_from_row(row: Row[Any]) -> Job:
    """The job of a row of `jobs`."""
    return job_from_values(dict(row._mapping))


def job_from_values(values: Mapping[str, Any]) -> Job:
    """The job of a row of `jobs`, given as values by column."""
    fields = dict(values)
    kind = JobKind(fields.pop("kind"))
    payload = from_json(kind, fields.pop("payload"))
    grant_scope = fields.pop("place")  # the column's older name
    return Job(kind=kind, state=State(fields.pop("state")), payload=payload, grant_scope=grant_scope, **fields)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a job drew, and the seed that draws it again. `position` counts from 0 within the job."""

    id: str
    job_id: str
    position: int
    key: str
    seed: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """An owner's permission for a room or a user to draw the avatar, until `expires`, or without end if that is None.

    grantee_id: a user's id, or "platform:room", since rooms of two platforms may have the same id.
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
    both accounts had an avatar with that token."""

    user: User
    others: tuple[User, ...]
    renamed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What an erasure deleted, and the blobs to delete too: keys, and prefixes that end in a slash.

    stopped: the erased or emptied jobs that were queued or running.
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
    """A JSON value that a frontend stores. `key` is unique in its `space`.

    owner: the account that the note is about, as platform:id; None if it is about nobody.
    """

    space: str
    key: str
    body: dict[str, Any]
    created: datetime
    owner: str | None
