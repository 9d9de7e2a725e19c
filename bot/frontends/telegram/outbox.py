"""What the bot sends: the delivery loop's port to Telegram.

Telegram takes a message as often as it is sent, and cannot be asked what it has. If the line breaks or the process dies
while a message is sent, nobody can know whether it is there. So whatever must not come twice is written down:

- The answer that ends a job comes as an edit, which can be done as often as like: first a message is sent that only
  says that the job is over, then it is filled with the answer. Should the first be lost sight of, another one is sent
  and filled; what is left behind holds no answer.
- An album cannot be filled afterwards. One whose fate is unknown is not sent again; the answer below it has a button
  that shows the pictures.
- The reply to a command goes out at once, since its person waits. If its fate is unknown the person is told so, and can
  send the command again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity, User
from telegram import Message as Sent
from telegram.error import TelegramError

from bot.frontends.files import content
from bot.frontends.telegram.calls import Calls, Loaded, Unreachable
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
from bot.frontends.telegram.rooms import NAME, Moves, Place
from bot.language import say
from bot.messages import Message, Shown
from bot.replies import account
from bot.replies import jobs as replies
from bot.replies import telegram as wording
from storage.blobs import Blobs
from storage.errors import UnknownBlob
from storage.records import Records

PICTURES = "telegram/pictures"
"""`<room>#<message>`: {"picture"}, as `Commands.vary` takes it, so that a reply to it can vary it."""
SENT = "telegram/sent"
"""`<room>|<dedupe>`: {"ref", "files"} once all is sent; before that how far it is:

album: the pictures are sent, `files` being the ids under which Telegram has them. handed: so many files are sent.
stub: the reference of the message to fill. sending: what was being sent, "album", "file" or "text".
unseen: nobody knows whether the album or a file arrived.
"""
ASKER = "telegram/asker"
"""`<job>`: {"user", "message", "update"}: who asked for it, with which message, in which update."""
MISSED = "telegram/missed"
"""`<room>|<job>`: an answer for somebody who had blocked the bot, or whose group had and who has no private chat."""

FILE_MOST = 50_000_000
"""Bytes of a file that a bot may send."""
_PATIENCE = 3.0
"""Seconds that the delivery loop waits for one answer before it turns to the others."""
_LEASE = 5.0
"""Seconds after which another process may send what one that fell silent was sending."""
_NAMES_MOST = 5000


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where it is written down how far a message is: the note's key, and the account that the message is for."""

    key: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class _Going:
    """A message on its way. `instead`: what is said if a former try's fate is unknown."""

    message: Message
    reply_to: int | None = None
    mention: User | None = None
    link: tuple[str, str] | None = None
    instead: Message | None = None
    entry: _Entry | None = None
    state: dict[str, Any] = field(default_factory=dict)


class Outbox:
    """Sends and edits."""

    def __init__(
        self, bot: Bot, records: Records, blobs: Blobs, moves: Moves, pace: Pace, gaps: Gaps | None = None
    ) -> None:
        self._bot = bot
        self._records = records
        self._blobs = blobs
        self._moves = moves
        self.calls = Calls(bot, moves, pace)
        self.edits = Edits(bot, blobs, moves, gaps or Gaps())
        self._holder = uuid4().hex
        self._renewing: asyncio.Task[None] | None = None
        self._names: OrderedDict[int, str] = OrderedDict()
        self._posting: dict[str, asyncio.Task[str]] = {}

    @property
    def name(self) -> str:
        return NAME

    async def close(self) -> None:
        """Finish what is being sent, and leave out the edits that still wait."""
        await self.edits.close()
        await asyncio.gather(*self._posting.values(), return_exceptions=True)
        if self._renewing is not None:
            await self._renewing
        await self.calls.close()

    # The port

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        if dedupe is None:
            return await self.say(Place.of(room), message)
        key = f"{room}|{dedupe}"
        if key not in self._posting:
            self._posting[key] = task = asyncio.create_task(self._alone(Place.of(room), message, key, dedupe))
            task.add_done_callback(lambda ended: self._posted(key, ended))
        # A room that has to wait must not hold up the others; the next call of the loop joins the same sending.
        return await asyncio.wait_for(asyncio.shield(self._posting[key]), _PATIENCE)

    def _posted(self, key: str, ended: asyncio.Task[str]) -> None:
        del self._posting[key]
        if not ended.cancelled():
            ended.exception()  # whoever waits is told; nobody else has to be

    async def _alone(self, place: Place, message: Message, key: str, job_id: str) -> str:
        """Answer, unless another process of this bot is at it: the loop asks again, and finds it sent."""
        if not await self._records.hold(key, self._holder, _LEASE):
            raise TimeoutError
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        try:
            return await self._answer(place, message, key, job_id)
        finally:
            await self._records.let_go(key, self._holder)

    async def _renew(self) -> None:
        while self._posting:
            await asyncio.sleep(_LEASE / 5)
            with suppress(Exception):  # the next time may fare better
                await self._records.hold_on(self._holder, _LEASE)

    async def _answer(self, place: Place, message: Message, key: str, job_id: str) -> str:
        reply_to, mention, owner = await self._asker(place, job_id)
        entry = _Entry(key, owner)
        try:
            going = await self._going(_Going(message, reply_to, mention, entry=entry))
            if going.state.get("ref"):
                return str(going.state["ref"])
            job = await self._records.job(job_id)
            # What it is called would have to be looked up, and "Training: done" says enough for a moment.
            over = replies.ended(job, None) if job is not None and job.over else wording.moment()
            return await self._fill(place, going, over)
        except Unreachable:
            ref = NOWHERE
            if not place.private and (asker := await self._records.note(ASKER, job_id)) is not None:
                alone = Place(int(asker.body["user"]))
                ref = await self._answer(alone, message, f"{alone.room}|{job_id}", job_id)
            if ref == NOWHERE:
                await self._records.note_set(MISSED, key, {}, owner)
            await self._note(entry, {"ref": ref})
            return ref

    async def edit(self, ref: str, message: Message) -> None:
        await self.edits.edit(ref, message)

    # Sending

    async def say(
        self,
        place: Place,
        message: Message,
        *,
        reply_to: int | None = None,
        dedupe: str | None = None,
        owner: str | None = None,
        link: tuple[str, str] | None = None,
        instead: Message | None = None,
    ) -> str:
        """Send a message and return its reference; one of the same `dedupe` that was sent is not sent again.

        `owner`: the account that it is for, as platform:id, where that is not clear from a private chat.
        `link`: the label and address of a button. `instead`: what is said if nobody knows whether a former try got
        through; without it the message comes again. Raises Unreachable, and TelegramError if Telegram does not take it.
        """
        going = _Going(message, reply_to, link=link, instead=instead)
        if dedupe is not None:
            entry = _Entry(f"{place.room}|{dedupe}", owner or _owner(place))
            going = await self._going(replace(going, entry=entry))
            if going.state.get("ref"):
                return str(going.state["ref"])
        return await self._send(place, going)

    async def _going(self, going: _Going) -> _Going:
        """With how far an earlier try got."""
        assert going.entry
        note = await self._records.note(SENT, going.entry.key)
        state = dict(note.body) if note else {}
        match state.pop("sending", None):
            case "album":
                state |= {"album": True, "unseen": True}
            case "file":
                state |= {"handed": state.get("handed", 0) + 1, "unseen": True}
            case "text" if going.instead is not None:
                going = replace(going, message=going.instead)
        return replace(going, state=state)

    async def _send(self, place: Place, going: _Going) -> str:
        """Send all of it, at once."""
        text, entities, markup = await self._parts(place, going)
        # What must not come twice is one message; anything else may take several.
        parts = pieces(text) if going.entry is None else [clipped(text, TEXT_MOST)]
        ref = NOWHERE
        for number, part in enumerate(parts, start=1):
            shown = markup if number == len(parts) else None
            sent = await self.calls.text(
                place, part, entities=entities, markup=shown, reply_to=going.reply_to, **self._noting(going, "text")
            )
            ref = f"{place.room}#{sent.message_id}"
            self.edits.remember(ref, part, shown)
        await self._sent(going, ref)
        return ref

    async def _fill(self, place: Place, going: _Going, over: Message) -> str:
        """Send what is no answer yet, unless that was done, and let it say the answer."""
        text, entities, markup = await self._parts(place, going)
        while True:
            if "stub" not in going.state:
                head, named = _addressed(over.text, going.mention)
                sent = await self.calls.text(place, head, entities=named, reply_to=going.reply_to)
                going.state["stub"] = f"{place.room}#{sent.message_id}"
                await self._keep(going)
            ref = str(going.state["stub"])
            if await self.edits.fill(ref, clipped(text, TEXT_MOST), entities, markup):
                break
            del going.state["stub"]
        await self._sent(going, ref)
        return ref

    async def _parts(self, place: Place, going: _Going) -> tuple[str, list[MessageEntity], InlineKeyboardMarkup | None]:
        """Send pictures and files; the text that goes with them, and its buttons."""
        message, state = going.message, going.state
        pictures = await self._loaded(message.pictures)
        own = [InlineKeyboardButton(going.link[0], url=going.link[1])] if going.link else []
        if pictures and "album" not in state:
            caption = clipped(message.prompt or pictures[0][0].text, CAPTION_MOST)
            sent = await self._pictures(place, pictures, caption, going)
            state["files"] = [one.photo[-1].file_id for one in sent if one.photo]
            for one, (shown, _) in zip(sent, pictures, strict=True):
                if message.job and shown.seed is not None:
                    picture = {"picture": f"{message.pictures.index(shown) + 1}:{message.job}"}
                    owner = going.entry.owner if going.entry else _owner(place)
                    await self._records.note_set(PICTURES, f"{place.room}#{one.message_id}", picture, owner)
            state["album"] = True
            await self._keep(going)
        if message.job and pictures and state.get("unseen"):
            own.append(InlineKeyboardButton(say(wording.PICTURES), callback_data=f"t.pics:{message.job}"))
        if message.job and any(shown.seed is not None for shown, _ in pictures):
            own.append(InlineKeyboardButton(say(wording.ORIGINALS), callback_data=f"t.files:{message.job}"))
        lacking = await self._hand_out(place, going) if place.private else []
        text, entities = _addressed("\n".join([text_of(message), *lacking]), going.mention)
        return text, entities, keyboard(message.buttons, own)

    async def _hand_out(self, place: Place, going: _Going) -> list[str]:
        """Send files to save; what to say of those that can't be sent."""
        lacking = [say(wording.FILE_UNSEEN)] if going.message.files and going.state.get("unseen") else []
        for number, file in enumerate(going.message.files, start=1):
            if going.state.get("handed", 0) >= number:
                continue
            try:
                data = await content(self._blobs, file, FILE_MOST)
            except UnknownBlob:
                lacking.append(account.file_gone(file))
                continue
            if data is None:
                lacking.append(account.file_large(file, FILE_MOST))
                continue
            caption = clipped(file.text, CAPTION_MOST)
            await self.calls.document(place, data, file.name, caption, **self._noting(going, "file"))
            going.state["handed"] = number
        return lacking

    async def album(
        self, place: Place, pictures: Sequence[Shown], reply_to: int | None, dedupe: str, *, documents: bool = False
    ) -> None:
        """Send pictures by themselves, as `documents` with every pixel; those of the same `dedupe` are sent once."""
        entry = _Entry(f"{place.room}|{dedupe}", _owner(place))
        going = await self._going(_Going(Message(""), reply_to, entry=entry))
        if going.state.get("unseen"):
            await self.say(place, wording.unsure(), reply_to=reply_to)
        elif "album" not in going.state:
            await self._pictures(place, await self._loaded(pictures), "", going, documents)
        going.state.update(album=True, unseen=False)
        await self._keep(going)

    async def _pictures(
        self, place: Place, pictures: Loaded, caption: str, going: _Going, documents: bool = False
    ) -> list[Sent]:
        """Send pictures as albums, the caption on the first; a message for each."""
        messages: list[Sent] = []
        for start in range(0, len(pictures), ALBUM_MOST):
            sent = await self.calls.album(
                place,
                pictures[start : start + ALBUM_MOST],
                caption if start == 0 else "",
                reply_to=going.reply_to,
                documents=documents,
                **self._noting(going, "album"),
            )
            messages += sent
        return messages

    async def _loaded(self, pictures: Sequence[Shown]) -> Loaded:
        """The pictures with their bytes, without those that were erased."""
        loaded = []
        for shown in pictures:
            with suppress(UnknownBlob):
                loaded.append((shown, await self._blobs.get(shown.key)))
        return loaded

    # What is written down

    def _noting(self, going: _Going, what: str) -> dict[str, Callable[[], Awaitable[None]]]:
        """Before something is sent, that it is; and that it is not, once that is sure."""
        if going.entry is None:
            return {}
        entry = going.entry
        return {
            "before": lambda: self._note(entry, {**going.state, "sending": what}),
            "after": lambda: self._note(entry, going.state),
        }

    async def _keep(self, going: _Going) -> None:
        if going.entry is not None:
            await self._note(going.entry, going.state)

    async def _sent(self, going: _Going, ref: str) -> None:
        if going.entry is not None:
            await self._note(going.entry, {"ref": ref, "files": going.state.get("files", [])})

    async def _note(self, entry: _Entry, state: Mapping[str, Any]) -> None:
        await self._records.note_set(SENT, entry.key, state, entry.owner)

    # Whom an answer is for

    def know(self, user: User) -> None:
        """Remember what somebody is called, in this process alone."""
        self._names[user.id] = user.first_name
        self._names.move_to_end(user.id)
        while len(self._names) > _NAMES_MOST:
            self._names.popitem(last=False)

    async def asked(self, job_id: str, user: int, message: int | None, update: int) -> None:
        """The answer to this job goes to this person, as a reply to this message."""
        await self._records.note_set(
            ASKER, job_id, {"user": user, "message": message, "update": update}, f"{NAME}:{user}"
        )

    async def _asker(self, place: Place, job_id: str) -> tuple[int | None, User | None, str | None]:
        """The message that a job's answer is a reply to, the person to mention, and the account it is for."""
        note = await self._records.note(ASKER, job_id)
        if note is None:
            return None, None, _owner(place)
        if place.private:
            # An answer that its group did not take has nothing here to reply to.
            job = await self._records.job(job_id)
            here = job is not None and job.room == place.room
            return note.body["message"] if here else None, None, _owner(place)
        user = int(note.body["user"])
        name = self._names.get(user)
        if name is None:
            with suppress(TelegramError):
                member = await self._bot.get_chat_member(self._moves.now(place.chat), user)
                name = member.user.first_name
        return note.body["message"], User(user, name or "…", False) if name else None, f"{NAME}:{user}"

    async def picture(self, place: Place, message: int) -> str | None:
        """Which picture a message of the bot shows, as `Commands.vary` takes it."""
        note = await self._records.note(PICTURES, f"{place.room}#{message}")
        return str(note.body["picture"]) if note else None

    async def missed(self, chat: int) -> list[tuple[str, str]]:
        """The answers that could not be shown in this chat or its topics: the room and the job of each."""
        found = [note.key.split("|") for note in await self._records.notes(MISSED, Place(chat).room)]
        # The id of another chat may begin like this one's.
        return [(room, job_id) for room, job_id in found if Place.of(room).chat == chat]

    async def caught_up(self, job_id: str) -> None:
        """This answer is shown now, or never can be; wherever else it was missed it need not follow."""
        for note in await self._records.notes(MISSED):
            if note.key.endswith(f"|{job_id}"):
                await self._records.note_delete(MISSED, note.key)


def _addressed(text: str, user: User | None) -> tuple[str, list[MessageEntity]]:
    """The text to somebody by name, if to anybody, so that they are notified."""
    if user is None:
        return text, []
    name = user.first_name or "…"
    return f"{name}, {text}", [MessageEntity(MessageEntity.TEXT_MENTION, 0, units(name), user=user)]


def _owner(place: Place) -> str | None:
    """Whose private chat it is, as platform:id."""
    return f"{NAME}:{place.chat}" if place.private else None
