"""What the bot sends: the delivery loop's port to Telegram.

Telegram takes a message as often as it is sent and cannot be asked what it has. So every message that must not come
twice is written down before it is sent, and again with its reference afterwards. If only the first is found, the line
broke or the process died in between, and nobody knows whether the message is there: then the job's progress message,
which can be edited as often as like, offers to show the answer.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

import httpx
from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputMediaDocument,
    InputMediaPhoto,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
    User,
)
from telegram import Message as Sent
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)

from bot.frontends.files import content
from bot.frontends.telegram.pace import Pace
from bot.frontends.telegram.places import NAME, Moves, Place
from bot.frontends.telegram.render import ALBUM_MOST, CAPTION_MOST, TEXT_MOST, clipped, keyboard, pieces, text_of, units
from bot.language import say
from bot.messages import File, Message, Shown
from bot.replies import account
from bot.replies import telegram as wording
from storage.blobs import Blobs
from storage.errors import UnknownBlob
from storage.records import Records

log = logging.getLogger(__name__)

SENT = "telegram/sent"
"""`<room>|<dedupe>`: {"ref", "files"} once all is sent; {"sending", "album", "files"} in between."""
ASKER = "telegram/asker"
"""`<job>`: {"user", "message", "update"}: who asked for it, with which message, in which update."""
MISSED = "telegram/missed"
"""`<room>|<job>`: an answer for somebody who had blocked the bot."""
NOWHERE = ""
"""The reference of a message that could not be shown to anybody."""

FILE_MOST = 50_000_000
"""Bytes of a file that a bot may send."""
_TRIES = 3
_PATIENCE = 3.0
"""Seconds that the delivery loop waits for one answer before it turns to the others."""
_SHOWN_MOST = 5000

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Gaps:
    """Seconds between two edits of progress."""

    private: float = 1.0
    group: float = 3.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where it is written down that a message was sent: the note's key, and the account that the message is for."""

    key: str
    owner: str | None


class Unreachable(Exception):
    """The person or group has blocked the bot, or never spoke with it."""


class Outbox:
    """Sends and edits. `missed` composes an answer anew for somebody who is back."""

    def __init__(
        self, bot: Bot, records: Records, blobs: Blobs, moves: Moves, pace: Pace, gaps: Gaps | None = None
    ) -> None:
        self._bot = bot
        self._records = records
        self._blobs = blobs
        self._moves = moves
        self._pace = pace
        self._gaps = gaps or Gaps()
        self._names: OrderedDict[int, str] = OrderedDict()
        self._posting: dict[str, asyncio.Task[str]] = {}
        self._waiting: dict[str, Message] = {}
        self._pacing: dict[int, asyncio.Task[None]] = {}
        self._edited: dict[int, float] = {}
        self._editing: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        # What a message says now and which picture it has, so that nothing is edited to what it is.
        self._shown: OrderedDict[str, tuple[str, InlineKeyboardMarkup | None, str | None]] = OrderedDict()

    @property
    def name(self) -> str:
        return NAME

    async def close(self) -> None:
        """Finish what is being sent, and leave out the edits that still wait."""
        for task in self._pacing.values():
            task.cancel()
        await asyncio.gather(*self._pacing.values(), *self._posting.values(), return_exceptions=True)

    # The port

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        if dedupe is None:
            return await self.say(Place.of(room), message)
        key = f"{room}|{dedupe}"
        if key not in self._posting:
            self._posting[key] = task = asyncio.create_task(self._answer(Place.of(room), message, key, dedupe))
            task.add_done_callback(lambda ended: self._posted(key, ended))
        # A room that has to wait must not hold up the others; the next call of the loop joins the same sending.
        return await asyncio.wait_for(asyncio.shield(self._posting[key]), _PATIENCE)

    def _posted(self, key: str, ended: asyncio.Task[str]) -> None:
        del self._posting[key]
        if not ended.cancelled():
            ended.exception()  # whoever waits is told; nobody else has to be

    async def _answer(self, place: Place, message: Message, key: str, job_id: str) -> str:
        mention, owner = await self._asker(place, job_id)
        entry = _Entry(key, owner)
        try:
            return await self._once(entry, place, message, mention, job_id)
        except Unreachable:
            await self._records.note_set(MISSED, key, {}, owner)
            await self._note(entry, {"ref": NOWHERE})
            return NOWHERE

    async def edit(self, ref: str, message: Message) -> None:
        if ref == NOWHERE:
            return
        place, _ = split(ref)
        if message.progress is None:
            self._waiting.pop(ref, None)
            if await self._edit_now(ref, message) != "later":
                return
        self._waiting[ref] = message
        if place.chat not in self._pacing:
            self._pacing[place.chat] = asyncio.create_task(self._pace_edits(place))

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
    ) -> str:
        """Send a message and return its reference; one of the same `dedupe` is not sent twice.

        `owner`: the account that it is for, as platform:id, where that is not clear from a private chat.
        `link`: the label and address of a button. Raises Unreachable, and TelegramError if Telegram does not take it.
        """
        mention = (reply_to, None) if reply_to else None
        if dedupe is None:
            return await self._send(place, message, mention, link, None, {})
        entry = _Entry(f"{place.room}|{dedupe}", owner or _owner(place))
        return await self._once(entry, place, message, mention, dedupe, link)

    async def _once(
        self,
        entry: _Entry,
        place: Place,
        message: Message,
        mention: tuple[int | None, User | None] | None,
        dedupe: str,
        link: tuple[str, str] | None = None,
    ) -> str:
        note = await self._records.note(SENT, entry.key)
        state = dict(note.body) if note else {}
        if "ref" in state:
            return str(state["ref"])
        if state.pop("sending", None) is not None and await self._offer_to_show(entry, dedupe, state):
            return str(state["ref"])
        return await self._send(place, message, mention, link, entry, state)

    async def _offer_to_show(self, entry: _Entry, job_id: str, state: dict[str, Any]) -> bool:
        job = await self._records.job(job_id)
        if job is None or not job.progress_ref:
            return False
        try:
            if await self._edit_now(job.progress_ref, wording.unsure(job)) != "shown":
                return False
        except TelegramError:
            return False
        state["ref"] = job.progress_ref
        await self._note(entry, state)
        return True

    async def _send(
        self,
        place: Place,
        message: Message,
        mention: tuple[int | None, User | None] | None,
        link: tuple[str, str] | None,
        entry: _Entry | None,
        state: dict[str, Any],
    ) -> str:
        reply_to, user = mention or (None, None)
        pictures = await self._loaded(message.pictures)
        own = [InlineKeyboardButton(link[0], url=link[1])] if link else []
        if message.job and any(shown.seed is not None for shown, _ in pictures):
            own.append(InlineKeyboardButton(say(wording.ORIGINALS), callback_data=f"t.files:{message.job}"))
        markup = keyboard(message.buttons, own)
        if pictures and "album" not in state:
            caption = clipped(message.prompt or pictures[0][0].text, CAPTION_MOST)
            state["files"] = await self._pictures(place, pictures, caption, reply_to, entry, state)
            state["album"] = True
        lacking = await self._hand_out(place, message.files, entry, state) if place.private else []
        text, entities = "\n".join([text_of(message), *lacking]), []
        if user is not None:
            name = user.first_name or "…"
            text = f"{name}, {text}"
            entities = [MessageEntity(MessageEntity.TEXT_MENTION, 0, units(name), user=user)]
        # What must not come twice is one message; anything else may take several.
        parts = pieces(text) if entry is None else [clipped(text, TEXT_MOST)]
        ref = NOWHERE
        for number, part in enumerate(parts, start=1):
            shown = markup if number == len(parts) else None

            async def send(to: Place, part: str = part, shown: InlineKeyboardMarkup | None = shown) -> Sent:
                return await self._bot.send_message(
                    text=part,
                    entities=entities,
                    reply_markup=shown,
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                    **self._where(to, reply_to),
                )

            sent = await self._step("text", place, 1, send, entry, state)
            ref = f"{place.room}#{sent.message_id}"
            self._remember(ref, (part, shown, None))
        if entry is not None:
            await self._note(entry, {"ref": ref, "files": state.get("files", [])})
        return ref

    async def _hand_out(
        self, place: Place, files: Sequence[File], entry: _Entry | None, state: dict[str, Any]
    ) -> list[str]:
        """Send files to save; what to say in place of those that can't be sent."""
        lacking = []
        for number, file in enumerate(files, start=1):
            if state.get("handed", 0) >= number:
                continue
            try:
                data = await content(self._blobs, file, FILE_MOST)
            except UnknownBlob:
                lacking.append(account.file_gone(file))
                continue
            if data is None:
                lacking.append(account.file_large(file, FILE_MOST))
                continue

            async def send(to: Place, file: File = file, data: bytes = data) -> Sent:
                caption = clipped(file.text, CAPTION_MOST)
                where = self._where(to, None)
                return await self._bot.send_document(document=data, filename=file.name, caption=caption, **where)

            await self._step("file", place, 1, send, entry, state)
            state["handed"] = number
        return lacking

    async def originals(self, place: Place, pictures: Sequence[Shown], reply_to: int | None) -> None:
        """Send pictures as files, with every pixel."""
        await self._pictures(place, await self._loaded(pictures), "", reply_to, None, {}, documents=True)

    async def _pictures(
        self,
        place: Place,
        pictures: Sequence[tuple[Shown, bytes]],
        caption: str,
        reply_to: int | None,
        entry: _Entry | None,
        state: dict[str, Any],
        documents: bool = False,
    ) -> list[str]:
        """Send pictures as albums, the caption on the first; the ids under which Telegram has them."""
        files: list[str] = []
        for start in range(0, len(pictures), ALBUM_MOST):
            some = pictures[start : start + ALBUM_MOST]
            said = caption if start == 0 else ""

            async def send(to: Place, some: Any = some, said: str = said) -> Sequence[Sent]:
                return await self._album(to, some, said, reply_to, documents)

            async def send_as_files(to: Place, some: Any = some, said: str = said) -> Sequence[Sent]:
                return await self._album(to, some, said, reply_to, True)

            try:
                sent = await self._step("album", place, len(some), send, entry, state)
            except BadRequest:
                # Telegram shows no picture that is too large or too narrow; as files it takes them.
                sent = await self._step("album", place, len(some), send_as_files, entry, state)
            files += [one.photo[-1].file_id for one in sent if one.photo]
        return files

    async def _album(
        self, place: Place, some: Sequence[tuple[Shown, bytes]], caption: str, reply_to: int | None, documents: bool
    ) -> Sequence[Sent]:
        where = self._where(place, reply_to)
        names = [f"{number if shown.seed is None else shown.seed}.png" for number, (shown, _) in enumerate(some, 1)]
        if len(some) == 1:
            data = some[0][1]
            if documents:
                return [await self._bot.send_document(document=data, filename=names[0], caption=caption, **where)]
            return [await self._bot.send_photo(photo=data, filename=names[0], caption=caption, **where)]
        kind = InputMediaDocument if documents else InputMediaPhoto
        media = [
            kind(data, filename=name, caption=caption if number == 0 else None)
            for number, (name, (_, data)) in enumerate(zip(names, some, strict=True))
        ]
        return await self._bot.send_media_group(media=media, **where)

    def _where(self, place: Place, reply_to: int | None) -> dict[str, Any]:
        return {
            "chat_id": self._moves.now(place.chat),
            "message_thread_id": place.thread,
            "reply_parameters": ReplyParameters(reply_to, allow_sending_without_reply=True) if reply_to else None,
        }

    async def _step(
        self,
        name: str,
        place: Place,
        count: int,
        send: Callable[[Place], Awaitable[_Result]],
        entry: _Entry | None,
        state: dict[str, Any],
    ) -> _Result:
        """One call that puts messages into a chat, at its turn, tried again where it surely had no effect."""
        tries = 0
        while True:
            await self._pace.turn(place.chat, count)
            if entry is not None:
                await self._note(entry, {**state, "sending": name})
            try:
                return await send(place)
            except TelegramError as error:
                if not _had_no_effect(error):
                    raise
                if entry is not None:
                    await self._note(entry, state)
                tries += 1
                if isinstance(error, RetryAfter):
                    self._pace.pause(place.chat, _seconds(error))
                elif isinstance(error, ChatMigrated):
                    await self._moves.add(place.chat, error.new_chat_id)
                elif isinstance(error, Forbidden) or "chat not found" in error.message.lower():
                    raise Unreachable from error
                elif isinstance(error, BadRequest) and "thread not found" in error.message and place.thread:
                    place = Place(place.chat)
                elif isinstance(error, (BadRequest, InvalidToken, Conflict)) or tries >= _TRIES:
                    raise
                else:
                    await asyncio.sleep(0.5 * tries)

    async def _loaded(self, pictures: Sequence[Shown]) -> list[tuple[Shown, bytes]]:
        """The pictures with their bytes, without those that were erased."""
        loaded = []
        for shown in pictures:
            with suppress(UnknownBlob):
                loaded.append((shown, await self._blobs.get(shown.key)))
        return loaded

    async def _note(self, entry: _Entry, state: Mapping[str, Any]) -> None:
        await self._records.note_set(SENT, entry.key, state, entry.owner)

    # Whom an answer is for

    def know(self, user: User) -> None:
        """Remember what somebody is called, in this process alone."""
        self._names[user.id] = user.first_name
        self._names.move_to_end(user.id)
        while len(self._names) > _SHOWN_MOST:
            self._names.popitem(last=False)

    async def asked(self, job_id: str, user: int, message: int | None, update: int) -> None:
        """The answer to this job goes to this person, as a reply to this message."""
        await self._records.note_set(
            ASKER, job_id, {"user": user, "message": message, "update": update}, f"{NAME}:{user}"
        )

    async def _asker(self, place: Place, job_id: str) -> tuple[tuple[int | None, User | None] | None, str | None]:
        """The message that a job's answer is a reply to, the person to mention, and the account it is for."""
        note = await self._records.note(ASKER, job_id)
        if note is None:
            return None, _owner(place)
        if place.private:
            return (note.body["message"], None), _owner(place)
        user = int(note.body["user"])
        name = self._names.get(user)
        if name is None:
            with suppress(TelegramError):
                member = await self._bot.get_chat_member(self._moves.now(place.chat), user)
                name = member.user.first_name
        return (note.body["message"], User(user, name or "…", False) if name else None), f"{NAME}:{user}"

    async def missed(self, room: str) -> list[str]:
        """The jobs whose answers could not be shown in this room; they are forgotten here and may be posted again."""
        jobs = []
        for note in await self._records.notes(MISSED, f"{room}|"):
            await self._records.note_delete(SENT, note.key)
            await self._records.note_delete(MISSED, note.key)
            jobs.append(note.key.partition("|")[2])
        return jobs

    # Editing

    async def _pace_edits(self, place: Place) -> None:
        gap = self._gaps.private if place.private else self._gaps.group
        try:
            while ref := next((ref for ref in self._waiting if split(ref)[0].chat == place.chat), None):
                await asyncio.sleep(max(0.0, self._edited.get(place.chat, 0.0) + gap - time.monotonic()))
                message = self._waiting.pop(ref, None)
                if message is None:
                    continue
                try:
                    if await self._edit_now(ref, message) == "later" and message.progress is None:
                        self._waiting.setdefault(ref, message)
                except Exception:
                    log.exception("a message was not edited")
        finally:
            del self._pacing[place.chat]

    async def _edit_now(self, ref: str, message: Message) -> Literal["shown", "gone", "later"]:
        """Show this in place of what the message says. It may be gone, or have to be tried later."""
        place, number = split(ref)
        lock = self._editing.setdefault(place.chat, asyncio.Lock())
        async with lock:
            picture = message.pictures[0].key if message.pictures else None
            now = (
                clipped(text_of(message), CAPTION_MOST if picture else TEXT_MOST),
                keyboard(message.buttons),
                picture,
            )
            if self._shown.get(ref) == now:
                return "shown"
            if len(self._edited) > _SHOWN_MOST:
                self._edited.clear()
            self._edited[place.chat] = time.monotonic()
            try:
                await self._replace(place, number, ref, now)
            except RetryAfter as error:
                self._edited[place.chat] = time.monotonic() + _seconds(error)
                return "later"
            except ChatMigrated as error:
                # The group's old messages stay behind, out of reach.
                await self._moves.add(place.chat, error.new_chat_id)
                return "gone"
            except (BadRequest, Forbidden) as error:
                if not _no_longer_there(error):
                    raise
                return "gone"
            except NetworkError as error:
                log.warning("a message waits for its edit: %s", type(error).__name__)
                return "later"
            self._remember(ref, now)
            return "shown"

    async def _replace(
        self, place: Place, number: int, ref: str, now: tuple[str, InlineKeyboardMarkup | None, str | None]
    ) -> None:
        text, markup, picture = now
        before = self._shown.get(ref)
        where: dict[str, Any] = {"chat_id": self._moves.now(place.chat), "message_id": number, "reply_markup": markup}
        try:
            if picture is not None and (before is None or before[2] != picture):
                with suppress(UnknownBlob):
                    data = await self._blobs.get(picture)
                    await self._bot.edit_message_media(InputMediaPhoto(data, caption=text), **where)
                    return
            if before is not None and before[2] is not None:
                await self._bot.edit_message_caption(caption=clipped(text, CAPTION_MOST), **where)
                return
            try:
                await self._bot.edit_message_text(
                    text=text, link_preview_options=LinkPreviewOptions(is_disabled=True), **where
                )
            except BadRequest as error:
                if "no text in the message" not in error.message:
                    raise
                await self._bot.edit_message_caption(caption=clipped(text, CAPTION_MOST), **where)
        except BadRequest as error:
            if "message is not modified" not in error.message.lower():
                raise

    async def spend(self, place: Place, number: int) -> None:
        """Take the buttons off a message."""
        self._shown.pop(f"{place.room}#{number}", None)
        with suppress(TelegramError):
            await self._bot.edit_message_reply_markup(chat_id=self._moves.now(place.chat), message_id=number)

    async def delete(self, ref: str) -> None:
        """Take a message away, if it is still there."""
        place, number = split(ref)
        with suppress(TelegramError):
            await self._bot.delete_message(self._moves.now(place.chat), number)

    def _remember(self, ref: str, shown: tuple[str, InlineKeyboardMarkup | None, str | None]) -> None:
        self._shown[ref] = shown
        self._shown.move_to_end(ref)
        while len(self._shown) > _SHOWN_MOST:
            self._shown.popitem(last=False)


def _owner(place: Place) -> str | None:
    """Whose private chat it is, as platform:id."""
    return f"{NAME}:{place.chat}" if place.private else None


def split(ref: str) -> tuple[Place, int]:
    """A reference's place and message id."""
    room, _, number = ref.rpartition("#")
    return Place.of(room), int(number)


def _seconds(error: RetryAfter) -> float:
    after = error.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)


def _had_no_effect(error: TelegramError) -> bool:
    """Whether Telegram surely has not taken what was sent."""
    if not isinstance(error, NetworkError) or isinstance(error, BadRequest):
        return True  # it answered, and refused
    cause = error.__cause__
    return cause is None or isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _no_longer_there(error: TelegramError) -> bool:
    said = error.message.lower()
    gone = ("message to edit not found", "message can't be edited", "message_id_invalid", "chat not found")
    return isinstance(error, Forbidden) or any(words in said for words in gone)
