"""The records: the truth about users, avatars, jobs and what was delivered, in SQL."""

from storage.records.database import Clock, utc_now
from storage.records.leases import LEASES
from storage.records.records import Records
from storage.records.rows import (
    AdapterOutcome,
    Avatar,
    AvatarState,
    ChatMessage,
    Consent,
    Forgotten,
    Grant,
    GranteeKind,
    Job,
    Linked,
    Note,
    Notice,
    Photo,
    Picture,
    User,
)

__all__ = [
    "LEASES",
    "AdapterOutcome",
    "Avatar",
    "AvatarState",
    "ChatMessage",
    "Clock",
    "Consent",
    "Forgotten",
    "Grant",
    "GranteeKind",
    "Job",
    "Linked",
    "Note",
    "Notice",
    "Photo",
    "Picture",
    "Records",
    "User",
    "utc_now",
]
