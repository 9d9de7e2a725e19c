"""The handlers of jobs: claim a job, fetch its files, ask the GPU process to work, publish events, record the end.

Blobs are fetched and stored as files in the attempt's folder. An adapter has up to 0.5 GB and a large model's
checkpoint 10 GB, which must neither fill the supervisor's memory nor block the event loop that renews leases of 5 s.
"""

import asyncio
import hashlib
import json
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from engine.adapters.file import FILE
from engine.photos.selection import select
from engine.sentences import sentence
from engine.work.attempt import RENEW, Attempt, NotWanted
from engine.work.gpu_client import GpuClient, GpuDied, News, RequestFailed
from storage import keys
from storage import looks as looked
from storage.atomic import full_disk_told
from storage.blobs import Blobs
from storage.cancellation import uninterrupted
from storage.errors import UnknownBlob, UserError
from storage.events import Events
from storage.jobs import PHOTOS_FEWEST, Imagine, Inspect, JobKind, State, Train
from storage.open import Storage
from storage.queue import Handler
from storage.records import AdapterOutcome, Avatar, Job, Records

CHECKPOINT = "checkpoint.safetensors"

LEFT_BEHIND = 3600.0
"""Age in seconds of an attempt's folder from which on it counts as left behind by a killed supervisor."""

log = logging.getLogger(__name__)


class Handlers:
    """The handlers of the three kinds of jobs, on one GPU process and one storage.

    work: the folder for the attempts' folders. Its parent is the data folder, which holds `styles` and `priors` too.
    renew: seconds between two checks whether a job is still wanted.
    """

    def __init__(self, storage: Storage, gpu: GpuClient, work: Path, renew: float = RENEW) -> None:
        self._records: Records = storage.records
        self._blobs: Blobs = storage.blobs
        self._events: Events = storage.events
        self._queue = storage.queue
        self._gpu = gpu
        self._work = work
        self._styles = partial(styles, work.parent)
        self._priors = work.parent / "priors"
        self._renew = renew

    def by_kind(self) -> Mapping[JobKind, Handler]:
        """The handlers as `storage.queue.work` takes them."""
        return dict.fromkeys(JobKind, self.run)

    async def accepts(self, job: Job) -> bool:
        """Whether this engine has the job's style, or no other engine has it either."""
        style = job.payload.style if isinstance(job.payload, Imagine) else None
        if style is None or style in self._styles():
            return True
        return style not in await self._queue.styles()

    async def run(self, job: Job) -> None:
        """Work on a job until it is over, and leave no checkpoint of it behind.

        A UserError is recorded as the job's failure, with its code and facts. Other exceptions are raised to the queue.
        """
        try:
            # If the GPU process dies, only the attempt fails; the job gets another one.
            while claimed := await self._records.jobs.claim(job.id):
                if await self._attempt(claimed):
                    break
        finally:
            await uninterrupted(self._delete_checkpoint(job.id))

    async def _attempt(self, job: Job) -> bool:
        """Make one attempt at a claimed job. True if the job is over, False if it needs another attempt."""
        attempt = Attempt(job, self._records, self._events, self._renew)
        if job.attempt == 1:
            await attempt.publish("started")
        else:
            await attempt.publish("retaken", attempt=job.attempt)
        try:
            async with self._folder(job.id) as folder, attempt.watched():
                await self._dispatch(attempt, folder)
        except GpuDied:
            log.warning("job %s lost its GPU process in attempt %d", job.id, job.attempt)
            return False
        except UserError as error:
            if error.code == "disk_full":
                log.error("job %s: %s", job.id, sentence(error))
            await attempt.fail(error.code, error.facts)
        except RequestFailed:
            await attempt.fail("internal", {})
        except NotWanted:
            await attempt.cancel()
        finally:
            await uninterrupted(self._delete_unrecorded(job))
        return True

    @asynccontextmanager
    async def _folder(self, job_id: str) -> AsyncIterator[Path]:
        """A folder for one attempt. It is removed in a thread: a file of 10 GB takes a while."""
        with full_disk_told(self._work):
            folder = tempfile.TemporaryDirectory(dir=self._work, prefix=f"{job_id}-")
        try:
            yield Path(folder.name)
        finally:
            await uninterrupted(asyncio.to_thread(folder.cleanup))

    async def _delete_checkpoint(self, job_id: str) -> None:
        """Delete the checkpoint of a job that is over, or was erased together with its person."""
        job = await self._records.jobs.get(job_id)
        if job is None or job.over:
            await self._blobs.delete(keys.checkpoints(job_id))

    async def _delete_unrecorded(self, job: Job) -> None:
        """Delete what this attempt stored, unless it succeeded: it was cancelled, lost the job, or failed."""
        now = await self._records.jobs.get(job.id)
        if now is not None and now.state == State.SUCCEEDED and now.attempt == job.attempt:
            return
        match job.payload:
            case Train(avatar_id=avatar_id):
                for prefix in keys.learned(avatar_id, job.id, job.attempt):
                    await self._blobs.delete(prefix)
            case Imagine():
                for key in await self._blobs.list(keys.drawn(job.id, job.attempt)):
                    await self._blobs.delete(key)

    async def _dispatch(self, attempt: Attempt, folder: Path) -> None:
        match attempt.job.payload:
            case Inspect() as inspect:
                await self._inspect(attempt, inspect, folder)
            case Train() as train:
                await self._train(attempt, train, folder)
            case Imagine() as imagine:
                await self._imagine(attempt, imagine, folder)
            case payload:
                assert_never(payload)

    async def _inspect(self, attempt: Attempt, inspect: Inspect, folder: Path) -> None:
        # 1. The verdicts, and what the person looks like.
        avatar, model = await self._avatar(inspect.avatar_id), await self._gpu.model()
        photos = await self._records.avatars.photos(avatar.id)
        paths = await self._fetch_photos([photo.key for photo in photos], folder)
        verdicts, looks = await inspected(paths, avatar.noun)
        await self._records.avatars.set_verdicts(avatar.id, verdicts)
        result: dict[str, Any] = {"verdicts": verdicts}
        taken = [one.token for one in await self._records.avatars.owned_by(avatar.owner_id)]
        token = await self._gpu.run("token", token=avatar.token, noun=avatar.noun, taken=taken)
        if token["known"]:
            result["token"] = {name: token[name] for name in ("known", "proposal")}

        # 2. What this base will make of the album.
        good = [verdict for verdict in verdicts if verdict["ok"]]
        known = model["nouns"] is None or avatar.noun in model["nouns"]
        if not known:
            result["unknown_noun"] = True
        selection = select(bool(model["drawings"]) and known, [_is_drawn(verdict) for verdict in good])
        if selection.left_out:
            result["left_out"] = {"drawings" if selection.redrawn else "photos": selection.left_out}
        if selection.redrawn and good:
            result["looks"] = looks or looked.unknown()
            # A later attempt's answer may have been corrected by now.
            if await attempt.wanted():
                details = {**avatar.details, "looks": result["looks"]}
                await self._records.avatars.update(avatar.id, details=details)
        await attempt.succeed(result)

    async def _train(self, attempt: Attempt, train: Train, folder: Path) -> None:
        # 1. The photos, and the checkpoint of an earlier attempt.
        avatar = await self._avatar(train.avatar_id)
        photos = await self._records.avatars.photos(avatar.id)
        good = [photo for photo in photos if photo.verdict is None or photo.verdict["ok"]]
        if len(good) < PHOTOS_FEWEST:
            raise UserError("no_good_photos", good=len(good), needed=PHOTOS_FEWEST)
        checkpoint = folder / CHECKPOINT
        with suppress(UnknownBlob):
            await self._blobs.fetch(_checkpoint_key(attempt), checkpoint)
        anew = attempt.job.attempt > 1 and not checkpoint.exists()
        paths = await self._fetch_photos([photo.key for photo in good], folder)

        # 2. The training, with its events.
        storing = asyncio.Lock()

        async def store_checkpoint() -> None:
            # The lock keeps the order, so that an older checkpoint never replaces a newer one.
            async with storing:
                if await attempt.wanted():
                    try:
                        await self._blobs.store(_checkpoint_key(attempt), checkpoint)
                    except UserError as error:
                        log.warning("job %s goes on without its checkpoint: %s", attempt.job.id, sentence(error))

        def on_news(news: News) -> None:
            if news["news"] == "step":
                facts = {"step": news["step"], "steps": news["steps"], "seconds_left": round(news["seconds_left"], 1)}
                # Short memory and a new beginning are facts of the step event: their messages stay in the chat.
                notes = {"short": news.get("short"), "anew": anew or news.get("anew")}
                attempt.start(
                    attempt.publish("step", **facts, **{name: True for name, is_so in notes.items() if is_so})
                )
            elif news["news"] == "checkpoint":
                attempt.start(store_checkpoint())

        done = await self._gpu.run(
            "train",
            on_news,
            photos=[str(path) for path in paths],
            token=avatar.learned_as,
            noun=avatar.noun,
            method=train.method,
            steps=train.steps,
            seed=train.seed,
            out=str(folder / "out"),
            checkpoint=str(checkpoint),
            priors=str(self._priors),
            looks=avatar.details.get("looks"),
        )

        # 3. The adapter, the samples, and the files for other programs. Keys contain the attempt, so that an attempt
        # never overwrites a later one's.
        job = attempt.job
        adapter = keys.adapter(avatar.id, job.id, job.attempt, FILE)
        samples = [keys.sample(avatar.id, job.id, job.attempt, number) for number in range(len(done["samples"]))]
        await self._blobs.store(adapter, Path(done["adapter"]))
        for key, path in zip(samples, done["samples"], strict=True):
            await self._blobs.store(key, Path(path))
        exports = {}
        for form, path in done.get("exports", {}).items():
            exports[form] = keys.adapter(avatar.id, job.id, job.attempt, Path(path).name)
            await self._blobs.store(exports[form], Path(path))
        result = {name: done[name] for name in ("steps", "seconds", "resumed_at", "recipe", "notice")}
        details = {"recipe": done["recipe"], "samples": samples, "likeness": done["likeness"]}
        if exports:
            details["exports"] = exports
        if done["looks"] is not None:
            details["looks"] = done["looks"]
        outcome = AdapterOutcome(avatar.id, adapter, details)
        await attempt.succeed(result | {"samples": samples}, adapter=outcome)

    async def _imagine(self, attempt: Attempt, imagine: Imagine, folder: Path) -> None:
        # 1. The adapters, and the picture to vary.
        adapters: list[str] = []
        avatars: list[Avatar] = []
        for number, avatar_id in enumerate(imagine.avatar_ids):
            avatar = await self._avatar(avatar_id)
            if avatar.adapter_key is None:
                raise UserError("missing_avatar")
            own = folder / str(number)
            own.mkdir()
            await self._blobs.fetch(avatar.adapter_key, own / FILE)
            avatars.append(avatar)
            adapters.append(str(own))
        weights = [1.0] * len(adapters)
        if imagine.style is not None:
            offered = self._styles()
            if imagine.style not in offered:
                raise UserError("unknown_style", style=imagine.style, styles=[*offered])
            adapters.append(str(offered[imagine.style]))
            weights.append(imagine.style_weight)
        original = None
        if imagine.original is not None:
            original = folder / "original.png"
            try:
                await self._blobs.fetch(imagine.original, original)
            except UnknownBlob:
                raise UserError("picture_gone") from None

        # 2. The drawing.
        drawing = {
            "prompt": as_learned(imagine.prompt, avatars),
            "count": imagine.count,
            "steps": imagine.steps,
            "guidance": imagine.guidance,
            "negative_prompt": imagine.negative_prompt,
            "width": imagine.width,
            "height": imagine.height,
            "seed": seed_of(attempt.job.id) if imagine.seed is None else imagine.seed,
            "avatars": adapters,
            "weights": weights,
            "original": original and str(original),
            "strength": imagine.strength,
        }
        done = await self._gpu.run("imagine", drawing=drawing, out=str(folder / "out"))

        # 3. The pictures.
        pictures = [
            (keys.picture(attempt.job.id, attempt.job.attempt, number), picture["seed"])
            for number, picture in enumerate(done["pictures"])
        ]
        for (key, _), picture in zip(pictures, done["pictures"], strict=True):
            await self._blobs.store(key, Path(picture["path"]))
        result = {
            "seconds": done["seconds"],
            "notice": done["notice"],
            "pictures": [{"key": key, "seed": seed} for key, seed in pictures],
            **done["remarks"],
        }
        # What the base model could not make use of.
        result |= {name: done[name] for name in ("unread", "weights_ignored") if done.get(name)}
        await attempt.succeed(result, pictures=pictures)

    async def _avatar(self, avatar_id: str) -> Avatar:
        """The avatar. Raises UserError `missing_avatar`."""
        avatar = await self._records.avatars.get(avatar_id)
        if avatar is None:
            raise UserError("missing_avatar")
        return avatar

    async def _fetch_photos(self, photo_keys: Sequence[str], folder: Path) -> list[Path]:
        """Fetch the photos with these blob keys into `folder`; return the files' paths."""
        paths = [folder / f"photo-{number:02d}" for number in range(len(photo_keys))]
        for key, path in zip(photo_keys, paths, strict=True):
            await self._blobs.fetch(key, path)
        return paths


def _is_drawn(verdict: Mapping[str, Any]) -> bool:
    return "drawn" in verdict["codes"]


async def inspected(photos: Sequence[Path], noun: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The photos' verdicts, and what the person in them looks like, None if no photo shows a face.

    They come from a separate process: a file may crash a decoder or make it use too much memory.

    Raises RuntimeError if that process fails.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine", "inspect", "--json", "--class", noun, *map(str, photos)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"inspection ended with status {process.returncode}")
    report = json.loads(output.splitlines()[-1])
    verdicts = [{name: verdict[name] for name in ("ok", "codes", "facts")} for verdict in report["verdicts"]]
    return verdicts, report["looks"]


def as_learned(prompt: str, avatars: Sequence[Avatar]) -> str:
    """The prompt with each avatar's token replaced by what its adapter was trained on, such as "cr7d man": the token
    before a renaming, and the class noun."""
    by_word = {avatar.learned_as: avatar for avatar in avatars} | {avatar.token: avatar for avatar in avatars}
    if not by_word:
        return prompt

    def learned(found: re.Match[str]) -> str:
        avatar = by_word[found[0].lower()]
        follows = re.match(rf"\s+{avatar.noun}\b", prompt[found.end() :], re.IGNORECASE)
        return avatar.learned_as + ("" if follows else f" {avatar.noun}")

    return re.sub(rf"\b(?:{'|'.join(by_word)})\b", learned, prompt, flags=re.IGNORECASE)


def styles(home: Path) -> dict[str, Path]:
    """The folders of the styles in a data folder, by name: `styles/<name>`, written by `finetune` or `import`.

    A name has 1 to 32 small letters, digits and hyphens.
    """
    found = sorted((home / "styles").glob(f"*/{FILE}"))
    return {path.parent.name: path.parent for path in found if re.fullmatch(r"[a-z0-9-]{1,32}", path.parent.name)}


def seed_of(job_id: str) -> int:
    """A seed below 2^32 that is the same in every attempt of the job."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4])


def sweep(work: Path) -> None:
    """Remove folders of attempts from the work folder that killed supervisors left behind."""
    for folder in work.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > LEFT_BEHIND:
            shutil.rmtree(folder, ignore_errors=True)


def _checkpoint_key(attempt: Attempt) -> str:
    return keys.checkpoint(attempt.job.id, CHECKPOINT)
