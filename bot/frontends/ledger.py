"""The ledger of sent messages: an entry before and one after sending, so that each answer is sent once.

Platforms do not drop repeated messages. If the process dies between sending and writing the second entry, the next
process finds the first entry. It can then look for the message, or tell the person that it may have arrived.
The ledger also keeps the answers that could not be delivered; they follow once the person or group can be reached.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.records import Note, Records


@dataclass(frozen=True, slots=True)
class Entry:
    """The key of one message in the ledger. owner: the recipient's account as platform:id, or None."""

    key: str
    owner: str | None


class Ledger:
    """The entries of one platform, kept as notes in the records.

    `<platform>/sent`: `<room>|<dedupe>`, with the frontend's own state of the sending; "ref" is the message's reference
    once all of it is sent. `<platform>/missed`: `<room or person>|<job>`.
    """

    def __init__(self, records: Records, platform: str) -> None:
        self._records = records
        self._sent = f"{platform}/sent"
        self._missed = f"{platform}/missed"

    # Messages that are being sent

    async def open(self, entry: Entry, state: Mapping[str, Any]) -> Note | None:
        """Add an entry for a message that is about to be sent; None. If there is an entry, return it instead."""
        if await self._records.notes.add(self._sent, entry.key, state, entry.owner):
            return None
        return await self._records.notes.get(self._sent, entry.key)

    async def find(self, key: str) -> Note | None:
        """The entry of this key: `<room>|<dedupe>`."""
        return await self._records.notes.get(self._sent, key)

    async def write(self, entry: Entry, state: Mapping[str, Any]) -> None:
        """Save the state of the sending."""
        await self._records.notes.put(self._sent, entry.key, state, entry.owner)

    async def discard(self, entry: Entry) -> None:
        """Delete the entry: the message was not sent."""
        await self._records.notes.delete(self._sent, entry.key)

    async def prune(self, before: datetime) -> None:
        """Delete older entries."""
        await self._records.notes.prune(self._sent, before)

    # Answers that could not be delivered

    async def miss(self, addressee: str, job_id: str, owner: str | None) -> None:
        """Note that the job's answer could not be delivered to this addressee: a room, or a person's id."""
        await self._records.notes.add(self._missed, f"{addressee}|{job_id}", {}, owner)

    async def missed(self, prefix: str) -> list[tuple[str, str]]:
        """The undelivered answers of all addressees with this prefix, as (addressee, job id)."""
        notes = await self._records.notes.find(self._missed, prefix)
        return [_parsed(note) for note in notes if not note.body.get("told")]

    async def caught_up(self, job_id: str) -> None:
        """Delete the job's undelivered answers: one was delivered now, or none ever can be."""
        for note in await self._records.notes.find(self._missed):
            if _parsed(note)[1] == job_id:
                await self._records.notes.delete(self._missed, note.key)


def _parsed(note: Note) -> tuple[str, str]:
    # Discord's notes of older versions have a slash instead, and a "told" once they were delivered.
    addressee, _, job_id = re.split(r"([|/])", note.key, maxsplit=1)
    return addressee, job_id
