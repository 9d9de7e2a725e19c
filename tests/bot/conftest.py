"""A bot over real records, with an engine in the test that takes jobs and ends them as told."""

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image, ImageDraw

from bot.commands.commands import Commands
from bot.frontends.chat.bot import Chat
from bot.frontends.chat.sessions import Signer
from bot.messages import Caller, Message, Reply, Upload
from storage.blobs import MemoryBlobs
from storage.events import Event, MemoryEvents
from storage.jobs import Imagine, Inspect, State, Train
from storage.open import Storage
from storage.records import Avatar, Job, Records

GOOD = {"ok": True, "codes": ["ok"], "facts": {}}
TWO_FACES = {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}}


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
    """Takes queued jobs like the real one, through the records alone."""

    records: Records
    blobs: MemoryBlobs
    events: MemoryEvents
    verdicts: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By photo number, from 1; the others are good."""
    errors: dict[type, dict[str, Any]] = field(default_factory=dict)
    """By payload: the error that such a job ends with."""
    pause: float = 0.0
    """Seconds between two steps."""
    steps: int = 4
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Trainings stop in the middle until it is set."""
    seen: list[Job] = field(default_factory=list)
    held: Collection[str] = ()
    """The ids of jobs that somebody else is at."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def run(self) -> None:
        # Not cancelled but asked to stop, or a query that is cut off leaves its connection open.
        self.stopping.clear()
        while not self.stopping.is_set():
            await self.work_off()
            await asyncio.sleep(0.02)

    async def work_off(self) -> None:
        for queued in await self.records.unheld(self.held):
            job = await self.records.claim(queued.id)
            if job is not None:
                self.seen.append(job)
                await self.end(job)

    async def tell(self, job: Job, code: str, /, **facts: Any) -> None:
        await self.events.publish(Event(job.id, job.attempt, code, facts))

    async def end(self, job: Job) -> None:
        await self.tell(job, "started")
        if error := self.errors.get(type(job.payload)):
            await self.records.finish(job.id, job.attempt, State.FAILED, error=error)
            await self.tell(job, "failed", code=error["code"])
            return
        for step in range(1, self.steps + 1):
            if self.pause and not isinstance(job.payload, Inspect):
                await asyncio.sleep(self.pause)
            if await self.records.renew(job.id, job.attempt) == "cancel":
                await self.records.finish(job.id, job.attempt, State.CANCELLED)
                await self.tell(job, "cancelled")
                return
            if isinstance(job.payload, Train) and step > self.steps / 2:
                await self.gate.wait()
            left = (self.steps - step) * max(self.pause, 0.5)
            await self.tell(job, "step", step=step, steps=self.steps, seconds_left=left)
        result, pictures = await self.outcome(job)
        await self.records.finish(job.id, job.attempt, State.SUCCEEDED, result=result, pictures=pictures)
        await self.tell(job, "done")

    async def outcome(self, job: Job) -> tuple[dict[str, Any], list[tuple[str, int]]]:
        match job.payload:
            case Inspect(avatar_id=avatar_id):
                photos = await self.records.photos(avatar_id)
                verdicts = [self.verdicts.get(number, GOOD) for number in range(1, len(photos) + 1)]
                await self.records.photo_verdicts(avatar_id, verdicts)
                return {"verdicts": verdicts}, []
            case Train(avatar_id=avatar_id):
                samples = [f"samples/{avatar_id}/{job.id}-{job.attempt}/{n}.png" for n in range(4)]
                for n, key in enumerate(samples):
                    await self.blobs.put(key, drawing(n))
                adapter = f"adapters/{avatar_id}/adapter.safetensors"
                await self.blobs.put(adapter, b"weights")
                details = {"recipe": {}, "samples": samples, "likeness": 0.84}
                await self.records.avatar_set(avatar_id, state="ready", adapter_key=adapter, details=details)
                return {"steps": 400, "seconds": 190.0, "samples": samples, "recipe": {}, "cartoon": True}, []
            case Imagine(count=count, seed=seed):
                pictures = []
                for n in range(count):
                    key = f"pictures/{job.id}/{n}.png"
                    await self.blobs.put(key, drawing((seed or 7) + n))
                    pictures.append((key, (seed or 7) + n))
                shown = [{"key": key, "seed": number} for key, number in pictures]
                return {"seconds": 2.0, "cartoon": True, "pictures": shown}, pictures


@dataclass
class NoQueue:
    """The test's engine looks into the records, so nothing has to be queued."""

    offered: list[str] = field(default_factory=list)
    """Styles."""

    async def enqueue(self, job: Job) -> bool:
        return True

    async def styles(self) -> list[str]:
        return self.offered


async def album(photos: Iterable[bytes]) -> AsyncIterator[Upload]:
    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    for photo in photos:
        yield Upload(chunks(photo))


@dataclass
class Bot:
    """All of it together, and what a person does with it."""

    records: Records
    blobs: MemoryBlobs
    events: MemoryEvents
    queue: NoQueue
    commands: Commands
    engine: Engine

    def caller(self, name: str = "Anna", room: str = "studio") -> Caller:
        return Caller("chat", name.lower(), name, room)

    async def say(
        self, text: str, photos: int | Iterable[bytes] = 0, name: str = "Anna", room: str = "studio"
    ) -> Reply:
        sent = [b"photo %d" % n for n in range(photos)] if isinstance(photos, int) else photos
        return await self.commands.line(self.caller(name, room), text, album(sent), consent=True)

    async def press(self, action: str, name: str = "Anna", room: str = "studio") -> Reply:
        return await self.commands.press(self.caller(name, room), action)

    async def answer(self, reply: Reply) -> Message:
        """Let the engine work and compose the answer of the reply's job."""
        assert reply.job_id is not None, reply.message.text
        await self.engine.work_off()
        # Where the engine runs by itself, it may have taken the job already.
        async with asyncio.timeout(5):
            while not (job := await self.records.job(reply.job_id)) or not job.over:
                await asyncio.sleep(0.01)
        return await self.commands.answer(job)

    async def avatar(self, token: str = "mia7", name: str = "Anna") -> Avatar:
        """A trained avatar."""
        checked = await self.answer(await self.say(f"/train {token} woman", 6, name=name))
        await self.answer(await self.press(checked.buttons[0].action, name=name))
        owner = await self.records.user("chat", name.lower(), name)
        return next(avatar for avatar in await self.records.avatars_of(owner.id) if avatar.token == token)

    async def kept(self) -> list[str]:
        return list(await self.blobs.list())


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    records = await Records.open(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite")
    blobs, events, queue = MemoryBlobs(), MemoryEvents(), NoQueue()
    commands = Commands(records, blobs, queue, events)
    yield Bot(records, blobs, events, queue, commands, Engine(records, blobs, events))
    await records.close()


@pytest.fixture
async def chat(bot: Bot, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a served chat with its delivery loop and the test's engine at work."""
    storage = Storage(bot.records, bot.blobs, bot.queue, bot.events)  # type: ignore[arg-type]
    served = Chat(storage, Signer.at(tmp_path / "chat.key"), operators=["chat:olga"])
    served.delivery._edit_every = served.delivery._sweep_every = 0.05
    runner = web.AppRunner(served.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    delivery, engine = asyncio.create_task(served.delivery.run()), asyncio.create_task(bot.engine.run())
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    delivery.cancel()
    bot.engine.gate.set()
    bot.engine.stopping.set()
    await asyncio.gather(delivery, engine, return_exceptions=True)
    await runner.cleanup()


@pytest.fixture
def draw() -> Callable[..., bytes]:
    return drawing
