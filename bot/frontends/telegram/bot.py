"""What people do on Telegram becomes calls of `Commands`, and its replies become messages."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from telegram import (
    BotCommand,
    BotCommandScope,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
    BotCommandScopeDefault,
    CallbackQuery,
    Chat,
    ChatMember,
    InlineQueryResultCachedPhoto,
    MessageEntity,
    Update,
    User,
)
from telegram import Message as Got
from telegram.error import BadRequest, InvalidToken, NetworkError, TelegramError
from telegram.ext import (
    Application,
    CallbackContext,
    CallbackQueryHandler,
    ChatMemberHandler,
    InlineQueryHandler,
    MessageHandler,
    filters,
)

from bot.commands.commands import Commands
from bot.delivery import Delivery
from bot.frontends.telegram.albums import Albums, is_file, takes_photos
from bot.frontends.telegram.calls import Unreachable, is_shut
from bot.frontends.telegram.connection import Connection
from bot.frontends.telegram.edits import NOWHERE, Gaps
from bot.frontends.telegram.intake import BATCH, Intake, Interrupted, secret_of
from bot.frontends.telegram.outbox import ASKER, PICTURES, SENT, Outbox
from bot.frontends.telegram.pace import Pace
from bot.frontends.telegram.rendering import ALERT_MOST, units
from bot.frontends.telegram.rooms import NAME, Moves, Place
from bot.health import beating
from bot.language import ENGLISH, LANGUAGES, closest, say, speak, speaking
from bot.messages import Caller, Message, Reply, Shown
from bot.replies import jobs as replies
from bot.replies import telegram as wording
from bot.settings import BotSettings
from bot.table import COMMANDS
from storage.errors import UserError
from storage.jobs import Imagine, State
from storage.open import Storage
from storage.records import HOLDS, Job, Note

log = logging.getLogger(__name__)

QUIET = 1.5
"""Seconds without another photo after which an album counts as whole for now."""
CROWD = 10
"""Updates under way from which on people are told first that the bot is at it."""
NOTICING = 2.0
"""Seconds that the work waits for that."""
INLINE_MOST = 50
_INLINE_JOBS = 100
_KEPT = timedelta(days=90)
_ABANDONED = timedelta(minutes=10)
_ASKER_KEPT = timedelta(days=7)
_OPERATORS = "telegram/operators"
"""`<chat id>`: {}, where the commands of operators are registered."""
_REPLIES_MOST = 1000

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]


class TelegramFailure(Exception):
    """Telegram cannot be used as it is set up; the message says why, without the token."""


class Telegram:
    """One bot over one storage."""

    def __init__(
        self,
        storage: Storage,
        token: str,
        api_url: str,
        *,
        quiet: float = QUIET,
        pace: Pace | None = None,
        gaps: Gaps | None = None,
        operators: Collection[str] = (),
    ) -> None:
        # The library asks for this opt-in to durations as such, and warns without it.
        os.environ.setdefault("PTB_TIMEDELTA", "true")
        self._storage = storage
        self._records = storage.records
        self.application: App = (
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
        self.bot = self.application.bot
        self._operators = frozenset(operators)
        self.commands = Commands(storage.records, storage.blobs, storage.queue, storage.events, operators)
        self.moves = Moves(storage.records)
        self.outbox = Outbox(self.bot, storage.records, storage.blobs, self.moves, pace or Pace(), gaps)
        self.delivery = Delivery(storage.records, storage.events, self.outbox, self.commands.answer)
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self.albums = Albums(
            self.bot, storage.records, storage.blobs, self.commands, self.outbox, self._turn, self._of_album, quiet
        )
        self.intake = Intake(self.bot, storage.records, self._handle, came=self._came)
        self._untold: dict[int, Got] = {}
        self._noticing: set[asyncio.Task[None]] = set()
        self._more = False
        self._calm = asyncio.Event()
        self._calm.set()
        self._left: dict[int, Note] = {}
        self._interrupted: set[int] = set()
        self._replies: dict[int, Reply] = {}
        for handler in (
            MessageHandler(filters.UpdateType.MESSAGE, self._on_message),
            MessageHandler(filters.UpdateType.EDITED_MESSAGE, self._on_edit),
            CallbackQueryHandler(self._on_press),
            InlineQueryHandler(self._on_inline),
            ChatMemberHandler(self._on_membership, ChatMemberHandler.MY_CHAT_MEMBER),
        ):
            self.application.add_handler(handler)
        self.application.add_error_handler(self._on_error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Registered and ready to handle updates. Raises TelegramFailure."""
        try:
            await self.application.initialize()
        except TelegramError as error:
            await self.bot.shutdown()
            # The library's own words for a wrong token hold the token.
            known = "Telegram cannot be reached" if isinstance(error, NetworkError) else "Telegram refuses the bot"
            if isinstance(error, InvalidToken):
                known = "Telegram does not know AVATAR_TELEGRAM_TOKEN"
            raise TelegramFailure(known) from None
        try:
            await self.moves.load()
            await self._register()
            await self.albums.resume()
            yield
        finally:
            await asyncio.gather(*self._noticing, return_exceptions=True)
            await self.intake.close()
            await self.albums.close()
            await self.outbox.close()
            await self.application.shutdown()

    async def run(self, settings: BotSettings) -> None:
        """Take updates and deliver until cancelled. Raises TelegramFailure."""
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
                    # Telegram lets one process poll, so whatever is left is nobody's.
                    await self.intake.resume()
                    tasks.create_task(self.intake.poll())
        except* InvalidToken:
            refused = True  # what is raised in here would come out as a group
        if refused:
            raise TelegramFailure("Telegram takes AVATAR_TELEGRAM_TOKEN no longer")

    async def _take_over(self) -> None:
        """Handle what other processes behind the same webhook left, long after they can still be at it."""
        while True:
            await self.intake.resume(_ABANDONED)
            await asyncio.sleep(60)

    async def _register(self) -> None:
        """Tell Telegram the commands, for each language and each kind of chat."""
        for number in self._operator_chats():
            await self._records.note_set(_OPERATORS, str(number), {}, f"{NAME}:{number}")
        for language in LANGUAGES:
            # Whoever reads none of the languages gets the list that names none, which is in English.
            with speaking(language):
                await self._register_in(None if language == ENGLISH else language)
        await self._unregister()

    async def _register_in(self, language: str | None) -> None:
        table = [BotCommand(one.name, say(one.description)) for one in COMMANDS.values() if not one.operators]
        for_operators = [BotCommand(one.name, say(one.description)) for one in COMMANDS.values() if one.operators]
        start = BotCommand("start", say(wording.START))
        scopes: list[tuple[BotCommandScope, list[BotCommand]]] = [
            (BotCommandScopeDefault(), table),
            (BotCommandScopeAllPrivateChats(), [*table, start]),
            (BotCommandScopeAllGroupChats(), table),
        ]
        for number in self._operator_chats():
            scopes.append((BotCommandScopeChat(number), [*table, *for_operators, start]))
        for scope, commands in scopes:
            try:
                await self.bot.set_my_commands(commands, scope=scope, language_code=language)
            except TelegramError as error:
                log.warning("the commands were not registered: %s", type(error).__name__)

    async def _unregister(self) -> None:
        """Give those who are operators no longer everybody's list again."""
        for note in await self._records.notes(_OPERATORS):
            if int(note.key) in self._operator_chats():
                continue
            try:
                for language in LANGUAGES:
                    code = None if language == ENGLISH else language
                    await self.bot.delete_my_commands(BotCommandScopeChat(int(note.key)), code)
            except TelegramError as error:
                log.warning("the commands of a former operator stay: %s", type(error).__name__)
                if not is_shut(error):
                    continue
            await self._records.note_delete(_OPERATORS, note.key)

    def _operator_chats(self) -> list[int]:
        accounts = [account.partition(":") for account in sorted(self._operators)]
        return [int(number) for platform, _, number in accounts if platform == NAME and number.isdecimal()]

    async def _tidy(self) -> None:
        while True:
            try:
                await self.albums.expire()
                await self.intake.forget()
                await self._records.notes_prune(SENT, datetime.now(UTC) - _KEPT)
                await self._records.notes_prune(PICTURES, datetime.now(UTC) - _KEPT)
                await self._records.notes_prune(HOLDS, datetime.now(UTC) - _ABANDONED)
                await self._records.notes_prune(ASKER, datetime.now(UTC) - _ASKER_KEPT)
            except Exception:
                log.exception("old notes were not tidied up")
            await asyncio.sleep(3600)

    # Updates, one after another for each person

    @asynccontextmanager
    async def _turn(self, person: int) -> AsyncIterator[None]:
        lock = self._turns.setdefault(person, asyncio.Lock())
        async with lock:
            yield

    def _came(self, updates: Sequence[Update]) -> None:
        """Whoever comes in a crowd sees at once that the bot is at it."""
        self._more = len(updates) == BATCH
        if self.intake.busy + len(updates) >= CROWD:
            # Those who came before the crowd now wait as long as it does.
            came = [update.message for update in updates if update.message is not None]
            for message in [*self._untold.values(), *came]:
                if (message.text or "").startswith("/"):
                    self._noticing.add(task := asyncio.create_task(self.outbox.calls.typing(self._place(message))))
                    task.add_done_callback(self._noticed)
            self._untold.clear()
        self._calm_down()

    def _noticed(self, task: asyncio.Task[None]) -> None:
        self._noticing.discard(task)
        self._calm_down()

    def _calm_down(self) -> None:
        """Let the work begin once nobody is to be told first, and not before."""
        if self._noticing or self._more:
            self._calm.clear()
        else:
            self._calm.set()

    async def _handle(self, update: Update, left: Note | None) -> None:
        if self._calm.is_set() and update.message is not None:
            self._untold[update.update_id] = update.message
        try:
            await self._in_turn(update, left)
        finally:
            self._untold.pop(update.update_id, None)

    async def _in_turn(self, update: Update, left: Note | None) -> None:
        with suppress(TimeoutError):
            # First everybody is told that the bot is at it; the work would only slow that down.
            await asyncio.wait_for(self._calm.wait(), NOTICING)
        who = update.effective_user or update.effective_chat
        speak(closest([update.effective_user.language_code if update.effective_user else None]))
        async with self._turn(who.id if who else 0):
            if left is not None:
                self._left[update.update_id] = left
            try:
                await self.application.process_update(update)
            finally:
                self._left.pop(update.update_id, None)
            if update.update_id in self._interrupted:
                self._interrupted.discard(update.update_id)
                raise Interrupted
            self._replies.pop(update.update_id, None)

    async def _on_error(self, update: object, context: Context) -> None:
        number = update.update_id if isinstance(update, Update) else 0
        if isinstance(context.error, NetworkError) and not isinstance(context.error, BadRequest):
            self._interrupted.add(number)
        else:
            log.error("update %s was not handled", number, exc_info=context.error)

    async def _once(self, update: Update, caller: Caller, run: Callable[[], Awaitable[Reply]]) -> Reply:
        """What an update's command replied. If only the reply failed to get through, the command is not run again."""
        number = update.update_id
        if number not in self._replies:
            begun = await self._begun(update, caller)
            self._replies[number] = _resumed(begun) if begun else await run()
            # Those of updates that were given up would stay.
            while len(self._replies) > _REPLIES_MOST:
                del self._replies[next(iter(self._replies))]
        return self._replies[number]

    async def _begun(self, update: Update, caller: Caller) -> Job | None:
        """The job that an earlier process made of this update, before it died."""
        left = self._left.get(update.update_id)
        # Who was forgotten meanwhile must not be written down anew.
        if left is None or not await self._records.knows(caller.platform, caller.platform_id):
            return None
        user = await self._records.user(caller.platform, caller.platform_id, caller.name)
        for job in await self._records.jobs_of(user.id):
            if job.frontend == NAME and job.room == caller.room and job.created >= left.created:
                asker = await self._records.note(ASKER, job.id)
                if asker is None or asker.body["update"] == update.update_id:
                    return job
        return None

    async def _on_message(self, update: Update, context: Context) -> None:
        message = update.message
        assert message is not None
        if message.migrate_to_chat_id is not None:
            await self.moves.add(message.chat.id, message.migrate_to_chat_id)
            return
        user = message.from_user
        if user is not None and user.is_bot and message.sender_chat is not None:
            await self._nobody_said(update, message)
            return
        # A picture that somebody sends through the inline mode was drawn here.
        if user is None or user.is_bot or message.via_bot is not None:
            return
        self.outbox.know(user)
        place = self._place(message)
        line = self._line(_words(message), place)
        with suppress(Unreachable):
            await self._said(update, message, user, place, line)

    async def _said(self, update: Update, message: Got, user: User, place: Place, line: str | None) -> None:
        number = message.message_id
        if place.private and is_file(message):
            await self.albums.take(message, line if line and takes_photos(line) else None)
            if line is None or takes_photos(line):
                return
        if line is None:
            picture = await self._varied(message, place)
            if picture is not None and message.text:
                caller, prompt = _caller(user, place, update), message.text
                reply = await self._once(update, caller, lambda: self.commands.vary(caller, picture, prompt))
                await self._answer(update, caller, place, reply, number)
            elif place.private and message.text:
                await self.outbox.say(place, wording.no_command(), reply_to=number)
            return
        if line.split()[0] == "/start":
            await self._start(place, user, line.partition(" ")[2].strip())
        elif takes_photos(line) and place.private:
            await self.albums.order(message, line)
        elif takes_photos(line):
            command = line.split()[0].removeprefix("/").lower()
            link = (say(wording.OPEN), self._deep_link(command))
            await self.outbox.say(place, wording.in_private(command), reply_to=number, link=link)
        else:
            caller = _caller(user, place, update)
            reply = await self._once(update, caller, lambda: self.commands.line(caller, line))
            await self._answer(update, caller, place, reply, number)

    async def _nobody_said(self, update: Update, message: Got) -> None:
        """Somebody writes as the group or as a channel, and Telegram does not tell who."""
        place = self._place(message)
        if self._line(message.text or message.caption or "", place) is not None:
            with suppress(Unreachable):
                await self.outbox.say(
                    place,
                    wording.nobody(),
                    reply_to=message.message_id,
                    dedupe=f"update:{update.update_id}",
                    instead=wording.unsure(),
                )

    async def _varied(self, message: Got, place: Place) -> str | None:
        """The picture that a text is a new prompt for. In a group, where people also talk, it must name the avatar."""
        if message.reply_to_message is None or not message.text:
            return None
        picture = await self.outbox.picture(place, message.reply_to_message.message_id)
        if picture is None or place.private or await self.commands.named(picture, message.text):
            return picture
        return None

    async def _on_edit(self, update: Update, context: Context) -> None:
        """A caption that somebody adds afterwards counts as if it had come with the photo."""
        message = update.edited_message
        if message is None or message.from_user is None or message.from_user.is_bot:
            return
        place = self._place(message)
        line = self._line(message.caption or "", place)
        if place.private and line and takes_photos(line) and is_file(message):
            with suppress(Unreachable):
                await self.albums.take(message, line)

    async def _start(self, place: Place, user: User, payload: str) -> None:
        if payload in COMMANDS and not COMMANDS[payload].operators:
            await self.outbox.say(place, wording.how_to(payload))
        else:
            await self.outbox.say(place, wording.welcome(user.first_name))
        await self._catch_up(place.chat)

    async def _on_membership(self, update: Update, context: Context) -> None:
        """Somebody who had blocked the bot is back, or the bot is back in a group: what they missed follows."""
        changed = update.my_chat_member
        if changed is not None and changed.new_chat_member.status in (ChatMember.MEMBER, ChatMember.ADMINISTRATOR):
            await self._catch_up(self.moves.first(changed.chat.id))

    async def _catch_up(self, chat: int) -> None:
        for room, job_id in await self.outbox.missed(chat):
            job = await self._records.job(job_id)
            ref = None
            if job is not None and job.over:
                try:
                    ref = await self.outbox.post(room, await self.commands.answer(job), dedupe=job_id)
                except (TelegramError, TimeoutError):
                    continue
            if ref != NOWHERE:
                await self.outbox.caught_up(job_id)

    # Buttons

    async def _on_press(self, update: Update, context: Context) -> None:
        query = update.callback_query
        assert query is not None
        if query.message is None or query.data is None:
            await _tell(query)
            return
        self.outbox.know(query.from_user)
        place = self._place(query.message)
        caller, action = _caller(query.from_user, place, update), query.data
        verb, _, subject = action.partition(":")
        try:
            if verb.startswith("t."):
                await self._pressed(update, query, caller, place, verb, subject)
                return
            reply = await self._once(update, caller, lambda: self.commands.press(caller, action))
            await self._pressed_through(update, query, caller, place, reply)
        except Unreachable:
            await _tell(query)

    async def _pressed_through(
        self, update: Update, query: CallbackQuery, caller: Caller, place: Place, reply: Reply
    ) -> None:
        assert query.message is not None
        number = query.message.message_id
        said = reply.message.text
        plain = not (reply.message.buttons or reply.message.files)
        beside = reply.private and plain and units(said) <= ALERT_MOST and not place.private
        await _tell(query, said if beside else None, alert=beside)
        if reply.spent:
            await self.outbox.edits.spend(place, number)
        if not beside:
            await self._answer(update, caller, place, reply, number)

    async def _pressed(
        self, update: Update, query: CallbackQuery, caller: Caller, place: Place, verb: str, subject: str
    ) -> None:
        """The buttons that only Telegram has."""
        assert query.message is not None
        number = query.message.message_id
        match verb:
            case "t.done":
                said = await self.albums.done(place.chat, subject)
                await _tell(query, said, alert=said is not None)
            case "t.drop":
                dropped = await self.albums.drop(place.chat, subject)
                await _tell(query, None if dropped else say(wording.TAKEN))
                await self.outbox.edits.spend(place, number)
                if dropped:
                    await self.outbox.say(place, wording.dropped())
            case "t.agree":
                reply: Reply | str
                if (begun := await self._begun(update, caller)) is not None:
                    await self.albums.began(place.chat, subject)
                    reply = _resumed(begun)
                else:
                    reply = await self.albums.agree(caller, place.chat, subject)
                if isinstance(reply, str):
                    await _tell(query, reply, alert=True)
                    return
                await _tell(query)
                if reply.job_id is not None:
                    await self.outbox.edits.spend(place, number)
                await self._answer(update, caller, place, reply, number)
            case "t.files" | "t.pics":
                job = await self._job_here(caller, subject)
                if job is None:
                    await _tell(query, replies.refusal(UserError("not_yours")).text, alert=True)
                    return
                await _tell(query)
                dedupe = f"update:{update.update_id}"
                if verb == "t.pics":
                    await self.outbox.album(place, (await self.commands.answer(job)).pictures, number, dedupe)
                else:
                    pictures = [Shown(one.key, "", one.seed) for one in await self._records.pictures(job.id)]
                    await self.outbox.album(place, pictures, number, dedupe, documents=True)
            case _:
                await _tell(query, replies.refusal(UserError("unknown_action")).text, alert=True)

    async def _job_here(self, caller: Caller, job_id: str) -> Job | None:
        """A job that is over and was asked for in this room, or by this person, whom it may reach in private."""
        job = await self._records.job(job_id)
        if job is None or not job.over or job.frontend != NAME:
            return None
        own = caller.direct and await self.commands.asked_for(caller, job_id)
        return job if own or job.room == caller.room else None

    # Answers

    async def _of_album(self, caller: Caller, place: Place, reply: Reply) -> None:
        await self._answer(None, caller, place, reply, None)

    async def _answer(
        self, update: Update | None, caller: Caller, place: Place, reply: Reply, number: int | None
    ) -> None:
        """Show a reply where it belongs. `number`: the message that asked."""
        reply_to = None if place.private else number
        if reply.job_id is not None:
            await self.outbox.asked(reply.job_id, int(caller.platform_id), number, update.update_id if update else 0)
            ref = await self.outbox.say(
                place, reply.message, reply_to=reply_to, dedupe=f"first:{reply.job_id}", owner=_account(caller)
            )
            await self.delivery.follow(reply.job_id, ref, reply.message)
            return
        # Who has just been forgotten leaves no note behind.
        known = update is not None and await self._records.knows(NAME, caller.platform_id)
        dedupe = f"update:{update.update_id}" if update and known else None
        if reply.private and not place.private:
            try:
                await self.outbox.say(
                    Place(int(caller.platform_id)), reply.message, dedupe=dedupe, instead=wording.unsure()
                )
            except Unreachable:
                link = (say(wording.OPEN), self._deep_link("start"))
                await self.outbox.say(place, wording.start_first(), reply_to=number, link=link)
            return
        try:
            await self.outbox.say(
                place,
                reply.message,
                reply_to=reply_to,
                dedupe=dedupe,
                owner=_account(caller),
                instead=wording.unsure(),
            )
        except Unreachable:
            if place.private:
                raise
            alone = Place(int(caller.platform_id))
            await self.outbox.say(alone, reply.message, dedupe=dedupe, instead=wording.unsure())

    # Inline mode

    async def _on_inline(self, update: Update, context: Context) -> None:
        """`@bot mia7`: pictures that the person had drawn, of avatars they may still use anywhere."""
        query = update.inline_query
        assert query is not None
        user = await self._records.user(NAME, str(query.from_user.id), query.from_user.full_name)
        usable = {avatar.id: avatar.token for avatar in await self._records.avatars_usable(user.id, "")}
        words = query.query.lower().split()
        found: list[InlineQueryResultCachedPhoto] = []
        for job in (await self._records.jobs_of(user.id))[:_INLINE_JOBS]:
            if not isinstance(job.payload, Imagine) or job.state != State.SUCCEEDED or job.frontend != NAME:
                continue
            drawn = set(job.payload.avatar_ids)
            named = not words or any(usable[one].startswith(word) for one in drawn & usable.keys() for word in words)
            if not drawn or not drawn <= usable.keys() or not named or not await self._records.pictures(job.id):
                continue
            note = await self._records.note(SENT, f"{job.room}|{job.id}")
            for position, file in enumerate(note.body.get("files", ()) if note else ()):
                found.append(InlineQueryResultCachedPhoto(f"{job.id}-{position}", file))
            if len(found) >= INLINE_MOST:
                break
        with suppress(TelegramError):
            await query.answer(found[:INLINE_MOST], cache_time=5, is_personal=True)

    # Reading

    def _place(self, message: Any) -> Place:
        chat: Chat = message.chat
        thread = getattr(message, "message_thread_id", None) if getattr(message, "is_topic_message", None) else None
        return Place(self.moves.first(chat.id), thread)

    def _line(self, text: str, place: Place) -> str | None:
        """The command, without the bot's name behind it, or None if there is none for this bot."""
        if not text.startswith("/"):
            return None
        text = re.sub(r"(?<=\s)[—–](?=[a-z])", "--", text)  # phones turn two hyphens into a dash
        word, space, rest = text.partition(" ")
        head, newline, more = word.partition("\n")
        if newline:
            word, space, rest = head, " ", f"{more}{space}{rest}"
        name, _, addressee = word.partition("@")
        if addressee and addressee.lower() != self.bot.username.lower():
            return None
        known = name.removeprefix("/").lower() in COMMANDS or name == "/start"
        # Another bot in the group may know what this one does not.
        return f"{name}{space}{rest}" if known or addressee or place.private else None

    def _deep_link(self, payload: str) -> str:
        return f"https://t.me/{self.bot.username}?start={payload}"


def _caller(user: User, place: Place, update: Update) -> Caller:
    request = f"{NAME}:{update.update_id}"
    return Caller(NAME, str(user.id), user.full_name, place.room, str(place.chat), place.private, request)


def _words(message: Got) -> str:
    """What a message says. A command that takes a person gets the ids of those it mentions: names may be several's."""
    text = message.text or message.caption or ""
    head = text.split(maxsplit=1)[0] if text.startswith("/") else ""
    command = COMMANDS.get(head.removeprefix("/").partition("@")[0].lower())
    if command is None or all(option.name != "person" for option in command.options):
        return text
    data = text.encode("utf-16-le")  # which Telegram counts in
    for entity in sorted(message.entities or message.caption_entities, key=lambda one: one.offset, reverse=True):
        if entity.type == MessageEntity.TEXT_MENTION and entity.user is not None:
            start, end = 2 * entity.offset, 2 * (entity.offset + entity.length)
            data = data[:start] + str(entity.user.id).encode("utf-16-le") + data[end:]
    return data.decode("utf-16-le")


def _account(caller: Caller) -> str:
    return f"{caller.platform}:{caller.platform_id}"


def _resumed(job: Job) -> Reply:
    message: Message = replies.under_way(job, None, "started", {})
    return Reply(message, job_id=job.id, spent=True)


async def _tell(query: CallbackQuery, text: str | None = None, alert: bool = False) -> None:
    # Without an answer the button spins on; an answer that comes too late is refused, and does not matter.
    with suppress(TelegramError):
        await query.answer(text, show_alert=alert)


async def serve(storage: Storage, settings: BotSettings, ready: Callable[[str], None]) -> None:
    """Serve Telegram until cancelled. `ready` gets the bot's address once it listens. Raises TelegramFailure."""
    if settings.telegram_token is None:
        raise TelegramFailure("set AVATAR_TELEGRAM_TOKEN to the token that @BotFather gave you")
    token, operators = settings.telegram_token.get_secret_value(), settings.operator_accounts
    telegram = Telegram(storage, token, settings.telegram_api_url, operators=operators)
    async with telegram.running():
        ready(f"https://t.me/{telegram.bot.username}")
        await telegram.run(settings)
