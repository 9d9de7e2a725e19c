"""What a frontend writes down before and after it sends a message, so that an answer comes once.

A platform takes a message as often as it is sent. If the process dies between sending and writing down, the next one
finds the entry that was written before, and can look for the message or tell the person that it may be there.
An answer that nobody could be shown is written down too, and follows once its person or group can be reached.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.records import Note, Records


@dataclass(frozen=True, slots=True)
class Entry:
    """The key of one message in the ledger. owner: the account that it is for, as platform:id, or None."""

    key: str
    owner: str | None


class Ledger:
    """The entries of one platform, kept as notes in the records.

    `<platform>/sent`: `<room>|<dedupe>`, with what the platform needs to know of how far the message is; "ref" is its
    reference once all of it is sent. `<platform>/missed`: `<room or person>|<job>`.
    """

    def __init__(self, records: Records, platform: str) -> None:
        self._records = records
        self._sent = f"{platform}/sent"
        self._missed = f"{platform}/missed"

    # Messages on their way

    async def open(self, entry: Entry, state: Mapping[str, Any]) -> Note | None:
        """Write down that the message is about to be sent; the earlier entry instead, if there is one."""
        if await self._records.notes.add(self._sent, entry.key, state, entry.owner):
            return None
        return await self._records.notes.get(self._sent, entry.key)

    async def find(self, key: str) -> Note | None:
        """The entry of this key: `<room>|<dedupe>`."""
        return await self._records.notes.get(self._sent, key)

    async def write(self, entry: Entry, state: Mapping[str, Any]) -> None:
        """Write down how far the message is."""
        await self._records.notes.put(self._sent, entry.key, state, entry.owner)

    async def discard(self, entry: Entry) -> None:
        """Forget the entry: the message was not sent."""
        await self._records.notes.delete(self._sent, entry.key)

    async def prune(self, before: datetime) -> None:
        """Forget entries that are older."""
        await self._records.notes.prune(self._sent, before)

    # Answers that were shown to nobody

    async def miss(self, addressee: str, job_id: str, owner: str | None) -> None:
        """The job's answer could not be shown to this addressee: a room, or a person's id."""
        await self._records.notes.add(self._missed, f"{addressee}|{job_id}", {}, owner)

    async def missed(self, beginning: str) -> list[tuple[str, str]]:
        """The missed answers of all addressees that begin like this: the addressee and the job of each."""
        notes = await self._records.notes.find(self._missed, beginning)
        return [_parsed(note) for note in notes if not note.body.get("told")]

    async def caught_up(self, job_id: str) -> None:
        """The answer was shown now, or never can be; no other addressee who missed it needs it."""
        for note in await self._records.notes.find(self._missed):
            if _parsed(note)[1] == job_id:
                await self._records.notes.delete(self._missed, note.key)


def _parsed(note: Note) -> tuple[str, str]:
    # Discord's notes of versions before this one have a slash, and stay with "told" once they were shown.
    addressee, _, job_id = re.split(r"([|/])", note.key, maxsplit=1)
    return addressee, job_id
