"""Receiving updates by polling or webhook: each is stored before it is confirmed to Telegram, and handled once.

Telegram repeats an update until it is confirmed. Confirming before handling would lose it if the process died;
confirming afterwards would let one slow update delay all others. So an update is confirmed once it is in the records.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from aiohttp import web
from telegram import Bot, Update
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from bot.frontends.telegram.calls import seconds_of
from bot.frontends.telegram.rooms import NAME
from storage.cancellation import uninterrupted
from storage.records import Records

log = logging.getLogger(__name__)

INBOX = "telegram/inbox"
"""`<update id>`: {"update"} until it is handled, {} afterwards, since Telegram may send it again for a day."""
KINDS = [Update.MESSAGE, Update.EDITED_MESSAGE, Update.CALLBACK_QUERY, Update.INLINE_QUERY, Update.MY_CHAT_MEMBER]
SECRET = "X-Telegram-Bot-Api-Secret-Token"

BATCH = 100
"""Most updates of one poll. A poll that returns this number has left more waiting."""
PAUSES = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Pauses in seconds before an update is handled again after Telegram was unreachable. After the last it is dropped."""
_KEPT = timedelta(days=2)
_BODY_MOST = 1024 * 1024
_LATE = 20.0
"""Tolerated delay of a poll's response, in seconds."""
_FAREWELL = 10.0
"""Time for updates under way when the process ends, in seconds."""


class Interrupted(Exception):
    """Telegram was unreachable while an update was handled, so it must be handled again."""


class Intake:
    """Receives updates and handles each in its own task.

    handle: handles one update; if it raises Interrupted it is called again after the next of the `pauses`, in seconds.
    on_arrival: called first with new updates; must be quick.
    """

    def __init__(
        self,
        bot: Bot,
        records: Records,
        handle: Callable[[Update], Awaitable[None]],
        pauses: Sequence[float] = PAUSES,
        on_arrival: Callable[[Sequence[Update]], None] = lambda updates: None,
    ) -> None:
        self._bot = bot
        self._records = records
        self._handle = handle
        self._pauses = pauses
        self._on_arrival = on_arrival
        self._handling: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected_until = 0.0

    @property
    def connected(self) -> bool:
        """Whether updates can arrive: the polls are answered, or the webhook is registered."""
        return time.monotonic() < self._connected_until

    async def resume(self, age: timedelta = timedelta()) -> None:
        """Handle the unfinished updates of an earlier process that are at least this old, in order of arrival."""
        unfinished = [note for note in await self._records.notes.find(INBOX) if note.body]
        for note in sorted(unfinished, key=lambda note: int(note.key)):
            if int(note.key) not in self._handling and note.created <= datetime.now(UTC) - age:
                self._start(note.body["update"])

    async def take(self, updates: Sequence[Update]) -> None:
        """Store updates, and start to handle those that were not received before."""
        taken: dict[str, tuple[dict[str, object], str | None]] = {}
        for update in updates:
            who = update.effective_user
            taken[str(update.update_id)] = {"update": update.to_dict()}, f"{NAME}:{who.id}" if who else None
        self._on_arrival(updates)
        new = await self._records.notes.add_many(INBOX, taken)
        for key, (body, _) in taken.items():
            if key in new:
                self._start(body["update"])  # type: ignore[arg-type]

    def _start(self, body: dict[str, object]) -> None:
        self._tasks.add(task := asyncio.create_task(self._handle_until_done(Update.de_json(body, self._bot))))
        task.add_done_callback(self._tasks.discard)

    async def _handle_until_done(self, update: Update) -> None:
        self._handling.add(update.update_id)
        try:
            await self._try(update)
            await self._records.notes.put(INBOX, str(update.update_id), {})
        finally:
            self._handling.discard(update.update_id)

    async def _try(self, update: Update) -> None:
        for pause in self._pauses:
            try:
                await self._handle(update)
            except Interrupted:
                await asyncio.sleep(pause)
            except Exception:
                log.exception("update %s was not handled", update.update_id)
                return
            else:
                return
        log.error("update %s was dropped: Telegram was unreachable too long", update.update_id)

    @property
    def busy(self) -> int:
        """How many updates are being handled."""
        return len(self._tasks)

    async def close(self) -> None:
        """Finish the updates under way; leave those that take too long to the next process."""
        if self._tasks:
            _, slow = await asyncio.wait(self._tasks, timeout=_FAREWELL)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)

    async def forget(self) -> None:
        """Delete the updates that Telegram cannot send again."""
        await self._records.notes.prune(INBOX, datetime.now(UTC) - _KEPT)

    # Polling

    async def poll(self, patience: int = 25) -> None:
        """Ask for updates, forever. Raises InvalidToken."""
        offset: int | None = None
        pause = 0.0
        polling = False
        while True:
            try:
                if not polling:
                    polling = await self._bot.delete_webhook()
                    self._connected_until = time.monotonic() + patience + _LATE
                updates = await self._bot.get_updates(
                    offset=offset, limit=BATCH, timeout=patience, allowed_updates=KINDS
                )
                if updates:
                    # Updates that can't be stored are not confirmed, so Telegram sends them again.
                    await uninterrupted(self.take(updates))
                    offset = max(update.update_id for update in updates) + 1
                pause = 0.0
                self._connected_until = time.monotonic() + patience + _LATE
            except InvalidToken:
                raise
            except Exception as error:
                # No poll is open now, so the bot counts as connected only for the tolerated delay.
                self._connected_until = min(self._connected_until, time.monotonic() + _LATE)
                pause = _pause(error, pause)
                await asyncio.sleep(pause)

    # Webhook

    async def listen(self, url: str, host: str, port: int, secret: str) -> None:
        """Register the webhook and serve it, forever. Raises InvalidToken."""

        async def called(request: web.Request) -> web.Response:
            if not hmac.compare_digest(request.headers.get(SECRET, "").encode(), secret.encode()):
                raise web.HTTPForbidden
            try:
                update = Update.de_json(await request.json(), self._bot)
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
                raise web.HTTPBadRequest from None
            await uninterrupted(self.take([update]))
            return web.Response()

        app = web.Application(client_max_size=_BODY_MOST)
        app.router.add_post(urlsplit(url).path or "/", called)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            pause = 0.0
            while True:
                try:
                    await self._bot.set_webhook(url, secret_token=secret, allowed_updates=KINDS)
                    self._connected_until = math.inf
                    break
                except InvalidToken:
                    raise
                except TelegramError as error:
                    pause = _pause(error, pause)
                    await asyncio.sleep(pause)
            await asyncio.Event().wait()
        finally:
            self._connected_until = 0.0
            await runner.cleanup()


def _pause(error: Exception, before: float) -> float:
    """The pause in seconds after an error; `before` is the pause after the previous one."""
    if isinstance(error, RetryAfter):
        return seconds_of(error)
    if isinstance(error, Conflict):
        log.error("another process polls with the same token; stop one of them")
    else:
        log.warning("no updates, trying again: %s", type(error).__name__)
    return min(30.0, before * 2 or 0.1)


def secret_of(token: str) -> str:
    """The secret that Telegram sends to the webhook: a hash of the bot's token, equal in all of its processes."""
    return hmac.new(token.encode(), b"avatar-diffusion webhook", hashlib.sha256).hexdigest()
