"""Shared by all commands: the caller, the storage, and the checks of rights and quotas."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from bot import limits
from bot.language import spoken
from bot.messages import Caller
from bot.replies import rights
from bot.replies.remarks import size_text
from storage.blobs import Blobs
from storage.errors import UserError
from storage.events import Event, Events
from storage.jobs import SPECS, Imagine, JobKind, Payload, State
from storage.records import Avatar, Job, Records, User

log = logging.getLogger(__name__)

_KINDS: Mapping[type[Payload], JobKind] = {spec.payload: kind for kind, spec in SPECS.items()}


@dataclass(frozen=True, slots=True)
class Visit:
    """One command or button press, with the person behind it. Commands look the person up once and pass this on."""

    caller: Caller
    user: User
    operator: bool = False
    """Whether this account may use /operator."""


class JobQueue(Protocol):
    """The part of `storage.queue.Queue` that commands use."""

    async def enqueue(self, job: Job) -> object:
        """Hand a queued job to the engines."""

    async def styles(self) -> list[str]:
        """The names of the running engines' styles, in order."""


class Desk:
    """The storage, with the rules for rights and quotas. `operators`: accounts as platform:id."""

    def __init__(
        self, records: Records, blobs: Blobs, queue: JobQueue, events: Events, operators: Collection[str] = ()
    ) -> None:
        self.records = records
        self.blobs = blobs
        self.queue = queue
        self.events = events
        self.operators = frozenset(operators)
        # Two quick presses of a button must neither start two trainings nor exceed a quota.
        self.admission = asyncio.Lock()

    # People

    def is_operator(self, caller: Caller) -> bool:
        """Whether this account may use /operator."""
        return caller.account in self.operators

    async def name_of(self, user_id: str, platform: str) -> str:
        """What a person is called, on this platform if they are there."""
        accounts = await self.records.users.accounts(user_id)
        here = [account for account in accounts if account.platform == platform]
        return (here or accounts)[0].name if accounts else rights.somebody()

    # The base model

    async def sizes(self) -> list[str]:
        """Usual sizes of the base model in use, such as "512x768", the most usual first; none before an engine ran."""
        base = await self.records.operators.base_model()
        return [size_text(size) for size in (base or {}).get("sizes", ())]

    # Avatars

    async def own_avatar(self, user: User, avatar_id: str) -> Avatar:
        """The avatar, if it is this person's. Raises UserError avatar_gone or not_yours."""
        avatar = await self.records.avatars.get(avatar_id)
        if avatar is None:
            raise UserError("avatar_gone")
        if avatar.owner_id != user.id:
            raise UserError("not_yours")
        return avatar

    async def own_by_token(self, user: User, token: str) -> Avatar:
        """The person's avatar of this name. Raises UserError unknown_avatar."""
        own = await self.records.avatars.owned_by(user.id)
        found = [avatar for avatar in own if avatar.token == token.lower()]
        if not found:
            tokens = sorted({avatar.token for avatar in own})
            raise UserError("unknown_avatar", token=token[:32], tokens=[*tokens])
        # There can be a failed avatar and a newer one of the same name; unfinished ones are sorted last.
        return min(found, key=lambda avatar: avatar.state == "failed")

    async def usable(self, visit: Visit) -> list[Avatar]:
        """The avatars that the person may draw here, in any state."""
        return await self.records.avatars.usable_by(visit.user.id, visit.caller.grant_scope)

    async def default_of(self, user: User) -> Avatar | None:
        """The avatar that is drawn when a prompt names nobody."""
        preferred = [
            (avatar.preferred, avatar)
            for avatar in await self.records.avatars.owned_by(user.id)
            if avatar.preferred and avatar.state == "ready"
        ]
        return max(preferred, key=lambda pair: pair[0])[1] if preferred else None

    # Limits

    async def check_jobs(self, user: User) -> None:
        """Raise UserError too_many_jobs if the person has ACTIVE_JOBS_MOST jobs under way."""
        active = len(await self.records.jobs.for_user(user.id, active_only=True))
        if active >= limits.ACTIVE_JOBS_MOST:
            raise UserError("too_many_jobs", active=active)

    async def check_quota(self, user: User, what: str, asked: int) -> None:
        """Raise UserError quota_used if `asked` more "trainings" or "pictures" exceed the day's quota."""
        everybody = await self.records.quotas.default()
        limit = {**everybody, **(user.quota or {})}.get(what)
        if limit is None:
            return
        uses = (await self.records.quotas.used(user.id))[what]
        used = left = sum(amount for _, amount in uses)
        if used + asked <= limit:
            return
        free = None
        for moment, amount in uses:
            left -= amount
            if left + asked <= limit:
                free = moment.isoformat()
                break
        raise UserError("quota_used", what=what, limit=limit, used=used, asked=asked, free=free)

    # Jobs

    async def create_job(self, visit: Visit, payload: Payload) -> Job:
        """Create a job. A request that is delivered again gets the job that it made."""
        kind, caller = _KINDS[type(payload)], visit.caller
        return await self.records.jobs.create(
            kind,
            visit.user.id,
            caller.platform,
            caller.room,
            payload,
            caller.grant_scope,
            spoken(),
            request=caller.request or None,
        )

    async def enqueue(self, job: Job) -> None:
        """Hand a job to the engines."""
        # The job is safe in the records. If the queue is down, the reconciler enqueues the job once it is up again.
        try:
            await self.queue.enqueue(job)
        except Exception:
            log.exception("job %s was not enqueued and waits for the reconciler", job.id)

    async def waiting(self, job: Job) -> dict[str, Any]:
        """Where a job stands: its `position` in the queue (1 is next, 0 once it runs), whether engines are `paused`,
        and in how many `seconds` it should be ready, None if no job of its kind was ever done."""
        position, usual = (
            await self.records.jobs.queue_position(job.id),
            await self.records.jobs.usual_seconds(job.kind),
        )
        if usual is None:
            seconds = None
        elif position:
            seconds = usual * position
        else:
            ran = (datetime.now(UTC) - job.started).total_seconds() if job.started else 0.0
            seconds = max(1.0, usual - ran)
        return {"position": position, "paused": await self.records.operators.paused(), "seconds": seconds}

    async def job(self, job_id: str) -> Job:
        """The job. Raises UserError unknown_job."""
        job = await self.records.jobs.get(job_id)
        if job is None:
            raise UserError("unknown_job")
        return job

    async def stop(self, job_id: str) -> Job:
        """Cancel a job, queued or running."""
        stopped = await self.records.jobs.request_cancel(job_id)
        if stopped.state == State.CANCELLED:
            # No engine has the job, so none publishes this.
            await self.events.publish(Event(stopped.id, stopped.attempt, "cancelled"))
        return stopped

    async def stop_without_right(self, avatar_id: str) -> int:
        """Cancel the jobs that draw this avatar for people who may no longer draw it. Return their number."""
        jobs = await self.records.grants.unauthorized_jobs(avatar_id)
        for job in jobs:
            await self.stop(job.id)
        return len(jobs)

    async def token(self, job: Job) -> str | None:
        """The name of the avatar that a job trains or whose photos it checks; None for a drawing."""
        if isinstance(job.payload, Imagine):
            return None
        avatar = await self.records.avatars.get(job.payload.avatar_id)
        return avatar.token if avatar else None

    # Erasing

    async def erase(self, avatar: Avatar) -> int:
        """Cancel the avatar's jobs and erase everything about it. Return the number of erased files."""
        # Photos first: if this is interrupted, the avatar still exists and can be deleted again.
        folders = {photo.key.rpartition("/")[0] + "/" for photo in await self.records.avatars.photos(avatar.id)}
        files = sum([await self.wipe(folder) for folder in folders])
        return files + sum([await self.wipe(key) for key in await self.records.avatars.delete(avatar.id)])

    async def wipe(self, key: str) -> int:
        """Erase one blob, or all blobs below a key that ends in a slash. Return their number."""
        files = len(await self.blobs.list(key)) if key.endswith("/") else int(await self.blobs.exists(key))
        await self.blobs.delete(key)
        return files
