"""Incoming messages: command lines, photos, prompts in reply to a picture; and changes of the bot's membership."""

from contextlib import suppress

from telegram import ChatMember, Message, Update, User
from telegram.error import TelegramError

from bot.commands.commands import Commands
from bot.frontends.telegram.albums import Albums, is_file, takes_photos
from bot.frontends.telegram.answering import Answering
from bot.frontends.telegram.calls import Unreachable
from bot.frontends.telegram.edits import NOWHERE
from bot.frontends.telegram.outbox import TelegramOutbox
from bot.frontends.telegram.reading import Context, Reader, text_of
from bot.frontends.telegram.rooms import ChatMigrations, Room
from bot.language import say
from bot.replies import telegram as wording
from bot.table import COMMANDS
from storage.records import Records


class Messages:
    """Handles new and edited messages, and changes of the bot's membership."""

    def __init__(
        self,
        records: Records,
        commands: Commands,
        albums: Albums,
        outbox: TelegramOutbox,
        answering: Answering,
        reader: Reader,
        migrations: ChatMigrations,
    ) -> None:
        self._records = records
        self._commands = commands
        self._albums = albums
        self._outbox = outbox
        self._answering = answering
        self._reader = reader
        self._migrations = migrations

    async def on_message(self, update: Update, context: Context) -> None:
        """Handle a new message."""
        message = update.message
        assert message is not None
        if message.migrate_to_chat_id is not None:
            await self._migrations.add(message.chat.id, message.migrate_to_chat_id)
            return
        user = message.from_user
        if user is not None and user.is_bot and message.sender_chat is not None:
            await self._refuse_anonymous(update, message)
            return
        # Pictures sent through the inline mode come from this bot.
        if user is None or user.is_bot or message.via_bot is not None:
            return
        self._outbox.remember_name(user)
        with suppress(Unreachable):
            await self._handle(update, message, user)

    async def _handle(self, update: Update, message: Message, user: User) -> None:
        room = self._reader.room(message)
        line = self._reader.command_line(text_of(message), room)
        if room.private and is_file(message):
            await self._albums.take(message, line if line and takes_photos(line) else None)
            if line is None or takes_photos(line):
                return
        if line is None:
            await self._handle_text(update, message, user, room)
        elif line.split()[0] == "/start":
            await self._start(room, user, line.partition(" ")[2].strip())
        elif takes_photos(line) and room.private:
            await self._albums.order(message, line)
        elif takes_photos(line):
            command = line.split()[0].removeprefix("/").lower()
            link = (say(wording.OPEN), self._reader.deep_link(command))
            await self._outbox.say(room, wording.in_private(command), reply_to=message.message_id, link=link)
        else:
            caller = self._reader.caller(user, room, update)
            reply = await self._answering.once(update.update_id, lambda: self._commands.line(caller, line))
            await self._answering.show(caller, room, reply, update_id=update.update_id, message_id=message.message_id)

    async def _handle_text(self, update: Update, message: Message, user: User, room: Room) -> None:
        """Handle a text without a command: a new prompt for a picture, or a text that the bot does not understand."""
        picture, prompt = await self._picture_to_vary(message, room), message.text
        if picture is not None and prompt:
            caller = self._reader.caller(user, room, update)
            reply = await self._answering.once(update.update_id, lambda: self._commands.vary(caller, picture, prompt))
            await self._answering.show(caller, room, reply, update_id=update.update_id, message_id=message.message_id)
        elif room.private and message.text:
            await self._outbox.say(room, wording.no_command(), reply_to=message.message_id)

    async def _picture_to_vary(self, message: Message, room: Room) -> str | None:
        """The picture that a text replies to. In a group, where people also talk, the text must name the avatar."""
        if message.reply_to_message is None or not message.text:
            return None
        picture = await self._outbox.picture(room, message.reply_to_message.message_id)
        if picture is None or room.private or await self._commands.named(picture, message.text):
            return picture
        return None

    async def _refuse_anonymous(self, update: Update, message: Message) -> None:
        """Handle a message that was sent as the group or a channel, whose author Telegram hides."""
        room = self._reader.room(message)
        if self._reader.command_line(message.text or message.caption or "", room) is not None:
            with suppress(Unreachable):
                await self._outbox.say(
                    room,
                    wording.nobody(),
                    reply_to=message.message_id,
                    dedupe=f"update:{update.update_id}",
                    if_unsure=wording.unsure(),
                )

    async def on_edit(self, update: Update, context: Context) -> None:
        """Handle a caption that was added later like one that came with the photo."""
        message = update.edited_message
        if message is None or message.from_user is None or message.from_user.is_bot:
            return
        room = self._reader.room(message)
        line = self._reader.command_line(message.caption or "", room)
        if room.private and line and takes_photos(line) and is_file(message):
            with suppress(Unreachable):
                await self._albums.take(message, line)

    async def _start(self, room: Room, user: User, payload: str) -> None:
        if payload in COMMANDS and not COMMANDS[payload].operators:
            await self._outbox.say(room, wording.how_to(payload))
        else:
            await self._outbox.say(room, wording.welcome(user.first_name))
        await self._catch_up(room.chat)

    async def on_membership(self, update: Update, context: Context) -> None:
        """Send the undelivered answers after the bot was unblocked or added to a group again."""
        changed = update.my_chat_member
        if changed is not None and changed.new_chat_member.status in (ChatMember.MEMBER, ChatMember.ADMINISTRATOR):
            await self._catch_up(self._migrations.first_id(changed.chat.id))

    async def _catch_up(self, chat: int) -> None:
        for room, job_id in await self._outbox.missed(chat):
            job = await self._records.jobs.get(job_id)
            ref = None
            if job is not None and job.over:
                try:
                    ref = await self._outbox.post(room, await self._commands.answer(job), dedupe=job_id)
                except (TelegramError, TimeoutError):
                    continue
            if ref != NOWHERE:
                await self._outbox.ledger.caught_up(job_id)
