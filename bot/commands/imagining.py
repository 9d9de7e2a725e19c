"""From words to pictures: /imagine, the buttons under a drawing, and the answer with the pictures."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from bot import limits
from bot.commands.desk import Desk
from bot.lines import Value, values_of
from bot.messages import Caller, Message, Reply
from bot.replies import jobs as replies
from storage import naming
from storage.errors import UserError
from storage.jobs import Imagine, State
from storage.records import Avatar, Job, Picture, User


class Imagining:
    """What has to do with drawing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def imagine(self, caller: Caller, **given: Any) -> Reply:
        """Draw the avatars that the prompt names, if this person may use them in this room.

        `given`: the values of the command's options. `avatar` is drawn if the prompt does not name it, and the person's
        default if it names nobody.
        """
        return await self._draw(caller, *await self._wanted(caller, **given))

    async def edit(self, caller: Caller, job_id: str, shown: Collection[str], values: Mapping[str, Value]) -> Reply:
        """Draw what the person asked for before, but by the `values` of those options that they were `shown`."""
        job, asked = await self._own(caller, job_id)
        given: dict[str, Any] = {name: value for name, value in (await self.options(job)).items() if name not in shown}
        user, payload = await self._wanted(caller, **{"prompt": "", **given, **values})
        return await self._draw(caller, user, replace(payload, original=asked.original, strength=asked.strength))

    async def options(self, job: Job) -> dict[str, Value]:
        """The values of /imagine's options with which a drawing was asked for, or that say how it came out."""
        asked = job.payload
        assert isinstance(asked, Imagine)
        drawn = await self._desk.records.jobs.pictures(job.id)
        return values_of(replace(asked, seed=drawn[0].seed) if drawn else asked)

    async def _wanted(
        self,
        caller: Caller,
        prompt: str,
        avatar: str = "",
        count: int = limits.COUNT_MOST,
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        size: str = "",
        style: str = "",
    ) -> tuple[User, Imagine]:
        """Who calls, and what they ask for."""
        prompt, negative = limits.prompt(prompt), limits.negative_prompt(negative)
        count, seed = limits.count(count), limits.seed(seed)
        steps, guidance = limits.steps(steps), limits.guidance(guidance)
        width, height = limits.size(size) or (None, None)
        named, weight = limits.style(style)
        if named and named not in (offered := await self._desk.queue.styles()):
            raise UserError("unknown_style", style=named[:32], styles=[*offered])
        user = await self._desk.user(caller)
        usable = await self._desk.usable(caller, user)
        default = await self._desk.default_of(user)
        prompt, avatars = _whom(prompt, avatar.lower(), user, usable, default)
        ids = tuple(one.id for one in avatars)
        payload = Imagine(prompt, ids, count, seed, steps, guidance, negative, width, height)
        return user, replace(payload, style=named, style_weight=weight)

    async def again(self, caller: Caller, job_id: str) -> Reply:
        """The Again button: the same prompt with new seeds, by the rights of whoever presses it."""
        user, asked = await self._asked(caller, job_id)
        return await self._draw(caller, user, replace(asked, seed=None))

    async def vary(self, caller: Caller, picture: str, prompt: str = "") -> Reply:
        """Pictures like this one, by the rights of whoever asks. `picture` is "2:job", counted from 1.

        They show the avatars of the original, under another prompt if one is given, whether or not it names them.
        """
        number, _, job_id = picture.partition(":")
        user, asked = await self._asked(caller, job_id)
        found = [one for one in await self._desk.records.jobs.pictures(job_id) if str(one.position + 1) == number]
        if not found:
            raise UserError("picture_gone")
        if prompt:
            prompt = limits.prompt(prompt)
            drawn = [one for one in await self._desk.usable(caller, user) if one.id in asked.avatar_ids]
            for avatar in drawn:
                if not _named(avatar, prompt):
                    prompt = _naming(prompt, avatar)
        payload = replace(asked, prompt=prompt or asked.prompt, seed=None, original=found[0].key)
        return await self._draw(caller, user, payload)

    async def named(self, picture: str, words: str) -> bool:
        """Whether the words name an avatar that a picture, "2:job", shows."""
        job = await self._desk.records.jobs.get(picture.partition(":")[2])
        ids = job.payload.avatar_ids if job is not None and isinstance(job.payload, Imagine) else ()
        shown = [await self._desk.records.avatars.get(avatar_id) for avatar_id in ids]
        return any(avatar is not None and _named(avatar, words) for avatar in shown)

    async def seed(self, caller: Caller, job_id: str) -> Reply:
        """The Seed button: the command that draws each picture again, for the person who asked for it."""
        job, asked = await self._own(caller, job_id)
        return Reply(replies.seeds(asked, await self._pictures(job)), private=True)

    async def remove(self, caller: Caller, job_id: str) -> Reply:
        """The Delete button: the pictures go, records and files, if the person who asked for them wants it."""
        job, _ = await self._own(caller, job_id)
        await self._pictures(job)
        for key in await self._desk.records.jobs.delete_pictures(job.id):
            await self._desk.blobs.delete(key)
        return Reply(replies.removed(), private=True, spent=True)

    async def _own(self, caller: Caller, job_id: str) -> tuple[Job, Imagine]:
        job = await self._desk.job(job_id)
        if job.user_id != (await self._desk.user(caller)).id or not isinstance(job.payload, Imagine):
            raise UserError("not_yours")
        return job, job.payload

    async def _pictures(self, job: Job) -> list[Picture]:
        """What is left of a drawing, in order. Raises UserError picture_gone if nothing is."""
        pictures = await self._desk.records.jobs.pictures(job.id)
        if not pictures:
            raise UserError("picture_gone")
        return pictures

    async def _asked(self, caller: Caller, job_id: str) -> tuple[User, Imagine]:
        """Who calls, and what a drawing asked for, with the avatars that this person may draw here."""
        job = await self._desk.job(job_id)
        user = await self._desk.user(caller)
        in_this_room = (job.frontend, job.room) == (caller.platform, caller.room)
        if not isinstance(job.payload, Imagine) or not (in_this_room or job.user_id == user.id):
            raise UserError("not_yours")
        asked = job.payload
        usable = await self._desk.usable(caller, user)
        if not asked.avatar_ids:
            raise UserError("avatar_gone")
        ids = asked.avatar_ids
        if not set(ids) <= {one.id for one in usable}:
            if None not in [await self._desk.records.avatars.get(avatar_id) for avatar_id in ids]:
                raise UserError("not_shared")
            # Erased since: perhaps made anew under the same name.
            _, avatars = _whom(asked.prompt, "", user, usable, None)
            ids = tuple(one.id for one in avatars)
        return user, replace(asked, avatar_ids=ids)

    async def _draw(self, caller: Caller, user: User, payload: Imagine) -> Reply:
        desk = self._desk
        if payload.original is not None and not await desk.blobs.exists(payload.original):
            raise UserError("picture_gone")
        async with desk.admission:
            await desk.check_jobs(user)
            await desk.check_quota(user, "pictures", payload.count)
            job = await desk.create_job(user, caller, payload)
        # Whoever takes a grant back stops the jobs that are there; this one may have come just after that look.
        if not set(payload.avatar_ids) <= {one.id for one in await desk.usable(caller, user)}:
            await desk.records.jobs.request_cancel(job.id)
            await desk.records.jobs.mark_delivered(job.id)
            raise UserError("not_shared")
        await desk.enqueue(job)
        return Reply(replies.under_way(job, None, "queued", await desk.waiting(job)), job_id=job.id)

    async def how(self, caller: Caller, avatar_id: str) -> Reply:
        """The Imagine button of an avatar."""
        user = await self._desk.user(caller)
        for avatar in await self._desk.usable(caller, user):
            if avatar.id == avatar_id:
                return Reply(replies.how_to_imagine(avatar), private=True)
        raise UserError("avatar_gone" if await self._desk.records.avatars.get(avatar_id) is None else "not_yours")

    async def drawings(self, caller: Caller, skip: int, most: int) -> list[tuple[Job, list[Picture]]]:
        """The person's drawings that have pictures left."""
        user = await self._desk.user(caller)
        found: list[tuple[Job, list[Picture]]] = []
        for job in await self._desk.records.jobs.for_user(user.id):
            if len(found) == skip + most:
                break
            if isinstance(job.payload, Imagine) and job.state == State.SUCCEEDED:
                pictures = await self._desk.records.jobs.pictures(job.id)
                found += [(job, pictures)] if pictures else []
        return found[skip:]

    async def answer_imagine(self, job: Job) -> Message:
        """The message that ends a drawing. Pictures of somebody else's avatar say whose it is."""
        if job.state == State.CANCELLED:
            return replies.cancelled(job, None)
        if job.state == State.FAILED:
            return replies.failed(job)
        pictures = await self._desk.records.jobs.pictures(job.id)
        if not pictures:
            # Erased between the drawing and now, or afterwards by its person.
            assert isinstance(job.payload, Imagine)
            avatars = [await self._desk.records.avatars.get(avatar_id) for avatar_id in job.payload.avatar_ids]
            return replies.refusal(UserError("avatar_gone" if None in avatars else "picture_gone"))
        drawn = [(picture.key, picture.seed) for picture in pictures]
        return replies.drawn(job, drawn, replies.notice_of(job.result or {}), await self._owners(job))

    async def _owners(self, job: Job) -> list[tuple[str, str]]:
        assert isinstance(job.payload, Imagine)
        owners = []
        for avatar_id in job.payload.avatar_ids:
            avatar = await self._desk.records.avatars.get(avatar_id)
            if avatar is not None and avatar.owner_id != job.user_id:
                owners.append((avatar.token, await self._desk.name_of(avatar.owner_id, job.frontend)))
        return owners


def _whom(
    prompt: str, chosen: str, user: User, usable: list[Avatar], default: Avatar | None
) -> tuple[str, list[Avatar]]:
    """The avatars to draw, and the prompt with the name of one that it lacks."""
    # Somebody's own avatar hides another's of the same name, and a trained one hides what is left of a failed one.
    ranked = sorted(usable, key=lambda avatar: (avatar.state == "ready", avatar.owner_id == user.id))
    known = {avatar.token: avatar for avatar in ranked}
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    named = [known[word] for word in dict.fromkeys(words) if word in known]
    if chosen:
        if chosen not in known:
            raise UserError("no_avatar_named", tokens=[*sorted(known)]) if known else UserError("no_avatars")
        if known[chosen] not in named:
            named.insert(0, known[chosen])
            prompt = _naming(prompt, known[chosen])
    if not named and known:
        _check_spelling(words, sorted(known))
        if default is not None:
            named, prompt = [default], _naming(prompt, default)
    for avatar in named:
        if avatar.state != "ready":
            raise UserError(f"avatar_{avatar.state}", token=avatar.token)
    if not named:
        raise UserError("no_avatar_named", tokens=[*sorted(known)]) if known else UserError("no_avatars")
    return prompt, named


def _check_spelling(words: list[str], tokens: list[str]) -> None:
    for word in words:
        near = [] if word in naming.COMMON_WORDS else get_close_matches(word, tokens, n=1, cutoff=0.7)
        if near:
            raise UserError("no_avatar_named", tokens=[*tokens], word=word, near=near[0])


def _named(avatar: Avatar, words: str) -> bool:
    return re.search(rf"\b{avatar.token}\b", words, re.IGNORECASE) is not None


def _naming(prompt: str, avatar: Avatar) -> str:
    """The prompt about this avatar: "a woman in a suit" becomes "mia7 woman in a suit"."""
    said = re.compile(rf"\b(?:(?:an?|the|my)\s+)?{re.escape(avatar.noun)}\b", re.IGNORECASE)
    whom = f"{avatar.token} {avatar.noun}"
    return said.sub(whom, prompt, count=1) if said.search(prompt) else f"{whom}, {prompt}"
