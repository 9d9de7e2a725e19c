"""Sending and editing messages: the delivery loop's port to Telegram.

Telegram does not drop repeated messages, and a bot cannot read a chat's history. If the connection breaks or the
process dies while a message is sent, it is unknown whether the message arrived. So the ledger records every message
that must not be sent twice:

- The answer that ends a job is an edit, which can be repeated: the bot first sends a placeholder that only says that
  the job is over, then edits the answer into it. If it is unknown whether the placeholder arrived, the bot sends
  another and fills that one; the first stays without an answer.
- An album cannot be edited in. If it is unknown whether it arrived, it is not sent again; the answer below it gets a
  button that shows the pictures.
- The reply to a command is sent at once, because the person waits for it. If it is unknown whether it arrived, the bot
  says so, and the person can send the command again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity, User
from telegram import Message as Sent
from telegram.error import TelegramError

from bot.frontends.files import content
from bot.frontends.ledger import Entry, Ledger
from bot.frontends.telegram.calls import RETRY_PAUSE, Calls, Loaded, Unreachable
from bot.frontends.telegram.edits import NOWHERE, Edits, Gaps
from bot.frontends.telegram.pace import Pace
from bot.frontends.telegram.rendering import (
    ALBUM_MOST,
    CAPTION_MOST,
    TEXT_MOST,
    clipped,
    keyboard,
    pieces,
    text_of,
    units,
)
from bot.frontends.telegram.rooms import NAME, ChatMigrations, Room
from bot.language import say
from bot.messages import Message, Shown
from bot.replies import account, jobs
from bot.replies import telegram as wording
from storage.blobs import Blobs
from storage.errors import UnknownBlob
from storage.records import Records

PICTURES = "telegram/pictures"
"""`<room>#<message>`: {"picture"}, as `Commands.vary` takes it, so that a reply to it can vary it."""
ASKER = "telegram/asker"
"""`<job>`: {"user", "message"}: the person who asked for it, and their message."""

FILE_MOST = 50_000_000
"""Most bytes of a file that a bot may send."""
_POST_WAIT_MOST = 3.0
"""Longest wait of the delivery loop for one answer, in seconds, before it continues with the others."""
_LEASE = 5.0
"""Seconds of silence after which another process may send what this one was sending."""
_NAMES_MOST = 5000


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A message that is being sent.

    if_unsure: the message to send instead if it is unknown whether an earlier try arrived. entry: its key in the
    ledger; None for a message that may be sent twice. state: the state of the sending, as in the ledger:

    - album: the pictures are sent; files: their file ids at Telegram; handed: how many files are sent;
    - stub: the reference of the placeholder; ref: the reference of the message once all of it is sent;
    - sending: the part that was being sent, "album", "file" or "text"; unseen: it is unknown whether the album or a
      file arrived.
    """

    message: Message
    reply_to: int | None = None
    mention: User | None = None
    link: tuple[str, str] | None = None
    if_unsure: Message | None = None
    entry: Entry | None = None
    state: dict[str, Any] = field(default_factory=dict)


class TelegramOutbox:
    """The frontend port of Telegram: sends and edits messages."""

    def __init__(
        self,
        bot: Bot,
        records: Records,
        blobs: Blobs,
        migrations: ChatMigrations,
        pace: Pace,
        gaps: Gaps | None = None,
        retry_pause: float = RETRY_PAUSE,
    ) -> None:
        self._bot = bot
        self._records = records
        self._blobs = blobs
        self._migrations = migrations
        self.ledger = Ledger(records, NAME)
        self.calls = Calls(bot, migrations, pace, retry_pause)
        self.edits = Edits(bot, blobs, migrations, gaps or Gaps())
        self._holder = uuid4().hex
        self._renewing: asyncio.Task[None] | None = None
        self._names: OrderedDict[int, str] = OrderedDict()
        # Answers that are being sent, by their keys in the ledger.
        self._posting: dict[str, asyncio.Task[str]] = {}

    @property
    def name(self) -> str:
        return NAME

    async def close(self) -> None:
        """Finish sending, and drop the edits that still wait."""
        await self.edits.close()
        await asyncio.gather(*self._posting.values(), return_exceptions=True)
        if self._renewing is not None:
            await self._renewing
        await self.calls.close()

    # The delivery loop's port

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        if dedupe is None:
            return await self.say(Room.read(room), message)
        key = f"{room}|{dedupe}"
        if key not in self._posting:
            self._posting[key] = task = asyncio.create_task(self._post_once(Room.read(room), message, key, dedupe))
            task.add_done_callback(lambda ended: self._on_posted(key, ended))
        # A slow room must not delay the others; the loop's next call waits for the same task.
        return await asyncio.wait_for(asyncio.shield(self._posting[key]), _POST_WAIT_MOST)

    def _on_posted(self, key: str, ended: asyncio.Task[str]) -> None:
        del self._posting[key]
        if not ended.cancelled():
            ended.exception()  # retrieved, or asyncio would log what the waiting caller handles

    async def _post_once(self, room: Room, message: Message, key: str, job_id: str) -> str:
        """Send the answer. Raises TimeoutError if another process of this bot is sending it; the loop asks again."""
        if not await self._records.leases.acquire(key, self._holder, _LEASE):
            raise TimeoutError
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        try:
            return await self._answer(room, message, key, job_id)
        finally:
            await self._records.leases.release(key, self._holder)

    async def _renew(self) -> None:
        while self._posting:
            await asyncio.sleep(_LEASE / 5)
            with suppress(Exception):  # the next renewal may succeed
                await self._records.leases.renew(self._holder, _LEASE)

    async def _answer(self, room: Room, message: Message, key: str, job_id: str) -> str:
        reply_to, mention, owner = await self._asker(room, job_id)
        entry = Entry(key, owner)
        try:
            outgoing = await self._resumed(_Outgoing(message, reply_to, mention, entry=entry))
            if outgoing.state.get("ref"):
                return str(outgoing.state["ref"])
            job = await self._records.jobs.get(job_id)
            # The placeholder is replaced at once, so it does without the avatar's name.
            over = jobs.ended(job, None) if job is not None and job.over else wording.moment()
            return await self._fill(room, outgoing, over)
        except Unreachable:
            ref = NOWHERE
            if not room.private and (asker := await self._records.notes.get(ASKER, job_id)) is not None:
                private = Room(int(asker.body["user"]))
                ref = await self._answer(private, message, f"{private}|{job_id}", job_id)
            if ref == NOWHERE:
                await self.ledger.miss(str(room), job_id, owner)
            await self.ledger.write(entry, {"ref": ref})
            return ref

    async def edit(self, ref: str, message: Message) -> None:
        await self.edits.edit(ref, message)

    # Sending

    async def say(
        self,
        room: Room,
        message: Message,
        *,
        reply_to: int | None = None,
        dedupe: str | None = None,
        owner: str | None = None,
        link: tuple[str, str] | None = None,
        if_unsure: Message | None = None,
    ) -> str:
        """Send a message and return its reference. A second one with the same `dedupe` is not sent.

        `owner`: the recipient's account as platform:id, if the room is no private chat.
        `link`: the label and address of a button. `if_unsure`: the message to send instead if it is unknown whether an
        earlier try arrived; without it the message is sent again. Raises Unreachable, and TelegramError if Telegram
        refuses.
        """
        outgoing = _Outgoing(message, reply_to, link=link, if_unsure=if_unsure)
        if dedupe is not None:
            entry = Entry(f"{room}|{dedupe}", owner or _owner(room))
            outgoing = await self._resumed(replace(outgoing, entry=entry))
            if outgoing.state.get("ref"):
                return str(outgoing.state["ref"])
        return await self._send(room, outgoing)

    async def _resumed(self, outgoing: _Outgoing) -> _Outgoing:
        """The message with the state of an earlier try from the ledger."""
        assert outgoing.entry
        note = await self.ledger.find(outgoing.entry.key)
        state = dict(note.body) if note else {}
        match state.pop("sending", None):
            case "album":
                state |= {"album": True, "unseen": True}
            case "file":
                state |= {"handed": state.get("handed", 0) + 1, "unseen": True}
            case "text" if outgoing.if_unsure is not None:
                outgoing = replace(outgoing, message=outgoing.if_unsure)
        return replace(outgoing, state=state)

    async def _send(self, room: Room, outgoing: _Outgoing) -> str:
        """Send the message; return its reference."""
        text, entities, markup = await self._parts(room, outgoing)
        # With a ledger entry it must be a single message; without one, a long text may become several.
        parts = pieces(text) if outgoing.entry is None else [clipped(text, TEXT_MOST)]
        ref = NOWHERE
        for number, part in enumerate(parts, start=1):
            shown = markup if number == len(parts) else None
            sent = await self.calls.text(
                room,
                part,
                entities=entities,
                markup=shown,
                reply_to=outgoing.reply_to,
                **self._writing(outgoing, "text"),
            )
            ref = f"{room}#{sent.message_id}"
            self.edits.remember(ref, part, shown)
        await self._write_sent(outgoing, ref)
        return ref

    async def _fill(self, room: Room, outgoing: _Outgoing, over: Message) -> str:
        """Send the placeholder `over`, unless there is one, and edit the answer into it. Return its reference."""
        text, entities, markup = await self._parts(room, outgoing)
        while True:
            if "stub" not in outgoing.state:
                head, named = _addressed(over.text, outgoing.mention)
                sent = await self.calls.text(room, head, entities=named, reply_to=outgoing.reply_to)
                outgoing.state["stub"] = f"{room}#{sent.message_id}"
                await self._write(outgoing)
            ref = str(outgoing.state["stub"])
            if await self.edits.fill(ref, clipped(text, TEXT_MOST), entities, markup):
                break
            del outgoing.state["stub"]
        await self._write_sent(outgoing, ref)
        return ref

    async def _parts(
        self, room: Room, outgoing: _Outgoing
    ) -> tuple[str, list[MessageEntity], InlineKeyboardMarkup | None]:
        """Send pictures and files; return the text that goes below them, its entities and its buttons."""
        message, state = outgoing.message, outgoing.state
        pictures = await self._loaded(message.pictures)
        own = [InlineKeyboardButton(outgoing.link[0], url=outgoing.link[1])] if outgoing.link else []
        if pictures and "album" not in state:
            caption = clipped(message.prompt or pictures[0][0].text, CAPTION_MOST)
            sent = await self._pictures(room, pictures, caption, outgoing)
            state["files"] = [one.photo[-1].file_id for one in sent if one.photo]
            for one, (shown, _) in zip(sent, pictures, strict=True):
                if message.job and shown.seed is not None:
                    picture = {"picture": f"{message.pictures.index(shown) + 1}:{message.job}"}
                    owner = outgoing.entry.owner if outgoing.entry else _owner(room)
                    await self._records.notes.put(PICTURES, f"{room}#{one.message_id}", picture, owner)
            state["album"] = True
            await self._write(outgoing)
        if message.job and pictures and state.get("unseen"):
            own.append(InlineKeyboardButton(say(wording.PICTURES), callback_data=f"t.pics:{message.job}"))
        if message.job and any(shown.seed is not None for shown, _ in pictures):
            own.append(InlineKeyboardButton(say(wording.ORIGINALS), callback_data=f"t.files:{message.job}"))
        missing = await self._send_files(room, outgoing) if room.private else []
        text, entities = _addressed("\n".join([text_of(message), *missing]), outgoing.mention)
        return text, entities, keyboard(message.buttons, own)

    async def _send_files(self, room: Room, outgoing: _Outgoing) -> list[str]:
        """Send the message's files; return a line for each that cannot be sent."""
        missing = [say(wording.FILE_UNSEEN)] if outgoing.message.files and outgoing.state.get("unseen") else []
        for number, file in enumerate(outgoing.message.files, start=1):
            if outgoing.state.get("handed", 0) >= number:
                continue
            try:
                data = await content(self._blobs, file, FILE_MOST)
            except UnknownBlob:
                missing.append(account.file_gone(file))
                continue
            if data is None:
                missing.append(account.file_large(file, FILE_MOST))
                continue
            caption = clipped(file.text, CAPTION_MOST)
            await self.calls.document(room, data, file.name, caption, **self._writing(outgoing, "file"))
            outgoing.state["handed"] = number
        return missing

    async def album(
        self, room: Room, pictures: Sequence[Shown], reply_to: int | None, dedupe: str, *, documents: bool = False
    ) -> None:
        """Send pictures without a text, once for each `dedupe`. `documents`: as files, uncompressed."""
        entry = Entry(f"{room}|{dedupe}", _owner(room))
        outgoing = await self._resumed(_Outgoing(Message(""), reply_to, entry=entry))
        if outgoing.state.get("unseen"):
            await self.say(room, wording.unsure(), reply_to=reply_to)
        elif "album" not in outgoing.state:
            await self._pictures(room, await self._loaded(pictures), "", outgoing, documents)
        outgoing.state.update(album=True, unseen=False)
        await self._write(outgoing)

    async def _pictures(
        self, room: Room, pictures: Loaded, caption: str, outgoing: _Outgoing, documents: bool = False
    ) -> list[Sent]:
        """Send pictures as albums, with the caption on the first picture. Return one sent message for each picture."""
        messages: list[Sent] = []
        for start in range(0, len(pictures), ALBUM_MOST):
            sent = await self.calls.album(
                room,
                pictures[start : start + ALBUM_MOST],
                caption if start == 0 else "",
                reply_to=outgoing.reply_to,
                documents=documents,
                **self._writing(outgoing, "album"),
            )
            messages += sent
        return messages

    async def _loaded(self, pictures: Sequence[Shown]) -> Loaded:
        """The pictures with their bytes. Those that were erased are left out."""
        loaded = []
        for shown in pictures:
            with suppress(UnknownBlob):
                loaded.append((shown, await self._blobs.get(shown.key)))
        return loaded

    # The ledger

    def _writing(self, outgoing: _Outgoing, part: str) -> dict[str, Callable[[], Awaitable[None]]]:
        """Callbacks for `Calls`: note in the ledger that a part is being sent, or that it was certainly not sent."""
        if outgoing.entry is None:
            return {}
        entry = outgoing.entry
        return {
            "before": lambda: self.ledger.write(entry, {**outgoing.state, "sending": part}),
            "after": lambda: self.ledger.write(entry, outgoing.state),
        }

    async def _write(self, outgoing: _Outgoing) -> None:
        if outgoing.entry is not None:
            await self.ledger.write(outgoing.entry, outgoing.state)

    async def _write_sent(self, outgoing: _Outgoing, ref: str) -> None:
        if outgoing.entry is not None:
            await self.ledger.write(outgoing.entry, {"ref": ref, "files": outgoing.state.get("files", [])})

    # The recipient of an answer

    def remember_name(self, user: User) -> None:
        """Cache a person's first name in this process."""
        self._names[user.id] = user.first_name
        self._names.move_to_end(user.id)
        while len(self._names) > _NAMES_MOST:
            self._names.popitem(last=False)

    async def remember_asker(self, job_id: str, user: int, message: int | None) -> None:
        """Note that the job's answer goes to this person, as a reply to this message."""
        await self._records.notes.put(ASKER, job_id, {"user": user, "message": message}, f"{NAME}:{user}")

    async def _asker(self, room: Room, job_id: str) -> tuple[int | None, User | None, str | None]:
        """The message that the job's answer replies to, the person to mention, and the recipient's account."""
        note = await self._records.notes.get(ASKER, job_id)
        if note is None:
            return None, None, _owner(room)
        if room.private:
            # If the job was requested in a group, its message is not in this chat.
            job = await self._records.jobs.get(job_id)
            here = job is not None and job.room == str(room)
            return note.body["message"] if here else None, None, _owner(room)
        user = int(note.body["user"])
        name = self._names.get(user)
        if name is None:
            with suppress(TelegramError):
                member = await self._bot.get_chat_member(self._migrations.current_id(room.chat), user)
                name = member.user.first_name
        return note.body["message"], User(user, name or "…", False) if name else None, f"{NAME}:{user}"

    async def picture(self, room: Room, message: int) -> str | None:
        """The picture that a message of the bot shows, as `Commands.vary` takes it."""
        note = await self._records.notes.get(PICTURES, f"{room}#{message}")
        return str(note.body["picture"]) if note else None

    async def missed(self, chat: int) -> list[tuple[str, str]]:
        """The undelivered answers for this chat and its topics, as (room, job id)."""
        found = await self.ledger.missed(str(Room(chat)))
        # This chat's id may be a prefix of another's.
        return [(room, job_id) for room, job_id in found if Room.read(room).chat == chat]


def _addressed(text: str, user: User | None) -> tuple[str, list[MessageEntity]]:
    """The text after a mention of the person, who is notified by it; the plain text if there is no person."""
    if user is None:
        return text, []
    name = user.first_name or "…"
    return f"{name}, {text}", [MessageEntity(MessageEntity.TEXT_MENTION, 0, units(name), user=user)]


def _owner(room: Room) -> str | None:
    """The account, as platform:id, that a private chat belongs to; None for a group."""
    return f"{NAME}:{room.chat}" if room.private else None
