"""Where a Telegram message is: a chat, perhaps a topic in it, and the room that the rest of the bot knows it by."""

from dataclasses import dataclass

from storage.records import Records

NAME = "telegram"
_MOVED = "telegram/moved"


@dataclass(frozen=True, slots=True)
class Place:
    """A chat (negative for groups) and a topic of it. The chat is the one that Telegram knew first; see `Moves`."""

    chat: int
    thread: int | None = None

    @property
    def private(self) -> bool:
        """Whether it is a chat with one person, whose id it has."""
        return self.chat > 0

    @property
    def room(self) -> str:
        """`telegram:<chat>` or `telegram:<chat>:<topic>`; no room of another platform is called so."""
        return f"{NAME}:{self.chat}" + (f":{self.thread}" if self.thread else "")

    @classmethod
    def of(cls, room: str) -> "Place":
        """The place of a room. Raises ValueError for other platforms' rooms."""
        name, _, rest = room.partition(":")
        if name != NAME:
            raise ValueError(f"not a room of Telegram: {room}")
        chat, _, thread = rest.partition(":")
        return cls(int(chat), int(thread) if thread else None)


class Moves:
    """Groups that became supergroups and so got another id. Their rooms, jobs and grants keep the first one."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._now: dict[int, int] = {}
        self._first: dict[int, int] = {}

    async def load(self) -> None:
        """Remember what earlier processes learned."""
        for note in await self._records.notes(_MOVED):
            self._know(int(note.key), int(note.body["to"]))

    async def add(self, chat: int, to: int) -> None:
        """From now on this chat has another id."""
        first = self.first(chat)
        if first != to and self.now(first) != to:
            await self._records.note_set(_MOVED, str(first), {"to": to})
            self._know(first, to)

    def _know(self, first: int, now: int) -> None:
        self._now[first] = now
        self._first[now] = first

    def now(self, chat: int) -> int:
        """The id under which Telegram has this chat now."""
        return self._now.get(chat, chat)

    def first(self, chat: int) -> int:
        """The id under which the chat was known first."""
        return self._first.get(chat, chat)
