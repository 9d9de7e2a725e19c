"""Discord as the delivery loop sees it: where messages go, through which door, and each answer once.

A reference is "<room>/<message>" for an ordinary message, which the bot edits with its own token for as long as it
likes; "<room>/@<job>" for one that lives in an interaction; "<room>/-" for what could be said nowhere.

An answer comes once. One in an interaction is an edit of the message that told how far its job is, and an edit can be
done as often as like; an ordinary one is written down before and after it is sent, and looked for in between.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

import aiohttp
import discord

from bot.frontends.discord.rendering import FILE, Rendered, complete, fitted, notice, pictures, private, render
from bot.frontends.discord.rooms import Place, Room
from bot.messages import Message
from bot.replies import discord as wording
from storage.blobs import Blobs
from storage.records import Job, Note, Records, User

log = logging.getLogger(__name__)

NAME = "discord"
TOKEN_LIFE = 15 * 60.0
"""Seconds for which Discord takes an interaction's token."""
_FRESH = TOKEN_LIFE - 60.0
"""Seconds for which it is used: a minute less, for retries."""
_SETTLE = 30.0
"""Seconds that an answer waits for its own command to be answered first."""
_FAREWELL = 10.0
"""Seconds that commands have to be answered once the process ends."""
_NONCE = 25
"""Characters of what tells a message that is sent again."""
_SEARCHED = 100
"""Messages looked through for one that was sent by a process that then died."""
_NOWHERE = "-"
_DISMISSED, _NO_HOOK, _NO_TOKEN = 10008, 10015, 50027
"""Discord's codes for a message that is gone, and for an interaction that can no longer be answered."""
_BROKEN = (aiohttp.ClientError, OSError)
TROUBLE = (discord.HTTPException, *_BROKEN)
"""What the library raises when Discord refuses, or is not there."""
_TRIES = 3
SENT = "discord/sent"
"""`<room>|<dedupe>`: {"ref"}, None until it is sent."""
_MISSED = "discord/missed"
"""`<person>/<job>`: {"told"}: an answer that could be shown its person nowhere."""


_DOORS = "discord/doors"
"""`<job>`: the fields of `Door`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Door:
    """A message that lives in an interaction. `until`: when its token is too old. `limit`: bytes of a file."""

    token: str
    message: int
    until: float
    limit: int


class Outbox:
    """The frontend port of Discord."""

    def __init__(
        self, client: discord.Client, records: Records, blobs: Blobs, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._records = records
        self._blobs = blobs
        self._clock = clock
        self._doors: dict[str, Door] = {}
        self._at_doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._moved: dict[str, str] = {}
        self._talking: dict[str, set[asyncio.Task[Any]]] = {}
        # What an edited message shows, so that the same picture is not uploaded again every few seconds.
        self._pictured: dict[str, tuple[str, ...]] = {}
        self._gone: set[str] = set()

    @property
    def name(self) -> str:
        return NAME

    # What the commands tell it

    @contextmanager
    def talking(self, person: str) -> Iterator[None]:
        """While a command of this person is being answered: what a quick engine answers waits for that."""
        task = asyncio.current_task()
        assert task
        tasks = self._talking.setdefault(person, set())
        tasks.add(task)
        try:
            yield
        finally:
            tasks.discard(task)
            if not tasks:
                self._talking.pop(person, None)

    async def opened(self, room: Room, job_id: str, door: Door | None, person: str) -> str:
        """The reference of a job's message that only its person sees; `door` is None if it could not be sent."""
        if door is not None:
            now = self._clock()
            self._doors = {known: door for known, door in self._doors.items() if door.until > now}
            self._doors[job_id] = door
            await self._records.note_set(_DOORS, job_id, asdict(door), f"{NAME}:{person}")
        return f"{room}/@{job_id}"

    def door(self, token: str, message: int, limit: int) -> Door:
        """A message of an interaction that has just been asked for."""
        return Door(token, message, self._clock() + _FRESH, limit)

    def hook(self, token: str) -> discord.Webhook:
        """What an interaction's token lets the bot do."""
        hook = discord.Webhook.partial(self._client.application_id or 0, token, client=self._client)
        hook.type = discord.WebhookType.application  # or it may send nothing that only one person sees
        return hook

    async def _open(self, job_id: str) -> Door | None:
        """The door of a job, if it is there and not too old."""
        door = self._doors.get(job_id)
        if door is None and (note := await self._records.note(_DOORS, job_id)) is not None:
            door = self._doors[job_id] = Door(**note.body)
        if door is not None and door.until <= self._clock():
            await self._close(job_id)
            return None
        return door

    async def _close(self, job_id: str) -> None:
        self._doors.pop(job_id, None)
        await self._records.note_delete(_DOORS, job_id)

    async def tidy(self) -> None:
        """Forget the doors that nobody went through in time."""
        await self._records.notes_prune(_DOORS, datetime.now(UTC) - timedelta(seconds=TOKEN_LIFE))

    async def missed(self, person: str) -> list[str]:
        """The jobs whose answers could be told this person nowhere."""
        notes = await self._records.notes(_MISSED, f"{person}/")
        return [note.key.partition("/")[2] for note in notes if not note.body["told"]]

    async def told(self, person: str, job_id: str) -> None:
        """The person has heard of this answer now."""
        await self._records.note_set(_MISSED, f"{person}/{job_id}", {"told": True}, f"{NAME}:{person}")

    async def close(self) -> None:
        """Let the commands that are being answered be answered; what takes too long is left to the next process."""
        tasks = set().union(*self._talking.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL)

    # What the delivery loop tells it

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        job = await self._records.job(message.job or dedupe or "")
        person = await self._records.person(job.user_id, NAME) if job else None
        answers = job is not None and dedupe == job.id
        if job and answers:
            # So that the answer can be told from any other, and the person can name it.
            message = replace(message, job=job.id)
            # Where its message has been shown, its command is answered.
            if person and job.progress_ref is None:
                await self._settled(person.platform_id)
        if dedupe is None:
            return await self._send(Room.read(room), message, job, person, False, uuid4().hex[:_NONCE], None)
        # Written down before and after sending, so that a process that died in between is noticed.
        key, owner = f"{room}|{dedupe}", f"{NAME}:{person.platform_id}" if person else None
        tried = None
        if not await self._records.note_add(SENT, key, {"ref": None}, owner):
            tried = await self._records.note(SENT, key)
        if tried and tried.body["ref"] is not None:
            return str(tried.body["ref"])
        nonce = hashlib.sha256(f"{room} {dedupe}".encode()).hexdigest()[:_NONCE]
        ref = await self._send(Room.read(room), message, job, person, answers, nonce, tried)
        await self._records.note_set(SENT, key, {"ref": ref}, owner)
        if job and answers:
            await self._close(job.id)
        return ref

    async def announce(self, room: Room, message: Message) -> bool:
        """Say something to everybody in a channel. False if the bot may not write there."""
        return await self._write(room, message, None, uuid4().hex[:_NONCE], None) is not None

    async def tell(self, room: Room, message: Message, person: str) -> None:
        """Tell the person in private what an interaction does not take any more. Where that is refused too, the channel
        tells them that there was something."""
        alone, nonce = room if room.place == Place.DM else await self._alone(person), uuid4().hex[:_NONCE]
        if alone and await self._write(alone, message, None, nonce, None) is not None:
            return
        if room.place != Place.SERVER or await self._write(room, wording.unanswered(), person, nonce, None) is None:
            log.warning("a reply could be shown nowhere")

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
            async with self._at_door(spot[1:]):
                await self._edit_unseen(room, spot[1:], ref, message)

    # Sending

    async def _settled(self, person: str) -> None:
        others = self._talking.get(person, set()) - {asyncio.current_task()}
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
        """`answers`: this ends the job, so its person is mentioned. `tried`: an earlier try, with unknown outcome."""
        if answers and job and await self._fill(job.id, message, tried is not None):
            return f"{room}/@{job.id}"
        mention = person.platform_id if answers and person else None
        write = partial(self._write, message=message, mention=mention, nonce=nonce, tried=tried)
        if room.place != Place.PRIVATE and (sent := await write(room)) is not None:
            return f"{room}/{sent}"
        alone = await self._alone(person.platform_id) if room.place != Place.DM and person else None
        if alone and (sent := await write(alone)) is not None:
            return f"{alone}/{sent}"
        if answers and job and person:
            key, owner = f"{person.platform_id}/{job.id}", f"{NAME}:{person.platform_id}"
            await self._records.note_add(_MISSED, key, {"told": False}, owner)
        log.warning("nobody could be told of job %s: the bot may write neither there nor in private", job and job.id)
        return f"{room}/{_NOWHERE}"

    async def _alone(self, person: str) -> Room | None:
        """The person's private chat. None if they take no messages of the bot."""
        try:
            return Room(Place.DM, (await self._client.create_dm(discord.Object(int(person)))).id)
        except (discord.Forbidden, discord.NotFound):
            return None

    async def _rendered(self, room: Room, message: Message, mention: str | None, limit: int) -> Rendered:
        if room.place == Place.DM:
            return await complete(self._blobs, message, limit, mention=mention)
        if message.progress is None and message.job and private(message):
            return notice(message.job, mention)
        return render(message, mention=mention, public=True)

    async def _fill(self, job_id: str, message: Message, tried: bool) -> bool:
        """Answer where only the person sees it. False if no interaction is open any more."""
        door = await self._open(job_id)
        if door is None:
            return False
        hook = self.hook(door.token)

        def compose(limit: int) -> Awaitable[Rendered]:
            return complete(self._blobs, message, limit, postable=True)

        def edit(rendered: Rendered) -> Awaitable[object]:
            return insist(lambda: hook.edit_message(door.message, **rendered.to_edit()), rendered)

        try:
            if f"@{job_id}" not in self._gone:
                async with self._at_door(job_id):
                    await fitted(compose, edit, door.limit)
                return True
        except discord.HTTPException as error:
            if not refused(error):
                raise  # it is tried again, and not told in front of everybody because a line broke
            if error.code != _DISMISSED:
                log.warning("the answer of job %s takes another way: %s", job_id, reason(error))
                return False
        # Who put away what told of the progress gets the answer as a message of its own.
        if tried:
            return False
        try:
            await fitted(compose, lambda made: hook.send(**made.to_send(), ephemeral=True, wait=True), door.limit)
        except TROUBLE as error:
            log.warning("the answer of job %s takes another way: %s", job_id, reason(error))
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
            said = {(await compose(limit)).content for limit in (FILE, 0)}
            if (found := await self._found(channel, said, tried)) is not None:
                return found

        async def send(rendered: Rendered) -> int:
            # Discord itself drops a second message of the same nonce within some minutes.
            sent = await insist(lambda: channel.send(**rendered.to_send(), nonce=nonce), rendered)
            return sent.id

        try:
            return await fitted(compose, send)
        except (discord.Forbidden, discord.NotFound):
            return None
        except discord.HTTPException as error:
            if error.status not in (400, 413):
                raise
            # Discord never takes it as it is, so it would be tried for ever.
            log.warning("a message goes without its files and buttons: %s", error.code)
        return await send(await self._rendered(room, replace(message, buttons=()), mention, 0))

    async def _found(self, channel: discord.PartialMessageable, said: Collection[str], tried: Note) -> int | None:
        """The message, saying one of these, that an earlier process sent before it could write that down."""
        since = discord.Object(discord.utils.time_snowflake(tried.created) - (60_000 << 22))
        own = self._client.user
        try:
            async for message in channel.history(after=since, limit=_SEARCHED):
                if own and message.author.id == own.id and message.content in said:
                    return message.id
        except (discord.Forbidden, discord.NotFound):
            log.info("the history of a channel is closed to the bot")
        return None

    # Editing

    def _at_door(self, job_id: str) -> asyncio.Lock:
        """One edit after another: none that was begun before the answer may come after it."""
        return self._at_doors.setdefault(job_id, asyncio.Lock())

    async def _edit_unseen(self, room: str, job_id: str, ref: str, message: Message) -> None:
        job = await self._records.job(job_id)
        if job is not None and job.over:
            answered = await self._records.note(SENT, f"{room}|{job_id}")
            elsewhere = answered is not None and answered.body["ref"] not in (None, ref)
            if message.progress is not None or not elsewhere:
                return  # the answer comes in this very place, or is there
        if not await self._edit_through(job_id, message) and message.progress is not None:
            # The token is old, or was lost in a restart: an ordinary message takes over, and stays.
            moved = await self.post(room, message, dedupe=f"progress:{job_id}")
            self._moved[ref] = moved
            await self._records.set_progress_ref(job_id, moved)

    async def _edit_through(self, job_id: str, message: Message) -> bool:
        door = await self._open(job_id)
        if door is None:
            return False
        if f"@{job_id}" in self._gone:
            return True
        hook = self.hook(door.token)
        rendered = render(message, files=await self._changed(f"@{job_id}", message, door.limit))
        try:
            await insist(lambda: hook.edit_message(door.message, **rendered.to_edit()), rendered)
        except discord.HTTPException as error:
            if error.code in (_NO_HOOK, _NO_TOKEN):
                await self._close(job_id)
                return False
            if error.code != _DISMISSED:
                raise
            # Who put it away does not want to follow, but still gets the answer.
            self._gone.add(f"@{job_id}")
        return True

    async def _edit(self, room: Room, message_id: int, ref: str, message: Message) -> None:
        open_to_all = room.place != Place.DM
        files = None if open_to_all else await self._changed(ref, message)
        rendered = render(message, files=files, public=open_to_all)
        shown = self._client.get_partial_messageable(room.channel).get_partial_message(message_id)
        try:
            await insist(lambda: shown.edit(**rendered.to_edit()), rendered)
        except (discord.NotFound, discord.Forbidden) as error:
            log.info("a progress message is gone: %s", error.code)
            self._gone.add(ref)

    async def _changed(self, ref: str, message: Message, limit: int = FILE) -> list[discord.File] | None:
        """The pictures, if they are others than the message has."""
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
    """Make an edit, which can be done as often as like, so that a broken line costs nothing."""
    for _ in range(_TRIES - 1):
        with suppress(*_BROKEN):
            return await edit()
        for file in rendered.files or ():
            file.reset()
    return await edit()


def refused(error: Exception) -> bool:
    """Whether Discord will not take this however often it is sent."""
    return isinstance(error, discord.HTTPException) and error.status < 500 and error.status != 429


def reason(error: Exception) -> str:
    """What went wrong, for the log: Discord's code, or what kind of error it was."""
    return str(error.code) if isinstance(error, discord.HTTPException) else type(error).__name__
