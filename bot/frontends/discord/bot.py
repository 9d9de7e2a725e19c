"""The Discord client: interactions run commands, and the replies are shown."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bot.commands.commands import COMMANDS, Commands, Completion
from bot.delivery import Delivery
from bot.frontends.discord.address import point_at
from bot.frontends.discord.answering import Answering, Interaction, caller_of
from bot.frontends.discord.buttons import Buttons, ready
from bot.frontends.discord.form import FormFile, SubmittedForm, form, submitted_form
from bot.frontends.discord.outbox import TROUBLE, DiscordOutbox
from bot.frontends.discord.photos import Photos
from bot.frontends.discord.registry import Translations, slash_command, values_of, wants_form
from bot.frontends.discord.rendering import Press
from bot.frontends.discord.rooms import NAME
from bot.frontends.discord.unanswered import Unanswered
from bot.health import beating
from bot.language import closest, speak
from bot.messages import Caller, Reply
from bot.replies import discord as wording
from bot.replies import refusals
from bot.settings import BotSettings
from bot.table import Command, Source
from storage.errors import UserError
from storage.open import Storage

log = logging.getLogger(__name__)

_COMPLETING_MOST = 2.0
"""Time limit of a completion, in seconds; Discord waits for three."""


class DiscordBot(discord.Client):
    """One connection to Discord.

    operators: accounts as platform:id. clock: seconds since 1970, for the age of interaction tokens. edit_every and
    sweep_every: seconds, as in `Delivery`. options: passed to the library's client.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        operators: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        edit_every: float = 5.0,
        sweep_every: float = 5.0,
        **options: Any,
    ) -> None:
        # The bot uses no voice, so the library need not warn that packages for it are missing.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            **options,
        )
        records, blobs = storage.records, storage.blobs
        self.commands = Commands(records, blobs, storage.queue, storage.events, operators)
        self.outbox = DiscordOutbox(self, records, blobs, clock)
        self.delivery = Delivery(
            records,
            storage.events,
            self.outbox,
            self.commands.answer,
            edit_every=edit_every,
            sweep_every=sweep_every,
        )
        self._answering = Answering(records, blobs, self.outbox, self.delivery)
        self._buttons = Buttons(records, blobs, self.commands, self._answering, self.outbox.ledger)
        self._unanswered = Unanswered(records, self.outbox, self.delivery)
        self._photos = Photos()
        self.tree = app_commands.CommandTree(self)
        anyone = any(account.startswith(f"{NAME}:") for account in operators)
        for command in [command for command in COMMANDS.values() if anyone or not command.operators]:
            self.tree.add_command(slash_command(command, self.run_command, self.complete))

    async def setup_hook(self) -> None:
        self._photos.open()
        self.add_dynamic_items(Press)
        await self.tree.set_translator(Translations())
        try:
            await self.tree.sync()
        except (*TROUBLE, app_commands.AppCommandError):
            # The commands of the last registration keep working.
            log.exception("the commands were not registered")
        await self.outbox.tidy()
        await self._unanswered.start()

    async def close(self) -> None:
        await self.outbox.close()
        await self._unanswered.close()
        await self._photos.close()
        await super().close()

    @property
    def connected(self) -> bool:
        """Whether the gateway is ready and alive: the library closes it after an unanswered heartbeat."""
        return self.is_ready() and not self.is_closed() and self.ws.open

    # Interactions

    async def run_command(self, interaction: Interaction, command: Command, given: Mapping[str, Any]) -> None:
        """Run a slash command. If it needs several photos and has none, open a form."""
        _set_language(interaction)
        values, attached = values_of(command, given)
        if wants_form(command) and not attached:
            modal = form(command, values)
            await self._answering.respond(interaction, lambda: interaction.response.send_modal(modal))
            return
        files = [FormFile(attachment.url, attachment.size) for attachment in attached]
        await self._answering.converse(
            interaction, lambda caller: self.commands.run(caller, command.name, values, self._photos.uploads(files))
        )

    async def on_interaction(self, interaction: Interaction) -> None:
        """Run the command of a submitted form. The library dispatches everything else."""
        if interaction.type != discord.InteractionType.modal_submit:
            return
        _set_language(interaction)
        try:
            filled = submitted_form(interaction)
        except UserError as error:
            refusal = Reply(refusals.refusal(error), private=True)
            await self._answering.converse(interaction, lambda caller: ready(refusal))
            return
        if filled is not None:
            await self._answering.converse(interaction, lambda caller: self._submit(caller, filled))

    async def _submit(self, caller: Caller, filled: SubmittedForm) -> Reply:
        if filled.job:
            return await self.commands.edit(caller, filled.job, filled.shown, filled.values)
        photos = self._photos.uploads(filled.files)
        return await self.commands.run(caller, filled.command.name, filled.values, photos)

    async def pressed(self, interaction: Interaction, verb: str, subject: str) -> None:
        """Handle a press of a button of any age."""
        _set_language(interaction)
        await self._buttons.pressed(interaction, verb, subject)

    async def complete(self, interaction: Interaction, source: Source) -> Sequence[Completion]:
        """Completions, or none if they take too long."""
        try:
            async with asyncio.timeout(_COMPLETING_MOST):
                return await self.commands.complete(caller_of(interaction), source)
        except TimeoutError:
            return []


def _set_language(interaction: Interaction) -> None:
    """Reply in the language of the person's Discord client."""
    speak(closest([interaction.locale.value]))


async def serve(storage: Storage, settings: BotSettings, ready: Callable[[str], None]) -> None:
    """Run the bot until cancelled. `ready` is called with the bot's name once people can use it.

    Raises PermissionError if Discord does not accept the token, ConnectionError if it turns the bot away later.
    """
    token = settings.discord_token
    point_at(settings.discord_api_url, settings.discord_gateway_url)
    async with DiscordBot(storage, operators=settings.operator_accounts) as bot:
        try:
            await bot.login(token.get_secret_value() if token else "")
            ready(str(bot.user))
            background = [
                asyncio.create_task(bot.delivery.run()),
                asyncio.create_task(beating(settings.health_file, lambda: bot.connected)),
            ]
            try:
                await bot.connect()
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
        except discord.LoginFailure:
            raise PermissionError(wording.wrong_token()) from None
        except (discord.DiscordException, aiohttp.ClientError) as error:
            raise ConnectionError(f"Discord turned the bot away: {error}") from None
