"""Messages that belong to an interaction. Only its person sees them; the bot edits them while its token is fresh."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import discord

from bot.frontends.discord.rooms import NAME
from storage.records import Records

TOKEN_LIFE = 15 * 60.0
"""Seconds for which Discord accepts an interaction's token."""
_FRESH = TOKEN_LIFE - 60.0
"""Seconds for which the bot uses it: a minute less, for retries."""
_MESSAGES = "discord/doors"
"""`<job>`: the fields of `InteractionMessage`."""


@dataclass(frozen=True, slots=True)
class InteractionMessage:
    """A message in an interaction.

    token: the interaction's. message: the id. until: when the token is too old, in seconds since 1970. limit: the most
    bytes of a file there.
    """

    token: str
    message: int
    until: float
    limit: int


class InteractionMessages:
    """The progress messages of jobs that belong to an interaction, written down by job. `clock`: seconds since 1970."""

    def __init__(self, client: discord.Client, records: Records, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._records = records
        self._clock = clock
        self._known: dict[str, InteractionMessage] = {}

    def new(self, token: str, message: int, limit: int) -> InteractionMessage:
        """A message of an interaction that has just come."""
        return InteractionMessage(token, message, self._clock() + _FRESH, limit)

    def hook(self, token: str) -> discord.Webhook:
        """The webhook that an interaction's token gives the bot."""
        hook = discord.Webhook.partial(self._client.application_id or 0, token, client=self._client)
        hook.type = discord.WebhookType.application  # or it may send nothing that only one person sees
        return hook

    async def add(self, job_id: str, message: InteractionMessage, person: str) -> None:
        """This message follows the job from now on."""
        now = self._clock()
        self._known = {job: known for job, known in self._known.items() if known.until > now}
        self._known[job_id] = message
        await self._records.notes.put(_MESSAGES, job_id, asdict(message), f"{NAME}:{person}")

    async def usable(self, job_id: str) -> InteractionMessage | None:
        """The message of a job, if there is one whose token is fresh."""
        known = self._known.get(job_id)
        if known is None and (note := await self._records.notes.get(_MESSAGES, job_id)) is not None:
            known = self._known[job_id] = InteractionMessage(**note.body)
        if known is not None and known.until <= self._clock():
            await self.forget(job_id)
            return None
        return known

    async def forget(self, job_id: str) -> None:
        """The message is not edited any more."""
        self._known.pop(job_id, None)
        await self._records.notes.delete(_MESSAGES, job_id)

    async def tidy(self) -> None:
        """Forget the messages whose tokens are too old."""
        await self._records.notes.prune(_MESSAGES, datetime.now(UTC) - timedelta(seconds=TOKEN_LIFE))
