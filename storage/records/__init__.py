"""The records: the truth about users, avatars, jobs and what was delivered, in SQL."""

from storage.records.records import Records
from storage.records.rows import (
    AdapterOutcome,
    Avatar,
    AvatarState,
    ChatMessage,
    Consent,
    Grant,
    GranteeKind,
    Job,
    Note,
    Photo,
    Picture,
    User,
)

__all__ = [
    "AdapterOutcome",
    "Avatar",
    "AvatarState",
    "ChatMessage",
    "Consent",
    "Grant",
    "GranteeKind",
    "Job",
    "Note",
    "Photo",
    "Picture",
    "Records",
    "User",
]
