"""The rows of the records, as frozen values. Every time is aware and in UTC."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from storage.jobs import TERMINAL, JobKind, Payload, State

AvatarState = Literal["draft", "training", "ready", "failed"]
GranteeKind = Literal["room", "user"]


@dataclass(frozen=True, slots=True)
class User:
    """A person on one platform; `platform_id` is what that platform calls them.

    `id` is the person's: the same on every platform that they linked. quota: {"trainings": int, "pictures": int} a day,
    where an operator set this person's own.
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
    """A person to be learned, or learned: `adapter_key` is a blob once it is ready."""

    id: str
    owner_id: str
    token: str
    noun: str
    state: AvatarState
    adapter_key: str | None
    details: dict[str, Any]
    created: datetime
    word: str | None = None
    """The token under which it was learned, if it has a new one since."""
    preferred: datetime | None = None
    """When its owner made it the default; the latest of an owner's is."""

    @property
    def learned_as(self) -> str:
        """The word that the adapter answers to."""
        return self.word or self.token


@dataclass(frozen=True, slots=True)
class AdapterOutcome:
    """What a training gives its avatar, which is ready then: the adapter's blob, and details in place of the old."""

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
    """Something asked of an engine, and how it went. error: {"code": str, "facts": {...}}."""

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
    """Where its person was when it was asked for, as a grant to a room names it."""
    language: str | None = None
    """What its person read when it was asked for, as `de`; its answer is in it too."""
    request: str | None = None
    """The key of the platform's request that made it; unique among its person's jobs."""

    @property
    def over(self) -> bool:
        """No state follows this one."""
        return self.state in TERMINAL


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
    """An owner's permission to a room or a user to draw the avatar, until `expires` if that is given.

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
    """Who agreed to which version of the terms for this avatar."""

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
    """Two accounts that are one person now. renamed: the tokens that both had, old and new."""

    user: User
    others: tuple[User, ...]
    renamed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What an erasure took out of the records, and the blobs to erase with it, as `delete_avatar` gives them.

    stopped: the jobs, erased or emptied, that were under way.
    """

    keys: list[str]
    counts: dict[str, int]
    stopped: list[Job]


@dataclass(frozen=True, slots=True)
class Notice:
    """An operator's word to one room, not posted yet."""

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
