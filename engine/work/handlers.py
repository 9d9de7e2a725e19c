"""The jobs: claim one, bring its files to the GPU process, tell the news, write down how it ended.

Every write is fenced by the attempt that `claim` gave: a later attempt's claim makes an earlier one's writes nothing.
"""

import asyncio
import hashlib
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from engine.work.gpu_client import Cancelled, Gpu, GpuDied, News, Refused
from storage.blobs import Blobs
from storage.cancellation import uninterrupted
from storage.errors import UnknownBlob, UserError
from storage.events import Event, Events
from storage.jobs import PHOTOS_FEWEST, Imagine, Inspect, JobKind, State, Train
from storage.open import Storage
from storage.queue import Handler
from storage.records import AdapterOutcome, Avatar, Job, Records

RENEW = 1.0
"""Seconds between two looks whether a job is still ours and still wanted."""

ADAPTER = "adapter.safetensors"
"""As `engine.adapters.adapters.FILE`, which comes with torch."""

CHECKPOINT = "checkpoint.safetensors"

log = logging.getLogger(__name__)


class Tasks:
    """The handlers of the three kinds of jobs, on one GPU process and one storage."""

    def __init__(self, storage: Storage, gpu: Gpu, work: Path) -> None:
        self._records: Records = storage.records
        self._blobs: Blobs = storage.blobs
        self._events: Events = storage.events
        self._queue = storage.queue
        self._gpu = gpu
        self._work = work

    def handlers(self) -> Mapping[JobKind, Handler]:
        """What `storage.queue.work` runs."""
        return {
            JobKind.INSPECT: lambda job: self._run(job, self._inspect),
            JobKind.TRAIN: lambda job: self._run(job, self._train),
            JobKind.IMAGINE: lambda job: self._run(job, self._imagine),
        }

    async def takes(self, job: Job) -> bool:
        """Whether this engine has the job's style, or no other has it either."""
        style = job.payload.style if isinstance(job.payload, Imagine) else None
        if style is None or style in styles(self._work.parent):
            return True
        return style not in await self._queue.styles()

    async def _run(self, job: Job, task: Callable[["Attempt"], Coroutine[Any, Any, None]]) -> None:
        """Work on a job, and leave nothing behind once it is over."""
        try:
            await self._attempt(job, task)
        finally:
            await uninterrupted(self._forget_checkpoints(job.id))

    async def _forget_checkpoints(self, job_id: str) -> None:
        """Half-learned weights do not outlive their job, least of all one that was forgotten."""
        ended = await self._records.job(job_id)
        if ended is None or ended.over:
            await self._blobs.delete(f"checkpoints/{job_id}/")

    async def _attempt(self, job: Job, task: Callable[["Attempt"], Coroutine[Any, Any, None]]) -> None:
        """One attempt after another until the job is over: a GPU process that dies costs an attempt, not the job."""
        while claimed := await self._records.claim(job.id):
            attempt = Attempt(claimed, self._records, self._events)
            await attempt.tell(
                *(("started", {}) if claimed.attempt == 1 else ("retaken", {"attempt": claimed.attempt}))
            )
            try:
                with tempfile.TemporaryDirectory(dir=self._work, prefix=f"{job.id}-") as folder:
                    attempt.folder = Path(folder)
                    async with attempt.watched():
                        await task(attempt)
                break
            except GpuDied:
                log.warning("job %s lost its GPU process in attempt %d", job.id, claimed.attempt)
            except Refused as refused:
                await attempt.fail(refused.code, refused.facts)
            except (Cancelled, NotWanted):
                await attempt.finish(State.CANCELLED)
                await attempt.tell("cancelled", {})

    async def _inspect(self, attempt: "Attempt") -> None:
        payload = attempt.job.payload
        assert isinstance(payload, Inspect)
        avatar = await self._records.avatar(payload.avatar_id)
        if avatar is None:
            raise UserError("missing_avatar")
        photos = await self._records.photos(avatar.id)
        paths = await self._photos([photo.key for photo in photos], attempt.folder)
        verdicts = await inspected(paths, avatar.noun)
        await self._records.photo_verdicts(avatar.id, verdicts)
        await attempt.succeed({"verdicts": verdicts})

    async def _train(self, attempt: "Attempt") -> None:
        payload, folder = attempt.job.payload, attempt.folder
        assert isinstance(payload, Train)
        avatar = await self._records.avatar(payload.avatar_id)
        if avatar is None:
            raise UserError("missing_avatar")
        photos = await self._records.photos(avatar.id)
        good = [photo for photo in photos if photo.verdict is None or photo.verdict["ok"]]
        if len(good) < PHOTOS_FEWEST:
            raise UserError("no_good_photos", good=len(good), needed=PHOTOS_FEWEST)
        checkpoint = folder / CHECKPOINT
        with suppress(UnknownBlob):
            checkpoint.write_bytes(await self._blobs.get(f"checkpoints/{attempt.job.id}/{CHECKPOINT}"))
        paths = await self._photos([photo.key for photo in good], folder)

        def on_news(news: News) -> None:
            if news["news"] == "step":
                facts = {"step": news["step"], "steps": news["steps"], "seconds_left": round(news["seconds_left"], 1)}
                # Memory that ran short is told with the step, whose message stays.
                attempt.soon(attempt.tell("step", facts | ({"short": True} if news.get("short") else {})))
            elif news["news"] == "checkpoint":
                attempt.soon(self._keep_checkpoint(attempt, checkpoint))

        done = await self._gpu.run(
            "train", on_news, photos=[str(path) for path in paths], token=avatar.learned_as, noun=avatar.noun,
            method=payload.method, steps=payload.steps, seed=payload.seed, out=str(folder / "out"),
            checkpoint=str(checkpoint), priors=str(self._work.parent / "priors"),
        )  # fmt: skip
        # Keys hold the attempt, so an attempt that was overtaken cannot put its files in a later one's place.
        place = f"{avatar.id}/{attempt.job.id}-{attempt.job.attempt}"
        adapter = f"adapters/{place}/{ADAPTER}"
        samples = [f"samples/{place}/{number}.png" for number in range(len(done["samples"]))]
        await self._blobs.put(adapter, await read(done["adapter"]))
        for key, path in zip(samples, done["samples"], strict=True):
            await self._blobs.put(key, await read(path))
        result = {name: done[name] for name in ("steps", "seconds", "resumed_at", "recipe", "notice")} | {
            "samples": samples
        }
        details = {"recipe": done["recipe"], "samples": samples, "likeness": done["likeness"]}
        outcome = AdapterOutcome(avatar.id, adapter, details)
        if not await attempt.succeed(result, adapter=outcome):
            for key in (adapter, *samples):
                await self._blobs.delete(key)

    async def _keep_checkpoint(self, attempt: "Attempt", checkpoint: Path) -> None:
        key = f"checkpoints/{attempt.job.id}/{CHECKPOINT}"
        if await self._records.renew(attempt.job.id, attempt.job.attempt) == "go":
            await self._blobs.put(key, await read(checkpoint))

    async def _imagine(self, attempt: "Attempt") -> None:
        payload, folder = attempt.job.payload, attempt.folder
        assert isinstance(payload, Imagine)
        adapters: list[str] = []
        drawn: list[Avatar] = []
        for number, avatar_id in enumerate(payload.avatar_ids):
            avatar = await self._records.avatar(avatar_id)
            if avatar is None or avatar.adapter_key is None:
                raise UserError("missing_avatar")
            drawn.append(avatar)
            path = folder / str(number) / ADAPTER
            path.parent.mkdir()
            path.write_bytes(await self._blobs.get(avatar.adapter_key))
            adapters.append(str(path.parent))
        weights = [1.0] * len(adapters)
        if payload.style is not None:
            offered = styles(self._work.parent)
            if payload.style not in offered:
                raise UserError("unknown_style", style=payload.style, styles=[*offered])
            adapters.append(str(offered[payload.style]))
            weights.append(payload.style_weight)
        original = None
        if payload.original is not None:
            original = folder / "original.png"
            try:
                original.write_bytes(await self._blobs.get(payload.original))
            except UnknownBlob:
                raise UserError("picture_gone") from None
        drawing = {
            "prompt": as_learned(payload.prompt, drawn), "count": payload.count, "steps": payload.steps,
            "guidance": payload.guidance, "negative_prompt": payload.negative_prompt,
            "width": payload.width, "height": payload.height,
            "seed": seed_of(attempt.job.id) if payload.seed is None else payload.seed,
            "avatars": adapters, "weights": weights,
            "original": original and str(original), "strength": payload.strength,
        }  # fmt: skip
        done = await self._gpu.run("imagine", drawing=drawing, out=str(folder / "out"))
        pictures = [
            (f"pictures/{attempt.job.id}/{attempt.job.attempt}-{number}.png", picture["seed"])
            for number, picture in enumerate(done["pictures"])
        ]
        for (key, _), picture in zip(pictures, done["pictures"], strict=True):
            await self._blobs.put(key, await read(picture["path"]))
        result = {
            "seconds": done["seconds"], "notice": done["notice"],
            "pictures": [{"key": key, "seed": seed} for key, seed in pictures],
        }  # fmt: skip
        if not await attempt.succeed(result, pictures=pictures):
            for key, _ in pictures:
                await self._blobs.delete(key)

    async def _photos(self, keys: list[str], folder: Path) -> list[Path]:
        paths = [folder / f"photo-{number:02d}" for number in range(len(keys))]
        for key, path in zip(keys, paths, strict=True):
            path.write_bytes(await self._blobs.get(key))
        return paths


class NotWanted(Exception):
    """The job was cancelled by its person, or another attempt has it."""


class Attempt:
    """One attempt at a job: tells its news, watches whether it is still wanted, writes down its end."""

    def __init__(self, job: Job, records: Records, events: Events) -> None:
        self.job = job
        self.folder = Path()
        self._records, self._events = records, events
        self._tasks: set[asyncio.Task[None]] = set()

    async def tell(self, code: str, facts: dict[str, Any]) -> None:
        """Publish news of the job."""
        await self._events.publish(Event(self.job.id, self.job.attempt, code, facts))

    def soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something beside the attempt; it is over before the attempt is."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Within: once the job is cancelled or lost, the body is cancelled and NotWanted raised in its place."""
        body = asyncio.current_task()
        assert body
        unwanted = False

        async def watch() -> None:
            nonlocal unwanted
            # The flag is another process's, so nothing in this one could be awaited instead.
            while await self._records.renew(self.job.id, self.job.attempt) == "go":  # noqa: ASYNC110
                await asyncio.sleep(RENEW)
            unwanted = True
            body.cancel()

        watching = asyncio.create_task(watch(), name=f"watch job {self.job.id}")
        try:
            yield
        except asyncio.CancelledError:
            # Only our own cancellation turns into NotWanted: the process's end must go on up.
            if unwanted and body.uncancel() == 0:
                raise NotWanted from None
            raise
        finally:
            watching.cancel()
            await asyncio.gather(watching, *self._tasks, return_exceptions=True)

    async def succeed(
        self,
        result: dict[str, Any],
        *,
        pictures: list[tuple[str, int]] | None = None,
        adapter: AdapterOutcome | None = None,
    ) -> bool:
        """Write the success down. False if this attempt no longer runs the job."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        job = self.job
        written = await self._records.finish(
            job.id, job.attempt, State.SUCCEEDED, result, pictures=pictures or (), adapter=adapter
        )
        if written:
            await self.tell("done", {})
        return written

    async def fail(self, code: str, facts: dict[str, Any]) -> None:
        """Write the failure down."""
        if await self.finish(State.FAILED, {"code": code, "facts": facts}):
            await self.tell("failed", {"code": code})

    async def finish(self, state: State, error: dict[str, Any] | None = None) -> bool:
        """Write an end without result down. False if this attempt no longer runs the job."""
        return await self._records.finish(self.job.id, self.job.attempt, state, error=error)


async def inspected(photos: list[Path], noun: str) -> list[dict[str, Any]]:
    """The photos' verdicts, from a process of its own: files from strangers may crash or bloat a decoder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine", "inspect", "--json", "--class", noun, *map(str, photos),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"inspection ended with status {process.returncode}")
    return [
        {"ok": verdict["ok"], "codes": verdict["codes"], "facts": verdict["facts"]}
        for verdict in json.loads(output.splitlines()[-1])["verdicts"]
    ]


def as_learned(prompt: str, avatars: Sequence[Avatar]) -> str:
    """The prompt with what was learned in place of each token: "cr7d man", whatever the avatar is called by now."""
    by_word = {avatar.learned_as: avatar for avatar in avatars} | {avatar.token: avatar for avatar in avatars}
    if not by_word:
        return prompt

    def learned(found: re.Match[str]) -> str:
        avatar = by_word[found[0].lower()]
        follows = re.match(rf"\s+{avatar.noun}\b", prompt[found.end() :], re.IGNORECASE)
        return avatar.learned_as + ("" if follows else f" {avatar.noun}")

    return re.sub(rf"\b(?:{'|'.join(by_word)})\b", learned, prompt, flags=re.IGNORECASE)


def styles(home: Path) -> dict[str, Path]:
    """The styles that an engine of this data folder offers, by name: `styles/<name>` holds what finetune or import left
    there. A name is of small letters, digits and hyphens, 32 at most."""
    found = sorted((home / "styles").glob(f"*/{ADAPTER}"))
    return {path.parent.name: path.parent for path in found if re.fullmatch(r"[a-z0-9-]{1,32}", path.parent.name)}


async def read(path: str | Path) -> bytes:
    """A file's content, read off the loop."""
    return await asyncio.to_thread(Path(path).read_bytes)


def seed_of(job_id: str) -> int:
    """A seed below 2^32 that is the same in every attempt of the job."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4])


def sweep(work: Path) -> None:
    """Remove what attempts of killed supervisors left in the work folder: folders untouched for an hour."""
    for folder in work.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > 3600:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()
