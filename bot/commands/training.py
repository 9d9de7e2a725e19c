"""From photos to an avatar: /train, its buttons, and the answers to the photo check and the training."""

from collections.abc import AsyncIterator
from uuid import uuid4

from bot import limits
from bot.commands.desk import Desk, Visit
from bot.messages import Message, Reply, Upload
from bot.replies import checks, jobs, refusals
from bot.replies import looks as replies
from storage import keys as blob_keys
from storage import naming
from storage.errors import UserError
from storage.jobs import Inspect, State, Train
from storage.looks import CHOICES, corrected
from storage.records import Avatar, Job, User


class Training:
    """The commands for training an avatar."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def train(
        self, visit: Visit, token: str, noun: str, photos: AsyncIterator[Upload], consent: bool = False
    ) -> Reply:
        """Store an album and queue its inspection; `start_training` follows when the person presses Train.

        If anything is refused, nothing of the album is kept.
        """
        noun = naming.noun(noun)
        token = naming.check_token(token, noun)
        if not consent:
            raise UserError("consent")
        user = visit.user
        await self._desk.check_jobs(user)
        await self._desk.check_quota(user, "trainings", 1)
        old = await self._replaceable(user, token)
        album_id = uuid4().hex
        avatar = None
        try:
            keys = await self._take_in(album_id, photos)
            for former in old:
                await self._desk.erase(former)
            avatar = await self._desk.records.avatars.create(user.id, token, noun, keys, refusals.CONSENT_VERSION)
            job = await self._desk.create_job(visit, Inspect(avatar.id))
        except BaseException:
            # Also if the sender disconnects in the middle of a photo.
            if avatar is not None:
                await self._desk.records.avatars.delete(avatar.id)
            await self._desk.blobs.delete(blob_keys.album(album_id))
            raise
        await self._desk.enqueue(job)
        return Reply(checks.checking(avatar, len(keys), job), job_id=job.id)

    async def _take_in(self, album_id: str, photos: AsyncIterator[Upload]) -> list[str]:
        keys: list[str] = []
        async for photo in photos:
            limits.photo_count(max(limits.PHOTOS_FEWEST, len(keys) + 1))
            key = blob_keys.photo(album_id, len(keys) + 1)
            await self._desk.blobs.put(key, _measured(photo.chunks, len(keys) + 1))
            keys.append(key)
        limits.photo_count(len(keys))
        return keys

    async def _replaceable(self, user: User, token: str) -> list[Avatar]:
        """The person's unfinished avatars with this token, which a new album replaces."""
        own = await self._desk.records.avatars.owned_by(user.id)
        same = [avatar for avatar in own if avatar.token == token]
        if any(avatar.state in ("training", "ready") for avatar in same):
            suggestion = naming.suggest_token(token, {avatar.token for avatar in own})
            raise UserError("token_taken", token=token, suggestion=suggestion)
        return same

    async def start_training(self, visit: Visit, avatar_id: str) -> Reply:
        """The Train button under a photo check, or Try again under a failed training."""
        async with self._desk.admission:
            user = visit.user
            avatar = await self._desk.own_avatar(user, avatar_id)
            # A process may have died after it created the job and before it changed the avatar's state.
            if avatar.state == "training" or await self._in_training(avatar):
                raise UserError("already_training", token=avatar.token)
            if avatar.state == "ready":
                raise UserError("already_trained", token=avatar.token, noun=avatar.noun)
            photos = await self._desk.records.avatars.photos(avatar.id)
            good = sum(1 for photo in photos if photo.verdict and photo.verdict["ok"])
            if good < limits.PHOTOS_FEWEST:
                raise UserError("draft_unchecked", token=avatar.token)
            if any(other.id != avatar.id for other in await self._replaceable(user, avatar.token)):
                raise UserError("token_taken", token=avatar.token)
            await self._desk.check_jobs(user)
            await self._desk.check_quota(user, "trainings", 1)
            job = await self._desk.create_job(visit, Train(avatar.id))
            await self._desk.records.avatars.update(avatar.id, state="training")
        await self._desk.enqueue(job)
        waiting = await self._desk.waiting(job)
        return Reply(jobs.under_way(job, avatar.token, "queued", waiting), job_id=job.id, spent=True)

    async def look(self, visit: Visit, subject: str) -> Reply:
        """The buttons that correct what was read from the photos. `subject` is "<avatar>:<attribute>=<choice>".

        Without a choice the choices are shown, and without an attribute what was read.
        """
        avatar_id, _, rest = subject.partition(":")
        attribute, _, chosen = rest.partition("=")
        async with self._desk.admission:
            avatar = await self._desk.own_avatar(visit.user, avatar_id)
            if avatar.state == "ready":
                raise UserError("already_trained", token=avatar.token, noun=avatar.noun)
            if avatar.state == "training" or await self._in_training(avatar):
                raise UserError("already_training", token=avatar.token)
            looks = avatar.details.get("looks")
            if looks is None or attribute not in ("", *CHOICES):
                raise UserError("unknown_action")
            if attribute and not chosen:
                return Reply(replies.question(avatar, looks, attribute), replaces=True)
            if attribute:
                looks = corrected(looks, attribute, chosen)
                details = {**avatar.details, "looks": looks}
                avatar = await self._desk.records.avatars.update(avatar.id, details=details)
        return Reply(replies.card(avatar, looks), replaces=True)

    async def discard(self, visit: Visit, avatar_id: str) -> Reply:
        """The Cancel button under a photo check."""
        avatar = await self._desk.own_avatar(visit.user, avatar_id)
        if avatar.state != "draft":
            raise UserError("already_training", token=avatar.token)
        await self._desk.erase(avatar)
        return Reply(checks.discarded(avatar.token), private=True, spent=True)

    async def answer_inspect(self, job: Job, avatar_id: str) -> Message:
        """The message that ends a photo check."""
        avatar = await self._desk.records.avatars.get(avatar_id)
        if job.state == State.SUCCEEDED:
            result = job.result or {}
            verdicts = result["verdicts"]
            enough = sum(1 for verdict in verdicts if verdict["ok"]) >= limits.PHOTOS_FEWEST
            if enough and avatar is None:
                return refusals.refusal(UserError("avatar_gone"))
            if not enough and avatar is not None:
                await self._desk.erase(avatar)
            return checks.checked(avatar if enough else None, avatar_id, result, job.id)
        if avatar is not None and avatar.state == "draft":
            await self._desk.erase(avatar)
        return jobs.cancelled(job, None) if job.state == State.CANCELLED else jobs.failed(job)

    async def answer_train(self, job: Job, avatar_id: str) -> Message:
        """The message that ends a training."""
        avatar = await self._desk.records.avatars.get(avatar_id)
        if job.state == State.SUCCEEDED:
            if avatar is None:
                return refusals.refusal(UserError("avatar_gone"))
            return jobs.trained(avatar, job.result or {}, job.id)
        if avatar is not None and avatar.state == "training" and not await self._in_training(avatar, job):
            await self._desk.records.avatars.update(avatar.id, state="failed")
        token = avatar.token if avatar else None
        return jobs.cancelled(job, token) if job.state == State.CANCELLED else jobs.failed(job)

    async def _in_training(self, avatar: Avatar, ended: Job | None = None) -> bool:
        """Whether a job that trains the avatar is queued or running, other than the `ended` one."""
        active = await self._desk.records.jobs.for_user(avatar.owner_id, active_only=True)
        trainings = [job for job in active if isinstance(job.payload, Train) and job.payload.avatar_id == avatar.id]
        return any(ended is None or job.id != ended.id for job in trainings)


async def _measured(chunks: AsyncIterator[bytes], number: int) -> AsyncIterator[bytes]:
    """Yield a photo's chunks. Raises UserError as soon as the photo is larger than allowed."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if chunk:
            limits.photo_size(size, number)
            yield chunk
    limits.photo_size(size, number)
