"""Edits of sent messages: progress at a limited rate, and a message's last text at once."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from telegram import Bot, InlineKeyboardMarkup, InputMediaPhoto, LinkPreviewOptions, MessageEntity
from telegram.error import BadRequest, ChatMigrated, Forbidden, NetworkError, RetryAfter, TelegramError

from bot.frontends.locks import Locks
from bot.frontends.telegram.calls import TRIES, is_shut, seconds_of
from bot.frontends.telegram.rendering import CAPTION_MOST, TEXT_MOST, clipped, keyboard, text_of
from bot.frontends.telegram.rooms import ChatMigrations, Room
from bot.messages import Message
from storage.blobs import Blobs
from storage.errors import UnknownBlob

log = logging.getLogger(__name__)

NOWHERE = ""
"""The reference of a message that could not be delivered."""
_SHOWN_MOST = 5000


@dataclass(frozen=True, slots=True)
class Gaps:
    """Shortest pauses between two progress edits in a chat, in seconds."""

    private: float = 1.0
    group: float = 3.0


class Edits:
    """Edits of one bot's messages. An edit can be repeated without harm, so the ledger has none."""

    def __init__(self, bot: Bot, blobs: Blobs, migrations: ChatMigrations, gaps: Gaps) -> None:
        self._bot = bot
        self._blobs = blobs
        self._migrations = migrations
        self._gaps = gaps
        self._waiting: dict[str, Message] = {}
        self._pacing: dict[int, asyncio.Task[None]] = {}
        self._edited: dict[int, float] = {}
        self._editing = Locks[int]()
        # The text, buttons and picture that each message shows, so that no edit is sent that changes nothing.
        self._shown: OrderedDict[str, tuple[str, InlineKeyboardMarkup | None, str | None]] = OrderedDict()

    async def close(self) -> None:
        """Drop the edits that still wait."""
        for task in self._pacing.values():
            task.cancel()
        await asyncio.gather(*self._pacing.values(), return_exceptions=True)

    async def edit(self, ref: str, message: Message) -> None:
        """Replace the message's content: progress when the chat's pause is over, anything else at once."""
        if ref == NOWHERE:
            return
        room, _ = split(ref)
        if message.progress is None:
            self._waiting.pop(ref, None)
            if await self._edit_now(ref, message) != "later":
                return
        self._waiting[ref] = message
        if room.chat not in self._pacing:
            self._pacing[room.chat] = asyncio.create_task(self._pace_edits(room))

    async def fill(
        self, ref: str, text: str, entities: Sequence[MessageEntity], markup: InlineKeyboardMarkup | None
    ) -> bool:
        """Edit a text into a message. False if the message is gone. Raises TelegramError if a later try may succeed."""
        room, number = split(ref)
        for left in reversed(range(TRIES)):
            try:
                await self._bot.edit_message_text(
                    text=text,
                    entities=entities,
                    reply_markup=markup,
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                    chat_id=self._migrations.current_id(room.chat),
                    message_id=number,
                )
            except RetryAfter as error:
                if not left:
                    raise
                await asyncio.sleep(seconds_of(error))
                continue
            except ChatMigrated as error:
                # The messages of the old group can no longer be edited.
                await self._migrations.add(room.chat, error.new_chat_id)
                return False
            except (BadRequest, Forbidden) as error:
                if _no_longer_there(error):
                    return False
                if "message is not modified" not in error.message.lower():
                    raise
            except NetworkError:
                if not left:
                    raise
                await asyncio.sleep(0.3)
                continue
            break
        self.remember(ref, text, markup)
        return True

    async def _pace_edits(self, room: Room) -> None:
        gap = self._gaps.private if room.private else self._gaps.group
        try:
            while ref := next((ref for ref in self._waiting if split(ref)[0].chat == room.chat), None):
                await asyncio.sleep(max(0.0, self._edited.get(room.chat, 0.0) + gap - time.monotonic()))
                message = self._waiting.pop(ref, None)
                if message is None:
                    continue
                try:
                    if await self._edit_now(ref, message) == "later" and message.progress is None:
                        self._waiting.setdefault(ref, message)
                except Exception:
                    log.exception("a message was not edited")
        finally:
            del self._pacing[room.chat]

    async def _edit_now(self, ref: str, message: Message) -> Literal["shown", "gone", "later"]:
        """Replace the message's content now: shown, the message is gone, or the edit must be tried later."""
        room, number = split(ref)
        async with self._editing[room.chat]:
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
            self._edited[room.chat] = time.monotonic()
            try:
                await self._replace(room, number, ref, now)
            except RetryAfter as error:
                self._edited[room.chat] = time.monotonic() + seconds_of(error)
                return "later"
            except ChatMigrated as error:
                # The messages of the old group can no longer be edited.
                await self._migrations.add(room.chat, error.new_chat_id)
                return "gone"
            except (BadRequest, Forbidden) as error:
                if not _no_longer_there(error):
                    raise
                return "gone"
            except NetworkError as error:
                log.warning("an edit is tried again later: %s", type(error).__name__)
                return "later"
            self.remember(ref, *now)
            return "shown"

    async def _replace(
        self, room: Room, number: int, ref: str, now: tuple[str, InlineKeyboardMarkup | None, str | None]
    ) -> None:
        text, markup, picture = now
        before = self._shown.get(ref)
        chat = self._migrations.current_id(room.chat)
        where: dict[str, Any] = {"chat_id": chat, "message_id": number, "reply_markup": markup}
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

    async def remove_buttons(self, room: Room, number: int) -> None:
        """Remove the buttons of a message."""
        self._shown.pop(f"{room}#{number}", None)
        with suppress(TelegramError):
            await self._bot.edit_message_reply_markup(chat_id=self._migrations.current_id(room.chat), message_id=number)

    async def delete(self, ref: str) -> None:
        """Delete a message, if it is still there."""
        room, number = split(ref)
        with suppress(TelegramError):
            await self._bot.delete_message(self._migrations.current_id(room.chat), number)

    def remember(self, ref: str, text: str, markup: InlineKeyboardMarkup | None, picture: str | None = None) -> None:
        """Remember what a message shows now."""
        self._shown[ref] = (text, markup, picture)
        self._shown.move_to_end(ref)
        while len(self._shown) > _SHOWN_MOST:
            self._shown.popitem(last=False)


def split(ref: str) -> tuple[Room, int]:
    """The room and the message id of a reference."""
    room, _, number = ref.rpartition("#")
    return Room.read(room), int(number)


def _no_longer_there(error: TelegramError) -> bool:
    text = error.message.lower()
    gone = ("message to edit not found", "message can't be edited", "message_id_invalid")
    return is_shut(error) or any(phrase in text for phrase in gone)
