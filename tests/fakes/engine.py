"""An engine for tests of the bot: it takes jobs from the records and ends them as the test says."""

import asyncio
import io
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

from storage.blobs import MemoryBlobs
from storage.events import Event, MemoryEvents
from storage.jobs import Imagine, Inspect, State, Train
from storage.records import Job, Records

GOOD = {"ok": True, "codes": ["ok"], "facts": {}}
TWO_FACES = {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}}

SEEN: dict[str, Any] = {
    "skin": 2,
    "hair_colour": "brown",
    "hair_length": "short",
    "facial_hair": "beard",
    "glasses": False,
    "hair_kind": "straight",
    "hair_tied": False,
    "beard_length": "full",
    "skin_srgb": "#e0b090",
    "hair_srgb": "#3a2a20",
    "confidence": {"skin": 0.9, "hair_colour": 0.8, "hair_length": 0.9, "facial_hair": 0.95, "glasses": 0.99},
    "photos": 8,
}
"""What an engine reads of somebody whom it sees well."""


def drawing(seed: int, size: int = 128) -> bytes:
    """A picture that is clearly this seed's, as PNG."""
    pick = random.Random(seed)
    picture = Image.new("RGB", (size, size), tuple(pick.randrange(90, 230) for _ in range(3)))  # type: ignore[arg-type]
    draw = ImageDraw.Draw(picture)
    skin, shirt = ("#edb98a", "#ae5d29", "#ffdbb4")[seed % 3], ("#3a6fd8", "#d93636", "#3c9d4e", "#8a4fbf")[seed % 4]
    draw.ellipse((size * 0.12, size * 0.66, size * 0.88, size * 1.5), fill=shirt)
    draw.ellipse((size * 0.28, size * 0.18, size * 0.72, size * 0.78), fill=skin)
    draw.pieslice((size * 0.26, size * 0.12, size * 0.74, size * 0.62), 180, 360, fill="#4a312c")
    for x in (0.42, 0.58):
        draw.ellipse((size * (x - 0.025), size * 0.44, size * (x + 0.025), size * 0.49), fill="#222")
    draw.arc((size * 0.41, size * 0.5, size * 0.59, size * 0.66), 20, 160, fill="#7a2f2f", width=3)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@dataclass
class Engine:
    """Takes queued jobs as the real engine does, through the records alone."""

    records: Records
    blobs: MemoryBlobs
    events: MemoryEvents
    verdicts: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By photo number, from 1; the others are good."""
    album: dict[str, Any] = field(default_factory=dict)
    """What photo checks tell besides the verdicts: looks, unknown_noun, left_out."""
    drawn_from: list[dict[str, Any] | None] = field(default_factory=list)
    """The looks that each training drew its album from."""
    remarks: dict[str, Any] = field(default_factory=dict)
    """What drawings tell besides their pictures: unknown, known, size."""
    errors: dict[type, dict[str, Any]] = field(default_factory=dict)
    """By payload: the error that such a job ends with."""
    pause: float = 0.0
    """Seconds between two steps."""
    steps: int = 4
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Trainings stop in the middle until it is set."""
    seen: list[Job] = field(default_factory=list)
    held: Collection[str] = ()
    """The ids of jobs that another engine holds."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end `run`."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def run(self) -> None:
        # Not cancelled but asked to stop, or a query that is cut off leaves its connection open.
        self.stopping.clear()
        while not self.stopping.is_set():
            await self.work_off()
            await asyncio.sleep(0.02)

    async def work_off(self) -> None:
        for queued in await self.records.jobs.active(self.held):
            job = await self.records.jobs.claim(queued.id)
            if job is not None:
                self.seen.append(job)
                await self.end(job)

    async def tell(self, job: Job, code: str, /, **facts: Any) -> None:
        await self.events.publish(Event(job.id, job.attempt, code, facts))

    async def end(self, job: Job) -> None:
        await self.tell(job, "started")
        if error := self.errors.get(type(job.payload)):
            await self.records.jobs.finish(job.id, job.attempt, State.FAILED, error=error)
            await self.tell(job, "failed", code=error["code"])
            return
        for step in range(1, self.steps + 1):
            if self.pause and not isinstance(job.payload, Inspect):
                await asyncio.sleep(self.pause)
            if await self.records.jobs.renew(job.id, job.attempt) == "cancel":
                await self.records.jobs.finish(job.id, job.attempt, State.CANCELLED)
                await self.tell(job, "cancelled")
                return
            if isinstance(job.payload, Train) and step > self.steps / 2:
                await self.gate.wait()
            left = (self.steps - step) * max(self.pause, 0.5)
            await self.tell(job, "step", step=step, steps=self.steps, seconds_left=left)
        result, pictures = await self.outcome(job)
        await self.records.jobs.finish(job.id, job.attempt, State.SUCCEEDED, result=result, pictures=pictures)
        await self.tell(job, "done")

    async def outcome(self, job: Job) -> tuple[dict[str, Any], list[tuple[str, int]]]:
        match job.payload:
            case Inspect(avatar_id=avatar_id):
                photos = await self.records.avatars.photos(avatar_id)
                verdicts = [self.verdicts.get(number, GOOD) for number in range(1, len(photos) + 1)]
                await self.records.avatars.set_verdicts(avatar_id, verdicts)
                if looks := self.album.get("looks"):
                    await self.records.avatars.update(avatar_id, details={"looks": looks})
                return {"verdicts": verdicts, **self.album}, []
            case Train(avatar_id=avatar_id):
                samples = [f"samples/{avatar_id}/{job.id}-{job.attempt}/{n}.png" for n in range(4)]
                for n, key in enumerate(samples):
                    await self.blobs.put(key, drawing(n))
                adapter = f"adapters/{avatar_id}/adapter.safetensors"
                await self.blobs.put(adapter, b"weights")
                avatar = await self.records.avatars.get(avatar_id)
                looks = avatar.details.get("looks") if avatar else None
                self.drawn_from.append(looks)
                details = {"recipe": {}, "samples": samples, "likeness": 0.84} | ({"looks": looks} if looks else {})
                await self.records.avatars.update(avatar_id, state="ready", adapter_key=adapter, details=details)
                return {"steps": 400, "seconds": 190.0, "samples": samples, "recipe": {}, "cartoon": True}, []
            case Imagine(count=count, seed=seed):
                pictures = []
                for n in range(count):
                    key = f"pictures/{job.id}/{n}.png"
                    await self.blobs.put(key, drawing((seed or 7) + n))
                    pictures.append((key, (seed or 7) + n))
                shown = [{"key": key, "seed": number} for key, number in pictures]
                return {"seconds": 2.0, "cartoon": True, "pictures": shown, **self.remarks}, pictures


@dataclass
class NoQueue:
    """The test's engine looks into the records, so nothing has to be queued."""

    offered: list[str] = field(default_factory=list)
    """Styles."""

    async def enqueue(self, job: Job) -> bool:
        return True

    async def styles(self) -> list[str]:
        return self.offered
