"""Rooms on Telegram: a chat or one topic of it, and the id that the chat has now."""

from dataclasses import dataclass

from storage.records import Records

NAME = "telegram"
_MOVED = "telegram/moved"
"""`<first chat id>`: {"to": <chat id now>}"""


@dataclass(frozen=True, slots=True)
class Room:
    """A chat (negative for groups) and a topic of it, in the records "telegram:<chat>" or
    "telegram:<chat>:<topic>". `chat` is the id that Telegram gave the chat first; see `ChatMigrations`."""

    chat: int
    topic: int | None = None

    def __str__(self) -> str:
        return f"{NAME}:{self.chat}" + (f":{self.topic}" if self.topic else "")

    @property
    def private(self) -> bool:
        """Whether it is a chat with one person, whose id it has."""
        return self.chat > 0

    @classmethod
    def read(cls, text: str) -> "Room":
        """The room from its text in the records. Raises ValueError for rooms of other platforms."""
        name, _, rest = text.partition(":")
        if name != NAME:
            raise ValueError(f"not a room of Telegram: {text}")
        chat, _, topic = rest.partition(":")
        return cls(int(chat), int(topic) if topic else None)


class ChatMigrations:
    """Groups that became supergroups and got another id. Their rooms, jobs and grants keep the first one."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._current: dict[int, int] = {}
        self._first: dict[int, int] = {}

    async def load(self) -> None:
        """Load the migrations that earlier processes stored."""
        for note in await self._records.notes.find(_MOVED):
            self._remember(int(note.key), int(note.body["to"]))

    async def add(self, chat: int, new_id: int) -> None:
        """Store the new id of a chat."""
        first = self.first_id(chat)
        if first != new_id and self.current_id(first) != new_id:
            await self._records.notes.put(_MOVED, str(first), {"to": new_id})
            self._remember(first, new_id)

    def _remember(self, first: int, current: int) -> None:
        self._current[first] = current
        self._first[current] = first

    def current_id(self, chat: int) -> int:
        """The chat's current id at Telegram."""
        return self._current.get(chat, chat)

    def first_id(self, chat: int) -> int:
        """The chat's first id."""
        return self._first.get(chat, chat)
