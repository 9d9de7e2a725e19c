"""Telegram's sending methods: paced, and tried again only if the failed call certainly had no effect."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from telegram import (
    Bot,
    InlineKeyboardMarkup,
    InputMediaDocument,
    InputMediaPhoto,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)
from telegram import Message as Sent
from telegram.constants import ChatAction
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from bot.frontends.telegram.connection import CONNECTIONS, Broken, NeverSent
from bot.frontends.telegram.pace import Pace
from bot.frontends.telegram.rooms import ChatMigrations, Room
from bot.messages import Shown

log = logging.getLogger(__name__)

TRIES = 3
RETRY_PAUSE = 0.5
"""Pause before the second try, in seconds; doubled before the third."""
_TYPING_WAIT_MOST = 3.0
"""Longest retry-after time, in seconds, after which the typing sign is still sent."""
PHOTO_MOST = 10_000_000
"""Most bytes of a picture that Telegram shows as a photo."""
_GATEWAY = ("Bad Gateway", "(503)", "(504)")
"""Parts of the library's error texts for answers of a proxy in front of the Bot API."""

_SHUT = (
    "chat not found",
    "not enough rights to send",
    "have no rights to send",
    "chat_write_forbidden",
    "chat_restricted",
    "topic_closed",
)
"""Parts of the error texts for a chat that accepts no messages from the bot until a person changes that."""

_Result = TypeVar("_Result")
Loaded = Sequence[tuple[Shown, bytes]]
"""Pictures with their bytes."""


class Unreachable(Exception):
    """The person or group has blocked or muted the bot, or has never written to it."""


class Calls:
    """Telegram's sending methods over one bot. Every call raises Unreachable, and TelegramError if Telegram refuses it.

    `reply_to`: the message that is answered; it may be gone by now. `retry_pause`: seconds, as `RETRY_PAUSE`.
    """

    def __init__(self, bot: Bot, migrations: ChatMigrations, pace: Pace, retry_pause: float = RETRY_PAUSE) -> None:
        self._bot = bot
        self._retry_pause = retry_pause
        self._migrations = migrations
        self._pace = pace
        self._acknowledging: set[asyncio.Task[None]] = set()
        # Reusing a few connections is faster than opening one for each person.
        self._few = asyncio.Semaphore(CONNECTIONS // 2)

    async def text(
        self,
        room: Room,
        text: str,
        *,
        entities: Sequence[MessageEntity] = (),
        markup: InlineKeyboardMarkup | None = None,
        reply_to: int | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> Sent:
        """Send a text. `before`, `after`: as in `at_turn`."""

        async def send(to: Room) -> Sent:
            return await self._bot.send_message(
                text=text,
                entities=entities,
                reply_markup=markup,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
                **self._where(to, reply_to),
            )

        return await self.at_turn(room, 1, send, before, after)

    async def document(
        self,
        room: Room,
        data: bytes,
        name: str,
        caption: str,
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> Sent:
        """Send a file. `before`, `after`: as in `at_turn`."""

        async def send(to: Room) -> Sent:
            where = self._where(to, None)
            return await self._bot.send_document(document=data, filename=name, caption=caption, **where)

        return await self.at_turn(room, 1, send, before, after)

    async def album(
        self,
        room: Room,
        some: Loaded,
        caption: str,
        *,
        reply_to: int | None = None,
        documents: bool = False,
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> Sequence[Sent]:
        """Send 1 to 10 pictures as an album, the caption on the first; as files if `documents` or if necessary."""

        def way(as_files: bool) -> Callable[[Room], Awaitable[Sequence[Sent]]]:
            async def send(to: Room) -> Sequence[Sent]:
                return await self._album(self._where(to, reply_to), some, caption, as_files)

            return send

        documents = documents or any(len(data) > PHOTO_MOST for _, data in some)
        try:
            return await self.at_turn(room, len(some), way(documents), before, after)
        except BadRequest:
            # Telegram refuses photos that are too large or too narrow, but accepts them as files.
            return await self.at_turn(room, len(some), way(True), before, after)

    async def _album(self, where: dict[str, Any], some: Loaded, caption: str, documents: bool) -> Sequence[Sent]:
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

    def _where(self, room: Room, reply_to: int | None) -> dict[str, Any]:
        return {
            "chat_id": self._migrations.current_id(room.chat),
            "message_thread_id": room.topic,
            "reply_parameters": ReplyParameters(reply_to, allow_sending_without_reply=True) if reply_to else None,
        }

    async def at_turn(
        self,
        room: Room,
        count: int,
        send: Callable[[Room], Awaitable[_Result]],
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> _Result:
        """Send `count` messages at their turn.

        `before` is run right before each try, `after` after each that surely had no effect.
        """
        tries = 0
        while True:
            if self._pace.wait(room.chat, count) > 0:
                self._acknowledge(room)
            await self._pace.turn(room.chat, count)
            if before is not None:
                await before()
            try:
                return await send(room)
            except TelegramError as error:
                if not had_no_effect(error):
                    raise
                if after is not None:
                    await after()
                tries += 1
                if isinstance(error, RetryAfter):
                    self._pace.pause(room.chat, seconds_of(error))
                elif isinstance(error, ChatMigrated):
                    await self._migrations.add(room.chat, error.new_chat_id)
                elif is_shut(error):
                    raise Unreachable from error
                elif isinstance(error, BadRequest) and "thread not found" in error.message and room.topic:
                    room = Room(room.chat)
                elif isinstance(error, (BadRequest, InvalidToken, Conflict)) or tries >= TRIES:
                    raise
                else:
                    await asyncio.sleep(self._retry_pause * tries)

    def _acknowledge(self, room: Room) -> None:
        self._acknowledging.add(task := asyncio.create_task(self.typing(room)))
        task.add_done_callback(self._acknowledging.discard)

    async def typing(self, room: Room) -> None:
        """Acknowledge a command: show the typing sign if the reply has to wait."""
        for _ in range(TRIES):
            if self._pace.retry_after(room.chat) > _TYPING_WAIT_MOST:
                return
            await self._pace.wait_retry_after(room.chat)
            try:
                async with self._few:
                    await self._bot.send_chat_action(
                        self._migrations.current_id(room.chat), ChatAction.TYPING, message_thread_id=room.topic
                    )
            except RetryAfter as error:
                self._pace.pause(room.chat, seconds_of(error))
            except TelegramError:
                continue
            else:
                return

    async def close(self) -> None:
        """Finish the acknowledgements under way."""
        await asyncio.gather(*self._acknowledging, return_exceptions=True)


def seconds_of(error: RetryAfter) -> float:
    """How long Telegram asks to wait."""
    after = error.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)


def is_shut(error: TelegramError) -> bool:
    """Whether the chat accepts nothing from the bot, so that another try is useless."""
    return isinstance(error, Forbidden) or any(said in error.message.lower() for said in _SHUT)


def had_no_effect(error: TelegramError) -> bool:
    """Whether the failed call certainly had no effect."""
    if isinstance(error, Broken | TimedOut):
        return False
    if not isinstance(error, NetworkError) or isinstance(error, BadRequest | NeverSent):
        return True
    return not any(said in error.message for said in _GATEWAY)
