"""The Telegram bot: creates its parts, and handles each person's updates one at a time."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from telegram import Message, Update
from telegram.error import BadRequest, InvalidToken, NetworkError, TelegramError
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    ChatMemberHandler,
    InlineQueryHandler,
    MessageHandler,
    filters,
)

from bot.commands.commands import Commands
from bot.delivery import Delivery
from bot.frontends.crowd import CROWD, Crowd
from bot.frontends.locks import Locks
from bot.frontends.telegram.albums import Albums
from bot.frontends.telegram.answering import Answering
from bot.frontends.telegram.buttons import Buttons
from bot.frontends.telegram.calls import RETRY_PAUSE
from bot.frontends.telegram.connection import Connection
from bot.frontends.telegram.edits import Gaps
from bot.frontends.telegram.inline import Inline
from bot.frontends.telegram.intake import BATCH, PAUSES, Intake, Interrupted, secret_of
from bot.frontends.telegram.menu import Menu
from bot.frontends.telegram.messages import Messages
from bot.frontends.telegram.outbox import ASKER, PICTURES, TelegramOutbox
from bot.frontends.telegram.pace import Pace
from bot.frontends.telegram.reading import Context, Reader
from bot.frontends.telegram.rooms import ChatMigrations
from bot.health import beating
from bot.language import closest, speak
from bot.settings import BotSettings
from storage.open import Storage

log = logging.getLogger(__name__)

QUIET = 1.5
"""Seconds without another photo after which an album counts as complete."""
_KEPT = timedelta(days=90)
"""How long the ledger and the pictures that can be varied are kept."""
_ASKER_KEPT = timedelta(days=7)
_ABANDONED = timedelta(minutes=10)
"""Age of an unfinished update from which on its process must be dead."""

App = Application[Any, Any, Any, Any, Any, Any]


class TelegramFailure(Exception):
    """The bot cannot start with these settings; the message says why, without the token."""


class Telegram:
    """One Telegram bot.

    quiet: seconds, as `QUIET`. pauses: seconds before an update is handled again, as `intake.PAUSES`. retry_pause:
    seconds before a message is sent again, as `calls.RETRY_PAUSE`. edit_every and sweep_every: seconds, as for
    `Delivery`. operators: accounts as platform:id.
    """

    def __init__(
        self,
        storage: Storage,
        token: str,
        api_url: str,
        *,
        quiet: float = QUIET,
        pace: Pace | None = None,
        gaps: Gaps | None = None,
        pauses: Sequence[float] = PAUSES,
        retry_pause: float = RETRY_PAUSE,
        edit_every: float = 1.0,
        sweep_every: float = 2.0,
        operators: Collection[str] = (),
    ) -> None:
        self._records = storage.records
        self.application = _application(token, api_url)
        self.bot = self.application.bot
        # Sending
        self.migrations = ChatMigrations(storage.records)
        self.commands = Commands(storage.records, storage.blobs, storage.queue, storage.events, operators)
        self.outbox = TelegramOutbox(
            self.bot, storage.records, storage.blobs, self.migrations, pace or Pace(), gaps, retry_pause
        )
        self.delivery = Delivery(
            storage.records,
            storage.events,
            self.outbox,
            self.commands.answer,
            edit_every=edit_every,
            sweep_every=sweep_every,
        )
        # Receiving
        self._turns = Locks[int]()
        self._crowd = Crowd(blocking=1)
        self._unacknowledged: dict[int, Message] = {}
        self._interrupted: set[int] = set()
        self._reader = reader = Reader(self.bot, self.migrations)
        self._answering = Answering(storage.records, self.outbox, self.delivery, reader)
        self.albums = Albums(
            self.bot,
            storage.records,
            storage.blobs,
            self.commands,
            self.outbox,
            self._turns,
            self._answering.show,
            quiet,
        )
        self.intake = Intake(self.bot, storage.records, self._handle, pauses, on_arrival=self._on_arrival)
        self._menu = Menu(self.bot, storage.records, operators)
        messages = Messages(
            storage.records,
            self.commands,
            self.albums,
            self.outbox,
            self._answering,
            reader,
            self.migrations,
        )
        buttons = Buttons(storage.records, self.commands, self.albums, self.outbox, self._answering, reader)
        inline = Inline(storage.records, self.outbox.ledger)
        for handler in (
            MessageHandler(filters.UpdateType.MESSAGE, messages.on_message),
            MessageHandler(filters.UpdateType.EDITED_MESSAGE, messages.on_edit),
            CallbackQueryHandler(buttons.on_press),
            InlineQueryHandler(inline.on_query),
            ChatMemberHandler(messages.on_membership, ChatMemberHandler.MY_CHAT_MEMBER),
        ):
            self.application.add_handler(handler)
        self.application.add_error_handler(self._on_error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A context in which the bot is registered and ready to handle updates. Raises TelegramFailure."""
        try:
            await self.application.initialize()
        except TelegramError as error:
            await self.bot.shutdown()
            raise TelegramFailure(_reason(error)) from None
        try:
            await self.migrations.load()
            await self._menu.register()
            await self.albums.resume()
            yield
        finally:
            await self._crowd.close()
            await self.intake.close()
            await self.albums.close()
            await self.outbox.close()
            await self.application.shutdown()

    async def run(self, settings: BotSettings) -> None:
        """Receive updates and deliver until cancelled. Raises TelegramFailure."""
        refused = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.delivery.run())
                tasks.create_task(self._tidy())
                tasks.create_task(beating(settings.health_file, lambda: self.intake.connected))
                if settings.telegram_webhook_url:
                    secret = secret_of(self.bot.token)
                    host, port = settings.telegram_webhook_host, settings.telegram_webhook_port
                    tasks.create_task(self.intake.listen(settings.telegram_webhook_url, host, port, secret))
                    tasks.create_task(self._take_over())
                else:
                    # Only one process can poll, so no other process is handling the unfinished updates.
                    await self.intake.resume()
                    tasks.create_task(self.intake.poll())
        except* InvalidToken:
            refused = True  # an exception raised here would become part of an ExceptionGroup
        if refused:
            raise TelegramFailure("Telegram takes AVATAR_TELEGRAM_TOKEN no longer")

    async def _take_over(self) -> None:
        """Handle the updates that dead processes behind the same webhook left unfinished."""
        while True:
            await self.intake.resume(_ABANDONED)
            await asyncio.sleep(60)

    async def _tidy(self) -> None:
        """Delete old notes, every hour."""
        while True:
            try:
                now = datetime.now(UTC)
                await self.albums.expire()
                await self.intake.forget()
                await self.outbox.ledger.prune(now - _KEPT)
                await self._records.notes.prune(PICTURES, now - _KEPT)
                await self._records.leases.prune(now - _ABANDONED)
                await self._records.notes.prune(ASKER, now - _ASKER_KEPT)
            except Exception:
                log.exception("old notes were not tidied up")
            await asyncio.sleep(3600)

    # Updates: commands are acknowledged first under load, then handled one after another for each person

    def _on_arrival(self, updates: Sequence[Update]) -> None:
        self._crowd.expect_more(len(updates) == BATCH)
        if self.intake.busy + len(updates) < CROWD:
            return
        # Commands from before the load now wait with the others.
        arrived = [update.message for update in updates if update.message is not None]
        for message in [*self._unacknowledged.values(), *arrived]:
            if (message.text or "").startswith("/"):
                self._crowd.acknowledge(self.outbox.calls.typing(self._reader.room(message)))
        self._unacknowledged.clear()

    async def _handle(self, update: Update) -> None:
        if not self._crowd.work_waits and update.message is not None:
            self._unacknowledged[update.update_id] = update.message
        try:
            await self._crowd.all_acknowledged()
            await self._handle_in_turn(update)
        finally:
            self._unacknowledged.pop(update.update_id, None)

    async def _handle_in_turn(self, update: Update) -> None:
        sender = update.effective_user or update.effective_chat
        speak(closest([update.effective_user.language_code if update.effective_user else None]))
        async with self._turns[sender.id if sender else 0]:
            await self.application.process_update(update)
            if update.update_id in self._interrupted:
                self._interrupted.discard(update.update_id)
                raise Interrupted
            self._answering.handled(update.update_id)

    async def _on_error(self, update: object, context: Context) -> None:
        """Called by the library, which swallows the exceptions of handlers."""
        number = update.update_id if isinstance(update, Update) else 0
        if isinstance(context.error, NetworkError) and not isinstance(context.error, BadRequest):
            self._interrupted.add(number)
        else:
            log.error("update %s was not handled", number, exc_info=context.error)


def _application(token: str, api_url: str) -> App:
    # The library warns unless timedelta durations are chosen here.
    os.environ.setdefault("PTB_TIMEDELTA", "true")
    return (
        Application.builder()
        .token(token)
        .request(Connection())
        .get_updates_request(Connection(1))
        .base_url(f"{api_url}/bot")
        .base_file_url(f"{api_url}/file/bot")
        .updater(None)
        .job_queue(None)
        .build()
    )


def _reason(error: TelegramError) -> str:
    """Why the bot cannot start. The library's own error for a wrong token contains the token."""
    if isinstance(error, InvalidToken):
        return "Telegram does not know AVATAR_TELEGRAM_TOKEN"
    return "Telegram cannot be reached" if isinstance(error, NetworkError) else "Telegram refuses the bot"


async def serve(storage: Storage, settings: BotSettings, ready: Callable[[str], None]) -> None:
    """Serve Telegram until cancelled. `ready` gets the bot's address once it listens. Raises TelegramFailure."""
    if settings.telegram_token is None:
        raise TelegramFailure("set AVATAR_TELEGRAM_TOKEN to the token that @BotFather gave you")
    token, operators = settings.telegram_token.get_secret_value(), settings.operator_accounts
    telegram = Telegram(storage, token, settings.telegram_api_url, operators=operators)
    async with telegram.running():
        ready(f"https://t.me/{telegram.bot.username}")
        await telegram.run(settings)
