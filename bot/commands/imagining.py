"""From a prompt to pictures: /imagine, the buttons under a drawing, and the answer with the pictures."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from bot import limits
from bot.commands.desk import Desk, Visit
from bot.lines import Value, values_of
from bot.messages import Message, Reply
from bot.replies import avatars, jobs, refusals
from storage import naming
from storage.errors import UserError
from storage.jobs import Imagine, State
from storage.records import Avatar, Job, Picture, User


class Imagining:
    """The commands for drawing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def imagine(self, visit: Visit, **given: Any) -> Reply:
        """Draw the avatars that the prompt names, if this person may use them in this room.

        `given`: the values of the command's options. `avatar` is drawn even if the prompt does not name it; if neither
        names one, the person's default is drawn.
        """
        return await self._draw(visit, await self._payload(visit, **given))

    async def edit(self, visit: Visit, job_id: str, shown: Collection[str], values: Mapping[str, Value]) -> Reply:
        """Draw what the person asked for before, with the `values` of the options that they were `shown`."""
        job, asked = await self._own(visit, job_id)
        given: dict[str, Any] = {name: value for name, value in (await self.options(job)).items() if name not in shown}
        payload = await self._payload(visit, **{"prompt": "", **given, **values})
        payload = replace(payload, original=asked.original, strength=asked.strength, repeats=job.id)
        return await self._draw(visit, payload)

    async def options(self, job: Job) -> dict[str, Value]:
        """The values of /imagine's options with which a drawing was asked for, or that say how it came out."""
        asked = job.payload
        assert isinstance(asked, Imagine)
        drawn = await self._desk.records.jobs.pictures(job.id)
        return values_of(replace(asked, seed=drawn[0].seed) if drawn else asked)

    async def _payload(
        self,
        visit: Visit,
        prompt: str,
        avatar: str = "",
        count: int = limits.COUNT_MOST,
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        size: str = "",
        style: str = "",
    ) -> Imagine:
        """The job that these values of /imagine's options ask for."""
        prompt, negative = limits.prompt(prompt), limits.negative_prompt(negative)
        count, seed = limits.count(count), limits.seed(seed)
        steps, guidance = limits.steps(steps), limits.guidance(guidance)
        try:
            width, height = limits.size(size) or (None, None)
        except UserError as error:
            raise UserError(error.code, **error.facts, sizes=await self._desk.sizes()) from None
        named, weight = limits.style(style)
        if named and named not in (offered := await self._desk.queue.styles()):
            raise UserError("unknown_style", style=named[:32], styles=[*offered])
        for text in (prompt, negative):
            if tag := naming.adapter_tag(text):
                styles = [*await self._desk.queue.styles()]
                facts = {"tag": tag.text[:48], "name": tag.name, "weight": f"{tag.weight:g}"}
                raise UserError("lora_in_prompt", styles=styles, **facts)
        usable = await self._desk.usable(visit)
        default = await self._desk.default_of(visit.user)
        prompt, drawn = _avatars_named(prompt, avatar.lower(), visit.user, usable, default)
        ids = tuple(one.id for one in drawn)
        payload = Imagine(prompt, ids, count, seed, steps, guidance, negative, width, height)
        return replace(payload, style=named, style_weight=weight)

    async def again(self, visit: Visit, job_id: str) -> Reply:
        """The Again button: the same prompt with new seeds, with the rights of the person who presses it."""
        return await self._draw(visit, replace(await self._asked(visit, job_id), seed=None, repeats=job_id))

    async def vary(self, visit: Visit, picture: str, prompt: str = "") -> Reply:
        """Pictures like this one, with the rights of the person who asks. `picture` is "2:job", counted from 1.

        They show the avatars of the original, under another prompt if one is given, whether or not it names them.
        """
        number, _, job_id = picture.partition(":")
        asked = await self._asked(visit, job_id)
        found = [one for one in await self._desk.records.jobs.pictures(job_id) if str(one.position + 1) == number]
        if not found:
            raise UserError("picture_gone")
        if prompt:
            prompt = limits.prompt(prompt)
            drawn = [one for one in await self._desk.usable(visit) if one.id in asked.avatar_ids]
            for avatar in drawn:
                if not _named(avatar, prompt):
                    prompt = _naming(prompt, avatar)
        payload = replace(asked, prompt=prompt or asked.prompt, seed=None, original=found[0].key)
        return await self._draw(visit, replace(payload, repeats=job_id))

    async def named(self, picture: str, text: str) -> bool:
        """Whether the text names an avatar that a picture, "2:job", shows."""
        job = await self._desk.records.jobs.get(picture.partition(":")[2])
        ids = job.payload.avatar_ids if job is not None and isinstance(job.payload, Imagine) else ()
        shown = [await self._desk.records.avatars.get(avatar_id) for avatar_id in ids]
        return any(avatar is not None and _named(avatar, text) for avatar in shown)

    async def seed(self, visit: Visit, job_id: str) -> Reply:
        """The Seed button: the command that draws each picture again, for the person who asked for it."""
        job, asked = await self._own(visit, job_id)
        return Reply(jobs.seeds(asked, await self._pictures(job)), private=True)

    async def remove(self, visit: Visit, job_id: str) -> Reply:
        """The Delete button: erase the pictures, records and files, for the person who asked for them."""
        job, _ = await self._own(visit, job_id)
        await self._pictures(job)
        for key in await self._desk.records.jobs.delete_pictures(job.id):
            await self._desk.blobs.delete(key)
        return Reply(jobs.removed(), private=True, spent=True)

    async def _own(self, visit: Visit, job_id: str) -> tuple[Job, Imagine]:
        job = await self._desk.job(job_id)
        if job.user_id != visit.user.id or not isinstance(job.payload, Imagine):
            raise UserError("not_yours")
        return job, job.payload

    async def _pictures(self, job: Job) -> list[Picture]:
        """The pictures left of a drawing, in order. Raises UserError picture_gone if there are none."""
        pictures = await self._desk.records.jobs.pictures(job.id)
        if not pictures:
            raise UserError("picture_gone")
        return pictures

    async def _asked(self, visit: Visit, job_id: str) -> Imagine:
        """What a drawing asked for, with the avatars that this person may draw here."""
        caller, user = visit.caller, visit.user
        job = await self._desk.job(job_id)
        in_this_room = (job.frontend, job.room) == (caller.platform, caller.room)
        if not isinstance(job.payload, Imagine) or not (in_this_room or job.user_id == user.id):
            raise UserError("not_yours")
        asked = job.payload
        usable = await self._desk.usable(visit)
        if not asked.avatar_ids:
            raise UserError("avatar_gone")
        ids = asked.avatar_ids
        if not set(ids) <= {one.id for one in usable}:
            if None not in [await self._desk.records.avatars.get(avatar_id) for avatar_id in ids]:
                raise UserError("not_shared")
            # The avatar was erased; there may be a new one with the same name.
            _, drawn = _avatars_named(asked.prompt, "", user, usable, None)
            ids = tuple(one.id for one in drawn)
        return replace(asked, avatar_ids=ids)

    async def _draw(self, visit: Visit, payload: Imagine) -> Reply:
        desk = self._desk
        if payload.original is not None and not await desk.blobs.exists(payload.original):
            raise UserError("picture_gone")
        async with desk.admission:
            await desk.check_jobs(visit.user)
            await desk.check_quota(visit.user, "pictures", payload.count)
            job = await desk.create_job(visit, payload)
        # Revoking a grant stops the jobs that exist at that moment; this one may have been created just after.
        if not set(payload.avatar_ids) <= {one.id for one in await desk.usable(visit)}:
            await desk.records.jobs.request_cancel(job.id)
            await desk.records.jobs.mark_delivered(job.id)
            raise UserError("not_shared")
        await desk.enqueue(job)
        return Reply(jobs.under_way(job, None, "queued", await desk.waiting(job)), job_id=job.id)

    async def how(self, visit: Visit, avatar_id: str) -> Reply:
        """The Imagine button of an avatar."""
        for avatar in await self._desk.usable(visit):
            if avatar.id == avatar_id:
                return Reply(avatars.how_to_imagine(avatar), private=True)
        raise UserError("avatar_gone" if await self._desk.records.avatars.get(avatar_id) is None else "not_yours")

    async def answer_imagine(self, job: Job) -> Message:
        """The message that ends a drawing. Pictures of somebody else's avatar say whose it is."""
        if job.state == State.CANCELLED:
            return jobs.cancelled(job, None)
        if job.state == State.FAILED:
            return jobs.failed(job)
        pictures = await self._desk.records.jobs.pictures(job.id)
        if not pictures:
            # Erased between the drawing and now, or afterwards by its person.
            assert isinstance(job.payload, Imagine)
            shown = [await self._desk.records.avatars.get(avatar_id) for avatar_id in job.payload.avatar_ids]
            return refusals.refusal(UserError("avatar_gone" if None in shown else "picture_gone"))
        drawn = [(picture.key, picture.seed) for picture in pictures]
        return jobs.drawn(job, drawn, await self._owners(job), await self._repeated(job))

    async def _repeated(self, job: Job) -> Imagine | None:
        """What the drawing asked for under which a button asked for this one, if it was drawn and is still known."""
        assert isinstance(job.payload, Imagine)
        source = await self._desk.records.jobs.get(job.payload.repeats) if job.payload.repeats else None
        if source is None or source.state != State.SUCCEEDED:
            return None
        return source.payload if isinstance(source.payload, Imagine) else None

    async def _owners(self, job: Job) -> list[tuple[str, str]]:
        assert isinstance(job.payload, Imagine)
        owners = []
        for avatar_id in job.payload.avatar_ids:
            avatar = await self._desk.records.avatars.get(avatar_id)
            if avatar is not None and avatar.owner_id != job.user_id:
                owners.append((avatar.token, await self._desk.name_of(avatar.owner_id, job.frontend)))
        return owners


def _avatars_named(
    prompt: str, chosen: str, user: User, usable: list[Avatar], default: Avatar | None
) -> tuple[str, list[Avatar]]:
    """The prompt, completed by the name of an avatar that it lacks, and the avatars to draw.

    chosen: the token given by --avatar, or "". default: drawn if neither names an avatar.
    """
    # A person's own avatar takes precedence over a shared one of the same name, and a trained one over a failed one.
    ranked = sorted(usable, key=lambda avatar: (avatar.state == "ready", avatar.owner_id == user.id))
    known = {avatar.token: avatar for avatar in ranked}
    words = re.findall(r"\w+", prompt.lower())  # as `naming.mentions` has them
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


def _named(avatar: Avatar, text: str) -> bool:
    return naming.mentions(text, avatar.token)


def _naming(prompt: str, avatar: Avatar) -> str:
    """The prompt about this avatar: "a woman in a suit" becomes "mia7 woman in a suit"."""
    noun = re.compile(rf"\b(?:(?:an?|the|my)\s+)?{re.escape(avatar.noun)}\b", re.IGNORECASE)
    subject = f"{avatar.token} {avatar.noun}"
    return noun.sub(subject, prompt, count=1) if noun.search(prompt) else f"{subject}, {prompt}"
