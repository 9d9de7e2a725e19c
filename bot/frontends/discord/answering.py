"""Answers interactions: acknowledge in time, run the command, show the reply, and follow its job."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import discord

from bot.delivery import Delivery
from bot.frontends.crowd import CROWD, Crowd
from bot.frontends.discord.interactions import TOKEN_LIFE
from bot.frontends.discord.outbox import TROUBLE, DiscordOutbox, insist, reason, refused
from bot.frontends.discord.rendering import Rendered, complete, fitted, notice, pictures, render
from bot.frontends.discord.rooms import NAME, ChannelKind, Room
from bot.messages import Caller, Message, Reply
from bot.replies import discord as wording
from storage.blobs import Blobs
from storage.jobs import SPECS
from storage.records import Job, Records

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]
Callback = discord.InteractionCallbackResponse[Any] | None

OPEN = "discord/open"
"""`<interaction>`: {"token", "room", "message", "limit"}: acknowledged, and not answered yet."""
_TRY_SECONDS = (0.6, 1.2, 1.2)
"""Time limits of the tries of a first answer, in seconds: Discord waits for three in all, and the library's own retries
pause for a second or longer."""
_REMEMBERED = 10_000
"""How many interactions are remembered to recognise repeated ones."""
_ACKNOWLEDGED = 40060
"""Discord's error code for an interaction that has an answer already."""


class Answering:
    """Answers the interactions of one client."""

    def __init__(self, records: Records, blobs: Blobs, outbox: DiscordOutbox, delivery: Delivery) -> None:
        self._records = records
        self._blobs = blobs
        self._outbox = outbox
        self._delivery = delivery
        self._crowd = Crowd(blocking=CROWD)
        self._received: deque[int] = deque(maxlen=_REMEMBERED)

    # The first answer, for which Discord waits three seconds

    async def acknowledge(self, interaction: Interaction, **how: bool) -> bool:
        """Tell Discord that an answer will follow. False if there is nothing to do: too late, or repeated."""
        return await self.respond(interaction, lambda: interaction.response.defer(**how))

    async def respond(self, interaction: Interaction, answer: Callable[[], Awaitable[Callback]]) -> bool:
        """Give the first answer. False if there is nothing to do: too late, or repeated."""
        if interaction.id in self._received:
            return False
        self._received.append(interaction.id)
        with self._crowd.acknowledging():
            return await _respond_in_time(interaction, answer)

    # The reply

    async def converse(
        self, interaction: Interaction, call: Callable[[Caller], Awaitable[Reply]], pressed: bool = False
    ) -> None:
        """Acknowledge at once, run the command, and show its reply. `pressed`: by a button, whose message stays
        unchanged."""
        room = Room.of(interaction)
        thinking = {} if pressed else {"thinking": True, "ephemeral": room.kind != ChannelKind.DM}
        if not await self.acknowledge(interaction, **thinking):
            return
        await self._crowd.all_acknowledged()
        with self._outbox.conversing(str(interaction.user.id)):
            await self._note_open(interaction, room, pressed)
            reply = await call(caller_of(interaction))
            if pressed and reply.spent:
                await quietly(interaction.edit_original_response(view=None))
            if pressed and reply.replaces:
                await self._or_privately(
                    interaction,
                    reply.message,
                    interaction.edit_original_response(**render(reply.message).to_edit()),
                )
            elif reply.job_id is not None and (job := await self._records.jobs.get(reply.job_id)):
                await self._follow(interaction, room, reply.message, job, pressed)
            elif reply.private or room.kind == ChannelKind.DM:
                await self.say(interaction, reply.message, pressed)
            else:
                await self._announce(interaction, reply.message, pressed)
            await self._records.notes.delete(OPEN, str(interaction.id))
            await self._catch_up(interaction)

    async def _note_open(self, interaction: Interaction, room: Room, pressed: bool) -> None:
        """Store what the next process needs to answer if this one dies first."""
        message = None if pressed else interaction.extras.get("message")
        body = {"token": interaction.token, "room": str(room), "limit": interaction.filesize_limit, "message": message}
        await self._records.notes.add(OPEN, str(interaction.id), body, f"{NAME}:{interaction.user.id}")

    async def say(self, interaction: Interaction, message: Message, pressed: bool) -> None:
        """Show a message to the person only: in the private chat, or ephemeral elsewhere."""
        await self._or_privately(interaction, message, self._show(interaction, message, pressed))

    async def _announce(self, interaction: Interaction, message: Message, pressed: bool) -> None:
        """Show a message to everybody in the room."""
        if not pressed:
            await quietly(self._show(interaction, wording.posted(), pressed))
        room = Room.of(interaction)
        if room.kind == ChannelKind.SERVER and await quietly(self._outbox.announce(room, message)):
            return
        files = await pictures(self._blobs, message.pictures, interaction.filesize_limit)
        sending = interaction.followup.send(**render(message, files=files, public=True).to_send(), wait=True)
        await self._or_privately(interaction, message, sending)

    async def _or_privately(self, interaction: Interaction, message: Message, sending: Awaitable[object]) -> None:
        """Await `sending`; if the interaction has expired, send the message to the private chat."""
        try:
            await sending
        except TROUBLE as error:
            log.warning("a reply was not shown: %s", reason(error))
            if refused(error):
                await quietly(self._outbox.tell(Room.of(interaction), message, str(interaction.user.id)))

    async def _show(self, interaction: Interaction, message: Message, pressed: bool) -> int:
        """Show the person a message through the interaction. Return its id."""
        kind, limit = Room.of(interaction).kind, interaction.filesize_limit

        async def send(rendered: Rendered) -> int:
            if pressed:
                hidden = kind != ChannelKind.DM
                return (await interaction.followup.send(**rendered.to_send(), ephemeral=hidden, wait=True)).id
            return (await insist(lambda: interaction.edit_original_response(**rendered.to_edit()), rendered)).id

        def compose(most: int) -> Awaitable[Rendered]:
            return complete(self._blobs, message, most, postable=kind != ChannelKind.DM)

        return await fitted(compose, send, limit)

    # Jobs

    async def _follow(self, interaction: Interaction, room: Room, message: Message, job: Job, pressed: bool) -> None:
        """Show the job's progress message, and let the delivery loop keep it up to date."""
        if room.kind != ChannelKind.DM and SPECS[job.kind].time_limit > TOKEN_LIFE:
            ref = await self._follow_openly(interaction, room, message, job, pressed)
        else:
            sent = await quietly(self._show(interaction, message, pressed))
            if sent is None and not pressed:
                # The acknowledgement exists, and the answer can still be edited into it.
                sent = interaction.extras.get("message")
            ref = f"{room}/{sent}" if sent and room.kind == ChannelKind.DM else ""
            ref = ref or await self._follow_in(interaction, room, job, sent)
        await self._delivery.follow(job.id, ref, message)

    async def _follow_openly(
        self, interaction: Interaction, room: Room, message: Message, job: Job, pressed: bool
    ) -> str:
        """Follow a job that may outlast the interaction's token in an ordinary message."""
        try:
            ref = await self._outbox.post(str(room), message, dedupe=f"progress:{job.id}")
        except TROUBLE as error:
            log.warning("the message of job %s comes later: %s", job.id, reason(error))
            return await self._follow_in(interaction, room, job, None)
        pointer = None if pressed else wording.followed_below()
        if ref.endswith("/-"):
            pointer = wording.followed_nowhere()
        elif not ref.startswith(f"{room}/"):
            pointer = wording.followed_in_private()
        if pointer is not None:
            await quietly(self._show(interaction, pointer, pressed))
        return ref

    async def _follow_in(self, interaction: Interaction, room: Room, job: Job, message_id: int | None) -> str:
        message = None
        if message_id:
            message = self._outbox.interactions.new(interaction.token, message_id, interaction.filesize_limit)
        return await self._outbox.follow_in(room, job.id, message, str(interaction.user.id))

    async def _catch_up(self, interaction: Interaction) -> None:
        """Offer the person the answers that could not be delivered before."""
        for job_id in await self._outbox.missed(str(interaction.user.id)):
            hidden = Room.of(interaction).kind != ChannelKind.DM
            sending = interaction.followup.send(**notice(job_id, None).to_send(), ephemeral=hidden, wait=True)
            if await quietly(sending):
                await self._outbox.ledger.caught_up(job_id)


async def _respond_in_time(interaction: Interaction, answer: Callable[[], Awaitable[Callback]]) -> bool:
    for number, seconds in enumerate(_TRY_SECONDS, start=1):
        try:
            async with asyncio.timeout(seconds):
                if (callback := await answer()) is not None:
                    interaction.extras["message"] = callback.message_id
            return True
        except TROUBLE as error:
            # An earlier try that seemed to fail may have arrived.
            if isinstance(error, discord.HTTPException) and error.code == _ACKNOWLEDGED:
                return True
            if refused(error) or number == len(_TRY_SECONDS):
                log.warning("an interaction was not answered: %s", reason(error))
                return False
    return True


def caller_of(interaction: Interaction) -> Caller:
    """The caller of an interaction. Discord may deliver an interaction twice, under the same id."""
    user = interaction.user
    room, group = Room.of(interaction), str(interaction.guild_id or "")
    return Caller(
        NAME,
        str(user.id),
        user.global_name or user.name,
        str(room),
        group,
        room.kind == ChannelKind.DM,
        request=request_of(interaction.id),
    )


def request_of(interaction_id: int | str) -> str:
    """The interaction's `Caller.request`."""
    return f"{NAME}:{interaction_id}"


async def quietly(sending: Awaitable[Any]) -> Any:
    """The result of `sending`, or None if Discord refuses or is unreachable; the job continues either way."""
    try:
        return await sending
    except TROUBLE as error:
        log.warning("a reply was not shown: %s", reason(error))
        return None
