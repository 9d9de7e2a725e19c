"""Messages that belong to an interaction. Only its person sees them; the bot edits them while its token is valid."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import discord

from bot.frontends.discord.rooms import NAME
from storage.records import Records

TOKEN_LIFE = 15 * 60.0
"""How long Discord accepts an interaction's token, in seconds."""
_FRESH = TOKEN_LIFE - 60.0
"""How long the bot uses it, in seconds: a minute less, for retries."""
_MESSAGES = "discord/doors"
"""`<job>`: the fields of `InteractionMessage`."""


@dataclass(frozen=True, slots=True)
class InteractionMessage:
    """A message in an interaction.

    token: of the interaction. message: its id. until: when the token expires, in seconds since 1970. limit: most bytes
    of a file there.
    """

    token: str
    message: int
    until: float
    limit: int


class InteractionMessages:
    """The progress messages that belong to an interaction, stored by job. `clock`: seconds since 1970."""

    def __init__(self, client: discord.Client, records: Records, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._records = records
        self._clock = clock
        self._known: dict[str, InteractionMessage] = {}

    def new(self, token: str, message: int, limit: int) -> InteractionMessage:
        """A message of an interaction that has just arrived."""
        return InteractionMessage(token, message, self._clock() + _FRESH, limit)

    def hook(self, token: str) -> discord.Webhook:
        """The webhook that an interaction's token gives the bot."""
        hook = discord.Webhook.partial(self._client.application_id or 0, token, client=self._client)
        hook.type = discord.WebhookType.application  # required for ephemeral messages
        return hook

    async def add(self, job_id: str, message: InteractionMessage, person: str) -> None:
        """Show the job's progress in this message from now on."""
        now = self._clock()
        self._known = {job: known for job, known in self._known.items() if known.until > now}
        self._known[job_id] = message
        await self._records.notes.put(_MESSAGES, job_id, asdict(message), f"{NAME}:{person}")

    async def usable(self, job_id: str) -> InteractionMessage | None:
        """The message of a job if its token is still valid, or None."""
        known = self._known.get(job_id)
        if known is None and (note := await self._records.notes.get(_MESSAGES, job_id)) is not None:
            known = self._known[job_id] = InteractionMessage(**note.body)
        if known is not None and known.until <= self._clock():
            await self.forget(job_id)
            return None
        return known

    async def forget(self, job_id: str) -> None:
        """Stop using the job's message."""
        self._known.pop(job_id, None)
        await self._records.notes.delete(_MESSAGES, job_id)

    async def tidy(self) -> None:
        """Delete the messages whose tokens have expired."""
        await self._records.notes.prune(_MESSAGES, datetime.now(UTC) - timedelta(seconds=TOKEN_LIFE))
