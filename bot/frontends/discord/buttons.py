"""The buttons under a job's answer that exist on Discord only."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from bot.commands.commands import COMMANDS, Commands
from bot.frontends.discord.answering import Answering, Interaction, caller_of, quietly
from bot.frontends.discord.form import form
from bot.frontends.discord.rendering import pictures, render
from bot.frontends.discord.rooms import NAME, ChannelKind, Room
from bot.frontends.ledger import Entry, Ledger
from bot.messages import Message, Reply
from bot.replies import discord as wording
from bot.replies import refusals
from storage.blobs import Blobs
from storage.errors import UserError
from storage.jobs import Imagine
from storage.records import Records

_POSTING_MOST = timedelta(minutes=1)
"""Age from which on an unfinished post is taken to be that of a dead process."""


class Buttons:
    """Handles presses. The subject of a press is a job, or one of its pictures as "2:job", counted from 1."""

    def __init__(
        self, records: Records, blobs: Blobs, commands: Commands, answering: Answering, ledger: Ledger
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._commands = commands
        self._answering = answering
        self._ledger = ledger
        self._own: Mapping[str, Callable[[Interaction, str], Awaitable[None]]] = {
            "show": self._show,
            "pick": self._pick,
            "edit": self._edit_prompt,
            "post": self._post_here,
        }

    async def pressed(self, interaction: Interaction, verb: str, subject: str) -> None:
        """Handle a press of a button of any age. A verb that is not listed here runs the action `subject`."""
        if verb in self._own:
            await self._own[verb](interaction, subject)
        else:
            await self._answering.converse(
                interaction, lambda caller: self._commands.press(caller, subject), pressed=True
            )

    async def _show(self, interaction: Interaction, job_id: str) -> None:
        """[Show me]: show the answer to its person only."""
        if await self._answering.acknowledge(interaction, thinking=True, ephemeral=True):
            await self._answering.say(interaction, await self._answer(interaction, job_id), pressed=False)

    async def _pick(self, interaction: Interaction, subject: str) -> None:
        """[U1] to [U4]: show this one picture in full size."""
        number, job_id = subject.split(":", 1)
        hidden = Room.of(interaction).kind != ChannelKind.DM
        if not await self._answering.acknowledge(interaction, thinking=True, ephemeral=hidden):
            return
        message = await self._answer(interaction, job_id)
        if message.job is not None:
            one = message.pictures[int(number) - 1 : int(number)]
            message = replace(message, text=message.prompt or message.text, prompt=None, pictures=one, remark=None)
        await self._answering.say(interaction, message, pressed=False)

    async def _edit_prompt(self, interaction: Interaction, job_id: str) -> None:
        """[Edit prompt]: open the form of /imagine, filled in with the job's options."""
        job = await self._records.jobs.get(job_id)
        message = await self._answer(interaction, job_id)
        if job is None or message.job is None or not isinstance(job.payload, Imagine):
            refusal = Reply(message, private=True)
            await self._answering.converse(interaction, lambda caller: ready(refusal))
            return
        modal = form(COMMANDS["imagine"], await self._commands.options(job), job.id)
        await self._answering.respond(interaction, lambda: interaction.response.send_modal(modal))

    async def _post_here(self, interaction: Interaction, job_id: str) -> None:
        """[Post here]: post the pictures for everybody in the channel, once."""
        if not await self._answering.acknowledge(interaction):
            return
        say = partial(self._answering.say, interaction, pressed=True)
        message = await self._answer(interaction, job_id)
        if message.job is None:
            await say(message)
            return
        room = Room.of(interaction)
        entry = Entry(f"{room}|posted:{job_id}", f"{NAME}:{interaction.user.id}")
        if not await self._open(entry):
            await say(wording.posted_before())
            return
        files = await pictures(self._blobs, message.pictures, interaction.filesize_limit)
        # The person has read the remark, and it is nothing for the others.
        rendered = render(replace(message, remark=None), files=files)
        sent = await quietly(interaction.followup.send(**rendered.to_send(), wait=True))
        if sent:
            await self._ledger.write(entry, {"ref": f"{room}/{sent.id}"})
        else:
            await self._ledger.discard(entry)
            await say(wording.not_posted())

    async def _open(self, entry: Entry) -> bool:
        """Enter the post in the ledger. False if it was sent, or another process is sending it."""
        earlier = await self._ledger.find(entry.key)
        if earlier and earlier.body["ref"] is None and datetime.now(UTC) - earlier.created > _POSTING_MOST:
            await self._ledger.discard(entry)  # that process died before it sent the post
        return await self._ledger.open(entry, {"ref": None}) is None

    async def _answer(self, interaction: Interaction, job_id: str) -> Message:
        """The job's answer if it is the person's own job; otherwise a refusal, which has no `job`."""
        caller = caller_of(interaction)
        job = await self._records.jobs.get(job_id)
        person = await self._records.users.get_or_create(caller.platform, caller.platform_id, caller.name)
        if job is None or not job.over:
            return refusals.refusal(UserError("unknown_job"))
        if job.user_id != person.id:
            return refusals.refusal(UserError("not_yours"))
        message = await self._commands.answer(job)
        exist = [await self._blobs.exists(picture.key) for picture in message.pictures]
        return message if not exist or any(exist) else wording.pictures_gone()


async def ready(reply: Reply) -> Reply:
    """A finished reply as an awaitable, for `Answering.converse`."""
    return reply
