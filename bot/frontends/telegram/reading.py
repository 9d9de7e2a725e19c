"""Reading an update: its room, its sender, and the command in its text."""

from typing import Any

from telegram import Bot, Chat, Message, MessageEntity, Update, User
from telegram.ext import CallbackContext

from bot.frontends.telegram.rooms import NAME, ChatMigrations, Room
from bot.messages import Caller
from bot.table import COMMANDS

Context = CallbackContext[Any, Any, Any, Any]


class Reader:
    """Reads the updates of one bot. The bot must be initialised: its name and id are needed."""

    def __init__(self, bot: Bot, migrations: ChatMigrations) -> None:
        self._bot = bot
        self._migrations = migrations

    def room(self, message: Any) -> Room:
        """The room of a message, which may be the stub that Telegram gives for a message that is too old."""
        chat: Chat = message.chat
        topic = getattr(message, "message_thread_id", None) if getattr(message, "is_topic_message", None) else None
        return Room(self._migrations.first_id(chat.id), topic)

    def caller(self, user: User, room: Room, update: Update) -> Caller:
        """The sender of an update. Telegram delivers an update again under the same id until it is confirmed."""
        return Caller(
            NAME,
            str(user.id),
            user.full_name,
            str(room),
            str(room.chat),
            room.private,
            request=f"{NAME}:{self._bot.id}:{update.update_id}",
        )

    def command_line(self, text: str, room: Room) -> str | None:
        """The command line in a text, without the bot's name; None if there is no command for this bot."""
        if not text.startswith("/"):
            return None
        word, space, rest = text.partition(" ")
        head, newline, below = word.partition("\n")
        if newline:
            word, space, rest = head, " ", f"{below}{space}{rest}"
        name, _, addressee = word.partition("@")
        if addressee and addressee.lower() != self._bot.username.lower():
            return None
        known = name.removeprefix("/").lower() in COMMANDS or name == "/start"
        # In a group, a command that this bot does not know may be another bot's.
        return f"{name}{space}{rest}" if known or addressee or room.private else None

    def deep_link(self, payload: str) -> str:
        """The deep link that opens the private chat and sends /start with this payload."""
        return f"https://t.me/{self._bot.username}?start={payload}"


def text_of(message: Message) -> str:
    """A message's text or caption. For a command that takes a person, mentions become ids, since names may be shared.

    Only mentions of people without a username are entities that name their person.
    """
    text = message.text or message.caption or ""
    head = text.split(maxsplit=1)[0] if text.startswith("/") else ""
    command = COMMANDS.get(head.removeprefix("/").partition("@")[0].lower())
    if command is None or all(option.name != "person" for option in command.options):
        return text
    data = text.encode("utf-16-le")  # the unit in which Telegram counts offsets
    for entity in sorted(message.entities or message.caption_entities, key=lambda one: one.offset, reverse=True):
        if entity.type == MessageEntity.TEXT_MENTION and entity.user is not None:
            start, end = 2 * entity.offset, 2 * (entity.offset + entity.length)
            data = data[:start] + str(entity.user.id).encode("utf-16-le") + data[end:]
    return data.decode("utf-16-le")
