"""Answers the interactions that an earlier process acknowledged but did not answer before it died."""

import asyncio
import itertools
from collections.abc import Sequence

import discord

from bot.delivery import Delivery
from bot.frontends.discord.answering import OPEN, request_of
from bot.frontends.discord.outbox import TROUBLE, DiscordOutbox, insist, refused
from bot.frontends.discord.rendering import render
from bot.frontends.discord.rooms import NAME, ChannelKind, Room
from bot.messages import Message
from bot.replies import discord as wording
from storage.records import Job, Note, Records


class Unanswered:
    """Tells people what happened to their commands."""

    def __init__(self, records: Records, outbox: DiscordOutbox, delivery: Delivery) -> None:
        self._records = records
        self._outbox = outbox
        self._delivery = delivery
        self._answering: asyncio.Task[object] | None = None

    async def start(self) -> None:
        """Answer all interactions that are open now, in a background task."""
        notes = await self._records.notes.find(OPEN)
        self._answering = asyncio.create_task(self._answer_all(notes))

    async def close(self) -> None:
        """Leave the interactions without an answer to the next process."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)

    async def _answer_all(self, notes: Sequence[Note]) -> None:
        await asyncio.gather(*[self._answer(note, (note.owner or "").partition(":")[2]) for note in notes])

    async def _answer(self, note: Note, person: str) -> None:
        # If the job is already over, its answer must be sent after this reply and not be replaced by it.
        with self._outbox.conversing(person):
            for pause in itertools.count(1):
                try:
                    await self._try(note, person)
                except TROUBLE as error:
                    if not refused(error):
                        await asyncio.sleep(pause)
                        continue
                break
            await self._records.notes.delete(OPEN, note.key)

    async def _try(self, note: Note, person: str) -> None:
        job = await self._records.jobs.by_request(NAME, person, request_of(note.key))
        if job is not None and (job.delivered or job.progress_ref):
            return  # its progress message exists, and the delivery loop keeps it up to date
        room = Room.read(note.body["room"])
        message = wording.interrupted() if job is None else wording.went_on()
        try:
            message_id = await self._show(note, room, message)
        except discord.HTTPException as error:
            if not refused(error):
                raise
            if job is None:  # a job's answer needs no such message
                await self._outbox.tell(room, message, person)
            return
        if job is not None:
            await self._delivery.follow(job.id, await self._ref(note, room, job, person, message_id), message)

    async def _show(self, note: Note, room: Room, message: Message) -> int:
        """Edit the message into the acknowledgement, or send it if a button was pressed; its id."""
        hook, message_id = self._outbox.interactions.hook(note.body["token"]), note.body["message"]
        rendered = render(message)
        if message_id is None:
            hidden = room.kind != ChannelKind.DM
            return (await hook.send(**rendered.to_send(), ephemeral=hidden, wait=True)).id
        await insist(lambda: hook.edit_message(message_id, **rendered.to_edit()), rendered)
        return int(message_id)

    async def _ref(self, note: Note, room: Room, job: Job, person: str, message_id: int) -> str:
        if room.kind == ChannelKind.DM:
            return f"{room}/{message_id}"
        message = self._outbox.interactions.new(note.body["token"], message_id, note.body["limit"])
        return await self._outbox.follow_in(room, job.id, message, person)
