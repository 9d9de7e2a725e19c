"""The records: the truth about users, avatars, jobs and what was delivered, in SQL."""

from storage.records.jobs import HOLDS, Records
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
    "HOLDS",
    "AdapterOutcome",
    "Avatar",
    "AvatarState",
    "ChatMessage",
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
]
