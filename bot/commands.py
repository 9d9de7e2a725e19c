"""What the bot can do, for every platform alike: typed commands in, a typed `Reply` out.

A frontend parses what its platform delivers, calls `run` or `press`, and renders the reply. When a job is over,
the delivery loop asks `answer` for the message that ends it.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol
from uuid import uuid4

from bot import limits, replies
from bot.lines import Value, parse
from bot.messages import Caller, Message, Reply, Upload
from bot.table import COMMANDS, Kind, Source
from storage import naming
from storage.blobs import Blobs
from storage.errors import UserError
from storage.events import Event, Events
from storage.jobs import Imagine, Inspect, Payload, State, Train
from storage.jobs import Kind as JobKind
from storage.records import Avatar, Job, Records, User

__all__ = ["COMMANDS", "Commands", "Completion"]

log = logging.getLogger(__name__)

_KINDS: Mapping[type[Payload], JobKind] = {
    Inspect: JobKind.INSPECT,
    Train: JobKind.TRAIN,
    Imagine: JobKind.IMAGINE,
}


class JobQueue(Protocol):
    """The one thing of `storage.queue.Queue` that commands need."""

    async def enqueue(self, job: Job) -> object:
        """Hand a queued job to the engines."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A word that fits what somebody is typing, and what it stands for."""

    value: str
    hint: str = ""


class Commands:
    """The commands over one storage. Whoever calls is a `Caller`; what they may do is decided here."""

    def __init__(self, records: Records, blobs: Blobs, queue: JobQueue, events: Events) -> None:
        self._records = records
        self._blobs = blobs
        self._queue = queue
        self._events = events
        # Two quick presses of one button must not start two trainings.
        self._starting = asyncio.Lock()

    # How frontends call

    async def run(
        self, caller: Caller, command: str, values: Mapping[str, Value], photos: AsyncIterator[Upload] | None = None
    ) -> Reply:
        """Run a command of the table with the values of its options. Never raises on wrong input."""
        return await self._kindly(self._run(caller, command, values, photos or _no_photos()))

    async def line(
        self, caller: Caller, text: str, photos: AsyncIterator[Upload] | None = None, *, consent: bool = False
    ) -> Reply:
        """Run a command as somebody typed it; `consent` is a ticked box beside it. Never raises on wrong input."""
        return await self._kindly(self._line(caller, text, photos or _no_photos(), consent))

    async def press(self, caller: Caller, action: str) -> Reply:
        """Run what a button stands for. Never raises on wrong input."""
        return await self._kindly(self._press(caller, action))

    async def complete(self, caller: Caller, source: Source) -> list[Completion]:
        """What an option of the given source can be, for this person in this room."""
        user = await self._user(caller)
        match source:
            case Source.AVATARS:
                usable = await self._records.avatars_usable(user.id, caller.room)
                return [Completion(avatar.token, avatar.noun) for avatar in usable if avatar.state == "ready"]
            case Source.OWN_AVATARS:
                return [Completion(avatar.token, avatar.noun) for avatar in await self._records.avatars_of(user.id)]
            case Source.JOBS:
                return [Completion(job.id, job.kind) for job in await self._records.jobs_of(user.id, active_only=True)]
            case Source.CHOICES:
                return []

    async def _kindly(self, call: Awaitable[Reply]) -> Reply:
        try:
            return await call
        except UserError as error:
            return Reply(replies.refusal(error), private=True)
        except Exception:
            error_id = uuid4().hex[:8]
            log.exception("error %s while answering a command", error_id)
            return Reply(replies.apology(error_id), private=True)

    async def _line(self, caller: Caller, text: str, photos: AsyncIterator[Upload], consent: bool) -> Reply:
        line = parse(text)
        values = dict(line.values)
        if consent and any(option.name == "consent" for option in COMMANDS[line.command].options):
            values["consent"] = True
        return await self._run(caller, line.command, values, photos)

    async def _run(
        self, caller: Caller, command: str, values: Mapping[str, Value], photos: AsyncIterator[Upload]
    ) -> Reply:
        if command not in COMMANDS:
            raise UserError("unknown_command", name=command[:32])
        for option in COMMANDS[command].options:
            if option.required and option.kind in (Kind.WORD, Kind.TEXT) and not values.get(option.name):
                raise UserError("missing_option", command=command, option=option.name)
        given: dict[str, Any] = dict(values)
        match command:
            case "train":
                return await self.train(caller, photos=photos, **given)
            case "imagine":
                return await self.imagine(caller, **given)
            case "avatars":
                return await self.avatars(caller)
            case "status":
                return await self.status(caller)
            case "cancel":
                return await self.cancel(caller, **given)
            case "delete":
                return await self.delete(caller, **given)
            case _:
                return await self.help(caller)

    async def _press(self, caller: Caller, action: str) -> Reply:
        verb, _, subject = action.partition(":")
        match verb:
            case "train":
                return await self.start_training(caller, subject)
            case "discard":
                return await self.discard(caller, subject)
            case "imagine":
                return Reply(replies.how_to_imagine(await self._usable_avatar(caller, subject)), private=True)
            case "again":
                return await self.again(caller, subject)
            case "cancel":
                return await self.cancel(caller, subject)
            case "delete":
                return await self._confirm_delete(await self._own_avatar(caller, subject))
            case "erase":
                return await self.erase(caller, subject)
            case "keep":
                avatar = await self._own_avatar(caller, subject)
                return Reply(replies.kept(avatar), private=True, spent=True)
            case _:
                raise UserError("unknown_action")

    # /train

    async def train(
        self, caller: Caller, token: str, noun: str, photos: AsyncIterator[Upload], consent: bool = False
    ) -> Reply:
        """Take an album in and have it inspected. Whatever is refused, nothing of it stays."""
        token, noun = naming.token(token), naming.noun(noun)
        if not consent:
            raise UserError("consent")
        user = await self._user(caller)
        await self._check_jobs(user)
        old = await self._replaceable(user, token)
        album = f"photos/{uuid4().hex}/"
        avatar = None
        try:
            keys = await self._take_in(album, photos)
            for former in old:
                await self._erase(former)
            avatar = await self._records.create_avatar(user.id, token, noun, keys, replies.CONSENT_VERSION)
            job = await self._create_job(user, caller, Inspect(avatar.id))
        except BaseException:
            # Also when the sender hangs up in the middle of a photo.
            if avatar is not None:
                await self._records.delete_avatar(avatar.id)
            await self._blobs.delete(album)
            raise
        await self._enqueue(job)
        return Reply(replies.checking(avatar, len(keys), job), job_id=job.id)

    async def _take_in(self, album: str, photos: AsyncIterator[Upload]) -> list[str]:
        keys: list[str] = []
        async for photo in photos:
            limits.photo_count(max(limits.PHOTOS_FEWEST, len(keys) + 1))
            key = f"{album}{len(keys) + 1}"
            await self._blobs.put(key, _measured(photo.chunks, len(keys) + 1))
            keys.append(key)
        limits.photo_count(len(keys))
        return keys

    async def _replaceable(self, user: User, token: str) -> list[Avatar]:
        """The person's unfinished avatars of this token, which a new album takes the place of."""
        own = await self._records.avatars_of(user.id)
        same = [avatar for avatar in own if avatar.token == token]
        if any(avatar.state in ("training", "ready") for avatar in same):
            suggestion = naming.suggest_token(token, {avatar.token for avatar in own})
            raise UserError("token_taken", token=token, suggestion=suggestion)
        return same

    async def start_training(self, caller: Caller, avatar_id: str) -> Reply:
        """The Train button under a photo check, or Try again under a failed training."""
        async with self._starting:
            avatar = await self._own_avatar(caller, avatar_id)
            user = await self._user(caller)
            if avatar.state == "training":
                raise UserError("already_training", token=avatar.token)
            if avatar.state == "ready":
                raise UserError("already_trained", token=avatar.token, noun=avatar.noun)
            photos = await self._records.photos(avatar.id)
            good = sum(1 for photo in photos if photo.verdict and photo.verdict["ok"])
            if good < limits.PHOTOS_FEWEST:
                raise UserError("draft_unchecked", token=avatar.token)
            if any(other.id != avatar.id for other in await self._replaceable(user, avatar.token)):
                raise UserError("token_taken", token=avatar.token)
            await self._check_jobs(user)
            job = await self._create_job(user, caller, Train(avatar.id))
            await self._records.avatar_set(avatar.id, state="training")
        await self._enqueue(job)
        facts = {"place": await self._records.queue_place(job.id)}
        return Reply(replies.under_way(job, avatar.token, "queued", facts), job_id=job.id, spent=True)

    async def discard(self, caller: Caller, avatar_id: str) -> Reply:
        """The Cancel button under a photo check."""
        avatar = await self._own_avatar(caller, avatar_id)
        if avatar.state != "draft":
            raise UserError("already_training", token=avatar.token)
        await self._erase(avatar)
        return Reply(replies.discarded(avatar.token), private=True, spent=True)

    # /imagine

    async def imagine(
        self,
        caller: Caller,
        prompt: str,
        count: int = limits.COUNT_MOST,
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
    ) -> Reply:
        """Draw the avatars that the prompt names, if this person may use them in this room."""
        prompt, negative = limits.prompt(prompt), limits.negative_prompt(negative)
        count, seed = limits.count(count), limits.seed(seed)
        steps, guidance = limits.steps(steps), limits.guidance(guidance)
        user = await self._user(caller)
        await self._check_jobs(user)
        avatars = self._named(prompt, user, await self._records.avatars_usable(user.id, caller.room))
        payload = Imagine(prompt, tuple(avatar.id for avatar in avatars), count, seed, steps, guidance, negative)
        job = await self._create_job(user, caller, payload)
        await self._enqueue(job)
        return Reply(replies.drawing(job, await self._records.queue_place(job.id)), job_id=job.id)

    def _named(self, prompt: str, user: User, usable: list[Avatar]) -> list[Avatar]:
        # Somebody's own avatar hides another's of the same name, and a trained one hides what is left of a failed one.
        ranked = sorted(usable, key=lambda avatar: (avatar.state == "ready", avatar.owner_id == user.id))
        known = {avatar.token: avatar for avatar in ranked}
        words = re.findall(r"[a-z0-9]+", prompt.lower())
        named = [known[word] for word in dict.fromkeys(words) if word in known]
        for avatar in named:
            if avatar.state != "ready":
                raise UserError(f"avatar_{avatar.state}", token=avatar.token)
        if named:
            return named
        if not known:
            raise UserError("no_avatars")
        tokens = sorted(known)
        for word in words:
            near = [] if word in naming.COMMON_WORDS else get_close_matches(word, tokens, n=1, cutoff=0.7)
            if near:
                raise UserError("no_avatar_named", tokens=[*tokens], word=word, near=near[0])
        raise UserError("no_avatar_named", tokens=[*tokens])

    async def again(self, caller: Caller, job_id: str) -> Reply:
        """The Again button: the same prompt with new seeds, by the rights of whoever presses it."""
        job = await self._job(job_id)
        user = await self._user(caller)
        in_this_room = (job.frontend, job.room) == (caller.platform, caller.room)
        if not isinstance(job.payload, Imagine) or not (in_this_room or job.user_id == user.id):
            raise UserError("not_yours")
        asked = job.payload
        return await self.imagine(
            caller,
            asked.prompt,
            count=asked.count,
            steps=asked.steps,
            guidance=asked.guidance,
            negative=asked.negative_prompt,
        )

    # /avatars, /status, /cancel, /help

    async def avatars(self, caller: Caller) -> Reply:
        """List the avatars that the person can use in this room."""
        user = await self._user(caller)
        own = await self._records.avatars_of(user.id)
        usable = await self._records.avatars_usable(user.id, caller.room)
        shared = [avatar for avatar in usable if avatar.owner_id != user.id]
        return Reply(replies.avatars(own, shared), private=True)

    async def status(self, caller: Caller) -> Reply:
        """List the person's jobs that are not over."""
        user = await self._user(caller)
        jobs: list[tuple[Job, int | None, str | None]] = []
        for job in await self._records.jobs_of(user.id, active_only=True):
            place = await self._records.queue_place(job.id) if job.state == State.QUEUED else None
            jobs.append((job, place, await self._token(job)))
        return Reply(replies.status(jobs), private=True)

    async def cancel(self, caller: Caller, job: str = "") -> Reply:
        """Stop one of the person's own jobs, the newest if none is named."""
        user = await self._user(caller)
        if job:
            found = await self._job(job)
            if found.user_id != user.id:
                raise UserError("not_yours")
            if found.over:
                raise UserError("job_over")
        else:
            active = await self._records.jobs_of(user.id, active_only=True)
            if not active:
                raise UserError("no_jobs")
            found = active[0]
        stopped = await self._records.request_cancel(found.id)
        if stopped.state == State.CANCELLED:
            # No engine will tell, since none has it.
            await self._events.publish(Event(stopped.id, stopped.attempt, "cancelled"))
        return Reply(replies.cancelling(stopped, await self._token(stopped)), private=True)

    async def help(self, caller: Caller) -> Reply:
        """What there is."""
        return Reply(replies.help_text(), private=True)

    # /delete

    async def delete(self, caller: Caller, token: str) -> Reply:
        """Ask before an avatar is erased."""
        user = await self._user(caller)
        own = await self._records.avatars_of(user.id)
        found = [avatar for avatar in own if avatar.token == token.lower()]
        if not found:
            tokens = sorted({avatar.token for avatar in own})
            raise UserError("unknown_avatar", token=token[:32], tokens=[*tokens])
        # One that failed can lie beside a newer one of the same name; the unfinished one goes last.
        return await self._confirm_delete(min(found, key=lambda avatar: avatar.state == "failed"))

    async def _confirm_delete(self, avatar: Avatar) -> Reply:
        photos = await self._records.photos(avatar.id)
        return Reply(replies.confirm_delete(avatar, len(photos)), private=True)

    async def erase(self, caller: Caller, avatar_id: str) -> Reply:
        """The confirmed deletion: avatar, photos, training and pictures go, and its jobs stop."""
        avatar = await self._own_avatar(caller, avatar_id)
        files = await self._erase(avatar)
        return Reply(replies.erased(avatar, files), private=True, spent=True)

    async def _erase(self, avatar: Avatar) -> int:
        """Stop the avatar's jobs and erase all that is known of it; how many files went."""
        # Photos first: should this be cut short, the avatar is still there to be deleted again.
        folders = {photo.key.rpartition("/")[0] + "/" for photo in await self._records.photos(avatar.id)}
        files = sum([await self._wipe(folder) for folder in folders])
        return files + sum([await self._wipe(key) for key in await self._records.delete_avatar(avatar.id)])

    async def _wipe(self, key: str) -> int:
        """Erase one blob, or all below a key that ends in a slash; how many there were."""
        files = len(await self._blobs.list(key)) if key.endswith("/") else int(await self._blobs.exists(key))
        await self._blobs.delete(key)
        return files

    # The end of a job

    async def answer(self, job: Job) -> Message:
        """The one message that ends a job. Can be asked for again after a crash, with the same outcome."""
        match job.payload:
            case Inspect(avatar_id=avatar_id):
                return await self._answer_inspect(job, avatar_id)
            case Train(avatar_id=avatar_id):
                return await self._answer_train(job, avatar_id)
            case Imagine():
                return await self._answer_imagine(job)

    async def _answer_inspect(self, job: Job, avatar_id: str) -> Message:
        avatar = await self._records.avatar(avatar_id)
        if job.state == State.SUCCEEDED:
            verdicts = (job.result or {})["verdicts"]
            enough = sum(1 for verdict in verdicts if verdict["ok"]) >= limits.PHOTOS_FEWEST
            if enough and avatar is None:
                return replies.refusal(UserError("avatar_gone"))
            if not enough and avatar is not None:
                await self._erase(avatar)
            return replies.checked(avatar_id, avatar.token if avatar else "it", verdicts, job.id)
        if avatar is not None and avatar.state == "draft":
            await self._erase(avatar)
        return replies.cancelled(job, None) if job.state == State.CANCELLED else replies.failed(job)

    async def _answer_train(self, job: Job, avatar_id: str) -> Message:
        avatar = await self._records.avatar(avatar_id)
        if job.state == State.SUCCEEDED:
            if avatar is None:
                return replies.refusal(UserError("avatar_gone"))
            return replies.trained(avatar, job.result or {}, job.id)
        if avatar is not None and avatar.state == "training" and not await self._trains_anew(avatar, job):
            await self._records.avatar_set(avatar.id, state="failed")
        token = avatar.token if avatar else None
        return replies.cancelled(job, token) if job.state == State.CANCELLED else replies.failed(job)

    async def _trains_anew(self, avatar: Avatar, ended: Job) -> bool:
        active = await self._records.jobs_of(avatar.owner_id, active_only=True)
        return any(job.id != ended.id and job.payload == ended.payload for job in active)

    async def _answer_imagine(self, job: Job) -> Message:
        if job.state == State.CANCELLED:
            return replies.cancelled(job, None)
        if job.state == State.FAILED:
            return replies.failed(job)
        pictures = sorted(await self._records.pictures(job.id), key=lambda picture: picture.position)
        cartoon = bool((job.result or {}).get("cartoon"))
        return replies.drawn(job, [(picture.key, picture.seed) for picture in pictures], cartoon)

    # What the commands share

    async def _user(self, caller: Caller) -> User:
        return await self._records.user(caller.platform, caller.platform_id, caller.name)

    async def _check_jobs(self, user: User) -> None:
        active = len(await self._records.jobs_of(user.id, active_only=True))
        if active >= limits.ACTIVE_JOBS_MOST:
            raise UserError("too_many_jobs", active=active)

    async def _create_job(self, user: User, caller: Caller, payload: Payload) -> Job:
        return await self._records.create_job(_KINDS[type(payload)], user.id, caller.platform, caller.room, payload)

    async def _enqueue(self, job: Job) -> None:
        # The job is safe in the records. If the queue is away, the reconciler hands the job on as soon as it is back.
        try:
            await self._queue.enqueue(job)
        except Exception:
            log.exception("job %s was not enqueued and waits for the reconciler", job.id)

    async def _job(self, job_id: str) -> Job:
        job = await self._records.job(job_id)
        if job is None:
            raise UserError("unknown_job")
        return job

    async def _own_avatar(self, caller: Caller, avatar_id: str) -> Avatar:
        avatar = await self._records.avatar(avatar_id)
        if avatar is None:
            raise UserError("avatar_gone")
        if avatar.owner_id != (await self._user(caller)).id:
            raise UserError("not_yours")
        return avatar

    async def _usable_avatar(self, caller: Caller, avatar_id: str) -> Avatar:
        user = await self._user(caller)
        for avatar in await self._records.avatars_usable(user.id, caller.room):
            if avatar.id == avatar_id:
                return avatar
        raise UserError("avatar_gone" if await self._records.avatar(avatar_id) is None else "not_yours")

    async def _token(self, job: Job) -> str | None:
        if isinstance(job.payload, Imagine):
            return None
        avatar = await self._records.avatar(job.payload.avatar_id)
        return avatar.token if avatar else None


async def _no_photos() -> AsyncIterator[Upload]:
    nothing: tuple[Upload, ...] = ()
    for upload in nothing:
        yield upload


async def _measured(chunks: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
    """Pass a photo on, and stop as soon as it is larger than allowed."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if chunk:
            limits.photo_size(size, number)
            yield chunk
    limits.photo_size(size, number)
