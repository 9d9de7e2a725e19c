"""Sending and editing messages: the delivery loop's port to Discord.

A reference is "<room>/<message>" for an ordinary message, which the bot can always edit with its own token;
"<room>/@<job>" for a message that belongs to an interaction, which can be edited while the interaction's token is
valid; "<room>/-" for a message that could not be delivered.

Each answer is sent once. An answer in an interaction is an edit of the job's progress message, and an edit can be
repeated. An ordinary answer has an entry in the ledger before and after it is sent; if only the first entry exists, the
answer may have been sent, and the bot looks for it in the channel.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import discord

from bot.frontends.discord.interactions import InteractionMessage, InteractionMessages
from bot.frontends.discord.rendering import FILE, Rendered, complete, fitted, notice, pictures, private, render
from bot.frontends.discord.rooms import NAME, ChannelKind, Room
from bot.frontends.ledger import Entry, Ledger
from bot.frontends.locks import Locks
from bot.messages import Message
from bot.replies import discord as wording
from storage.blobs import Blobs
from storage.records import Job, Note, Records, User

log = logging.getLogger(__name__)

_SETTLE = 30.0
"""Longest wait of an answer for the reply to its command, in seconds."""
_FAREWELL = 10.0
"""Time for replies under way when the process ends, in seconds."""
_NONCE = 25
"""Characters of a nonce, by which Discord recognises a message that is sent again."""
_SEARCHED = 100
"""How many messages of a channel are searched for one that a dead process sent."""
_NOWHERE = "-"
_DISMISSED, _NO_HOOK, _NO_TOKEN = 10008, 10015, 50027
"""Discord's error codes for a message that is gone, and for an interaction that can no longer be answered."""
_CONNECTION_ERRORS = (aiohttp.ClientError, OSError)
TROUBLE = (discord.HTTPException, *_CONNECTION_ERRORS)
"""The library's exceptions when Discord refuses a request or is unreachable."""
_TRIES = 3
T = TypeVar("T")


class DiscordOutbox:
    """The frontend port of Discord."""

    def __init__(
        self, client: discord.Client, records: Records, blobs: Blobs, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._records = records
        self._blobs = blobs
        self.ledger = Ledger(records, NAME)
        self.interactions = InteractionMessages(client, records, clock)
        # By job: an edit that began before the answer must not overwrite it.
        self._editing = Locks[str]()
        # The references of the ordinary messages that replaced those of old interactions.
        self._moved: dict[str, str] = {}
        # By person: the tasks that run their commands.
        self._conversing: dict[str, set[asyncio.Task[Any]]] = {}
        # The keys of the pictures that a message shows, so that no picture is uploaded again every few seconds.
        self._pictured: dict[str, tuple[str, ...]] = {}
        # The references of messages that were deleted.
        self._gone: set[str] = set()

    @property
    def name(self) -> str:
        return NAME

    # For commands

    @contextmanager
    def conversing(self, person: str) -> Iterator[None]:
        """A command of this person runs inside the `with` block. A fast job's answer waits for the command's reply."""
        task = asyncio.current_task()
        assert task
        tasks = self._conversing.setdefault(person, set())
        tasks.add(task)
        try:
            yield
        finally:
            tasks.discard(task)
            if not tasks:
                self._conversing.pop(person, None)

    @property
    def busy(self) -> int:
        """The number of running commands."""
        return sum(len(tasks) for tasks in self._conversing.values())

    async def follow_in(self, room: Room, job_id: str, message: InteractionMessage | None, person: str) -> str:
        """The reference of a job's message that only its person sees; None if it could not be sent."""
        if message is not None:
            await self.interactions.add(job_id, message, person)
        return f"{room}/@{job_id}"

    async def tidy(self) -> None:
        """Delete the entries of expired interactions."""
        await self.interactions.tidy()

    async def missed(self, person: str) -> list[str]:
        """The jobs whose answers could not be delivered to this person."""
        return [job_id for addressee, job_id in await self.ledger.missed(person) if addressee == person]

    async def close(self) -> None:
        """Wait for the running commands; leave those that take too long to the next process."""
        tasks = set().union(*self._conversing.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL)

    # The delivery loop's port

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        job = await self._records.jobs.get(message.job or dedupe or "")
        person = await self._records.users.account_on(job.user_id, NAME) if job else None
        answers = job is not None and dedupe == job.id
        if job and answers:
            # The job's number is shown under the answer.
            message = replace(message, job=job.id)
            # Without a progress message, the command may still be without a reply.
            if person and job.progress_ref is None:
                await self._command_answered(person.platform_id)
        if dedupe is None:
            return await self._send(Room.read(room), message, job, person, False, uuid4().hex[:_NONCE], None)
        entry = Entry(f"{room}|{dedupe}", f"{NAME}:{person.platform_id}" if person else None)
        tried = await self.ledger.open(entry, {"ref": None})
        if tried and tried.body["ref"] is not None:
            return str(tried.body["ref"])
        nonce = hashlib.sha256(f"{room} {dedupe}".encode()).hexdigest()[:_NONCE]
        ref = await self._send(Room.read(room), message, job, person, answers, nonce, tried)
        await self.ledger.write(entry, {"ref": ref})
        if job and answers:
            await self.interactions.forget(job.id)
        return ref

    async def announce(self, room: Room, message: Message) -> bool:
        """Post a message for everybody in a channel. False if the bot may not write there."""
        return await self._write(room, message, None, uuid4().hex[:_NONCE], None) is not None

    async def tell(self, room: Room, message: Message, person: str) -> None:
        """Send a reply by private chat because its interaction has expired. If that is refused too, post a notice in
        the channel that there was a reply."""
        dm, nonce = room if room.kind == ChannelKind.DM else await self._dm(person), uuid4().hex[:_NONCE]
        if dm and await self._write(dm, message, None, nonce, None) is not None:
            return
        if (
            room.kind != ChannelKind.SERVER
            or await self._write(room, wording.unanswered(), person, nonce, None) is None
        ):
            log.warning("a reply could not be delivered")

    async def edit(self, ref: str, message: Message) -> None:
        ref = self._moved.get(ref, ref)
        room, _, spot = ref.rpartition("/")
        if spot == _NOWHERE or ref in self._gone:
            return
        if not spot.startswith("@"):
            await self._edit(Room.read(room), int(spot), ref, message)
            if message.progress is None:
                self._moved = {old: new for old, new in self._moved.items() if new != ref}
        else:
            async with self._editing[spot[1:]]:
                await self._edit_private(room, spot[1:], ref, message)

    # Sending

    async def _command_answered(self, person: str) -> None:
        others = self._conversing.get(person, set()) - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_SETTLE)

    async def _send(
        self,
        room: Room,
        message: Message,
        job: Job | None,
        person: User | None,
        answers: bool,
        nonce: str,
        tried: Note | None,
    ) -> str:
        """`answers`: the message ends the job, so its person is mentioned. `tried`: the entry of an earlier try, whose
        message may have arrived."""
        if answers and job and await self._fill(job.id, message, tried is not None):
            return f"{room}/@{job.id}"
        mention = person.platform_id if answers and person else None
        write = partial(self._write, message=message, mention=mention, nonce=nonce, tried=tried)
        if room.kind != ChannelKind.PRIVATE and (sent := await write(room)) is not None:
            return f"{room}/{sent}"
        dm = await self._dm(person.platform_id) if room.kind != ChannelKind.DM and person else None
        if dm and (sent := await write(dm)) is not None:
            return f"{dm}/{sent}"
        if answers and job and person:
            await self.ledger.miss(person.platform_id, job.id, f"{NAME}:{person.platform_id}")
        log.warning("job %s: a message was not delivered, neither in its room nor in private", job and job.id)
        return f"{room}/{_NOWHERE}"

    async def _dm(self, person: str) -> Room | None:
        """The person's private chat. None if they accept no messages from the bot."""
        try:
            return Room(ChannelKind.DM, (await self._client.create_dm(discord.Object(int(person)))).id)
        except (discord.Forbidden, discord.NotFound):
            return None

    async def _rendered(self, room: Room, message: Message, mention: str | None, limit: int) -> Rendered:
        if room.kind == ChannelKind.DM:
            return await complete(self._blobs, message, limit, mention=mention)
        if message.progress is None and message.job and private(message):
            return notice(message.job, mention)
        return render(message, mention=mention, public=True)

    async def _fill(self, job_id: str, message: Message, tried: bool) -> bool:
        """Edit the answer into the job's message in an interaction. False if there is none or its token has expired."""
        shown = await self.interactions.usable(job_id)
        if shown is None:
            return False
        hook = self.interactions.hook(shown.token)

        def compose(limit: int) -> Awaitable[Rendered]:
            return complete(self._blobs, message, limit, postable=True)

        def edit(rendered: Rendered) -> Awaitable[object]:
            return insist(lambda: hook.edit_message(shown.message, **rendered.to_edit()), rendered)

        try:
            if f"@{job_id}" not in self._gone:
                async with self._editing[job_id]:
                    await fitted(compose, edit, shown.limit)
                return True
        except discord.HTTPException as error:
            if not refused(error):
                raise  # try again later: a broken connection must not move the answer into a public channel
            if error.code != _DISMISSED:
                log.warning("the answer of job %s is sent without its interaction: %s", job_id, reason(error))
                return False
        # The person deleted the progress message, so the answer is a new message.
        if tried:
            return False
        try:
            await fitted(compose, lambda made: hook.send(**made.to_send(), ephemeral=True, wait=True), shown.limit)
        except TROUBLE as error:
            log.warning("the answer of job %s is sent without its interaction: %s", job_id, reason(error))
            return False
        return True

    async def _write(
        self, room: Room, message: Message, mention: str | None, nonce: str, tried: Note | None
    ) -> int | None:
        """The id of the message in this channel. None if the bot may not write there."""
        channel = self._client.get_partial_messageable(room.channel)

        def compose(limit: int) -> Awaitable[Rendered]:
            return self._rendered(room, message, mention, limit)

        if tried is not None:
            contents = {(await compose(limit)).content for limit in (FILE, 0)}
            if (found := await self._found(channel, contents, tried)) is not None:
                return found

        async def send(rendered: Rendered) -> int:
            # Discord drops a second message with the same nonce for some minutes.
            sent = await insist(lambda: channel.send(**rendered.to_send(), nonce=nonce), rendered)
            return sent.id

        try:
            return await fitted(compose, send)
        except (discord.Forbidden, discord.NotFound):
            return None
        except discord.HTTPException as error:
            if error.status not in (400, 413):
                raise
            # Discord will never accept this message, so it must not be tried again unchanged.
            log.warning("a message is sent without its files and buttons: %s", error.code)
        return await send(await self._rendered(room, replace(message, buttons=()), mention, 0))

    async def _found(self, channel: discord.PartialMessageable, contents: Collection[str], tried: Note) -> int | None:
        """The id of a message with one of these texts that an earlier process sent before it died, or None."""
        since = discord.Object(discord.utils.time_snowflake(tried.created) - (60_000 << 22))
        own = self._client.user
        try:
            async for message in channel.history(after=since, limit=_SEARCHED):
                if own and message.author.id == own.id and message.content in contents:
                    return message.id
        except (discord.Forbidden, discord.NotFound):
            log.info("the bot may not read a channel's history")
        return None

    # Editing

    async def _edit_private(self, room: str, job_id: str, ref: str, message: Message) -> None:
        job = await self._records.jobs.get(job_id)
        if job is not None and job.over:
            answered = await self.ledger.find(f"{room}|{job_id}")
            elsewhere = answered is not None and answered.body["ref"] not in (None, ref)
            if message.progress is not None or not elsewhere:
                return  # the answer replaces this message, or already has
        if not await self._edit_in_interaction(job_id, message) and message.progress is not None:
            # The token has expired or was lost in a restart: an ordinary message replaces this one for good.
            moved = await self.post(room, message, dedupe=f"progress:{job_id}")
            self._moved[ref] = moved
            await self._records.jobs.set_progress_ref(job_id, moved)

    async def _edit_in_interaction(self, job_id: str, message: Message) -> bool:
        shown = await self.interactions.usable(job_id)
        if shown is None:
            return False
        if f"@{job_id}" in self._gone:
            return True
        hook = self.interactions.hook(shown.token)
        rendered = render(message, files=await self._changed(f"@{job_id}", message, shown.limit))
        try:
            await insist(lambda: hook.edit_message(shown.message, **rendered.to_edit()), rendered)
        except discord.HTTPException as error:
            if error.code in (_NO_HOOK, _NO_TOKEN):
                await self.interactions.forget(job_id)
                return False
            if error.code != _DISMISSED:
                raise
            # The person deleted the progress message, but still gets the answer.
            self._gone.add(f"@{job_id}")
        return True

    async def _edit(self, room: Room, message_id: int, ref: str, message: Message) -> None:
        open_to_all = room.kind != ChannelKind.DM
        files = None if open_to_all else await self._changed(ref, message)
        rendered = render(message, files=files, public=open_to_all)
        shown = self._client.get_partial_messageable(room.channel).get_partial_message(message_id)
        try:
            await insist(lambda: shown.edit(**rendered.to_edit()), rendered)
        except (discord.NotFound, discord.Forbidden) as error:
            log.info("a progress message is gone: %s", error.code)
            self._gone.add(ref)

    async def _changed(self, ref: str, message: Message, limit: int = FILE) -> list[discord.File] | None:
        """The pictures as files, or None if the message already shows them."""
        keys = tuple(picture.key for picture in message.pictures)
        if self._pictured.get(ref, ()) == keys:
            return None
        files = await pictures(self._blobs, message.pictures, limit)
        if keys:
            self._pictured[ref] = keys
        else:
            self._pictured.pop(ref, None)
        return files


async def insist(edit: Callable[[], Awaitable[T]], rendered: Rendered) -> T:
    """Call `edit`, again if the connection breaks: an edit can be repeated without harm."""
    for _ in range(_TRIES - 1):
        with suppress(*_CONNECTION_ERRORS):
            return await edit()
        for file in rendered.files or ():
            file.reset()
    return await edit()


def refused(error: Exception) -> bool:
    """Whether Discord refuses the request for good: a client error other than the rate limit."""
    return isinstance(error, discord.HTTPException) and error.status < 500 and error.status != 429


def reason(error: Exception) -> str:
    """The error for the log: Discord's code, or the class of the exception."""
    return str(error.code) if isinstance(error, discord.HTTPException) else type(error).__name__
