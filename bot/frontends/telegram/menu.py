"""The menu of commands that Telegram shows, for each language and each kind of chat."""

import logging
from collections.abc import Collection

from telegram import (
    Bot,
    BotCommand,
    BotCommandScope,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
    BotCommandScopeDefault,
)
from telegram.error import TelegramError

from bot.frontends.telegram.calls import is_shut
from bot.frontends.telegram.rooms import NAME
from bot.language import ENGLISH, LANGUAGES, say, speaking
from bot.replies import telegram as wording
from bot.table import COMMANDS
from storage.records import Records

log = logging.getLogger(__name__)

_OPERATORS = "telegram/operators"
"""`<chat id>`: {}, where the commands of operators are registered."""


class Menu:
    """Registers the table of commands. operators: accounts as platform:id, of any platform."""

    def __init__(self, bot: Bot, records: Records, operators: Collection[str]) -> None:
        self._bot = bot
        self._records = records
        accounts = [account.partition(":") for account in sorted(operators)]
        self._operator_chats = [int(number) for name, _, number in accounts if name == NAME and number.isdecimal()]

    async def register(self) -> None:
        """Register the commands with Telegram. A refusal is logged; the bot works without the menu."""
        for chat in self._operator_chats:
            await self._records.notes.put(_OPERATORS, str(chat), {}, f"{NAME}:{chat}")
        for language in LANGUAGES:
            with speaking(language):
                await self._register_in(_code(language))
        await self._unregister_former_operators()

    async def _register_in(self, language: str | None) -> None:
        for_all = [BotCommand(one.name, say(one.description)) for one in COMMANDS.values() if not one.operators]
        for_operators = [BotCommand(one.name, say(one.description)) for one in COMMANDS.values() if one.operators]
        start = BotCommand("start", say(wording.START))
        scopes: list[tuple[BotCommandScope, list[BotCommand]]] = [
            (BotCommandScopeDefault(), for_all),
            (BotCommandScopeAllPrivateChats(), [*for_all, start]),
            (BotCommandScopeAllGroupChats(), for_all),
        ]
        for chat in self._operator_chats:
            scopes.append((BotCommandScopeChat(chat), [*for_all, *for_operators, start]))
        for scope, commands in scopes:
            try:
                await self._bot.set_my_commands(commands, scope=scope, language_code=language)
            except TelegramError as error:
                log.warning("the commands were not registered: %s", type(error).__name__)

    async def _unregister_former_operators(self) -> None:
        for note in await self._records.notes.find(_OPERATORS):
            if int(note.key) in self._operator_chats:
                continue
            try:
                for language in LANGUAGES:
                    await self._bot.delete_my_commands(BotCommandScopeChat(int(note.key)), _code(language))
            except TelegramError as error:
                log.warning("the commands of a former operator stay: %s", type(error).__name__)
                if not is_shut(error):
                    continue
            await self._records.notes.delete(_OPERATORS, note.key)


def _code(language: str) -> str | None:
    """The language code to register for. None: the English menu for everybody else."""
    return None if language == ENGLISH else language
