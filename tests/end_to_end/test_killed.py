"""A training outlives whatever is killed under it: it goes on from its checkpoint and ends exactly once."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import pytest

from engine.measuring.evaluation import people
from engine.toon.world import album, render
from storage.events import Event
from storage.jobs import Imagine, Inspect, JobKind, State, Train
from storage.open import Storage, open_storage
from storage.records import Job
from storage.settings import StorageSettings
from tests.until import until

pytestmark = pytest.mark.slow
STEPS = 300
PATIENCE = 300.0
"""Seconds after which a test that hangs is ended; it measures nothing."""


@asynccontextmanager
async def engine(home: Path, base: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A real supervisor with its GPU process, ready for work."""
    environment = os.environ | {"AVATAR_HOME": str(home), "AVATAR_BASE_MODEL": str(base), "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine", "work", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"The engine is ready\n"
        yield process
    finally:
        await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    """Have an engine end, with all that it does."""
    if process.returncode is None:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


def gpu_process_of(supervisor: int) -> int:
    """The supervisor's child that holds the base model."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return next(int(pid) for pid in children if b"engine.work.gpu_process" in Path(f"/proc/{pid}/cmdline").read_bytes())


def redis_of(home: Path) -> int:
    """The embedded Redis of this data folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command, folder = (process / "cmdline").read_bytes(), (process / "cwd").readlink()
            except OSError:
                continue
            if b"valkey" in command and (str(home).encode() in command or folder.is_relative_to(home)):
                return int(process.name)
    raise AssertionError("the embedded Redis is not running")


class Watcher:
    """Collects the events of one storage and waits for some."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.seen = storage, list[Event]()
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self.storage.events.subscribe("0"):
            self.seen.append(event)

    async def step_after(self, attempt: int, step: int) -> Event:
        def found() -> Event | None:
            steps = (event for event in self.seen if event.code == "step" and event.attempt >= attempt)
            return next((event for event in steps if event.facts["step"] >= step), None)

        return await until(found, within=PATIENCE)

    async def end(self) -> None:
        """Wait for all events that have been published so far, and listen no longer."""
        await self.storage.events.publish(Event("the last", 0, "last", {}))
        await until(lambda: self.seen and self.seen[-1].code == "last")
        self.task.cancel()


async def send_album(storage: Storage) -> tuple[str, str]:
    """An avatar with eight drawn photos; the ids of its owner and itself."""
    person, keys = people(1)[0], []
    for number, scene in enumerate(album(person, 8, seed=0)):
        png = BytesIO()
        render(scene, 256).save(png, "PNG")
        keys.append(f"photos/test/{number}")
        await storage.blobs.put(keys[-1], png.getvalue())
    user = await storage.records.users.get_or_create("chat", "ann", "Ann")
    avatar = await storage.records.avatars.create(user.id, "zk7", person.noun, keys, "1")
    return user.id, avatar.id


async def ask(storage: Storage, kind: JobKind, user: str, payload: Inspect | Train | Imagine) -> Job:
    job = await storage.records.jobs.create(kind, user, "chat", "room", payload)
    await storage.queue.enqueue(job)
    return job


async def over(storage: Storage, job: Job) -> Job:
    async def ended() -> Job | None:
        found = await storage.records.jobs.get(job.id)
        return found if found and found.over else None

    return await until(ended, within=PATIENCE)


@pytest.mark.parametrize("victim", ["gpu process", "supervisor", "redis"])
async def test_a_training_goes_on_from_its_checkpoint_and_ends_once(victim, tiny_folder, tmp_path) -> None:
    home = tmp_path / "home"
    async with open_storage(StorageSettings(home=home)) as storage, engine(home, tiny_folder) as supervisor:
        watcher = Watcher(storage)
        user, avatar = await send_album(storage)
        inspected = await over(storage, await ask(storage, JobKind.INSPECT, user, Inspect(avatar)))
        assert [verdict["ok"] for verdict in inspected.result["verdicts"]] == [True] * 8

        job = await ask(storage, JobKind.TRAIN, user, Train(avatar, steps=STEPS))
        await watcher.step_after(1, 1)
        await until(lambda: storage.blobs.list("checkpoints/"), within=PATIENCE)
        killed = time.monotonic()
        if victim == "gpu process":
            os.kill(gpu_process_of(supervisor.pid), signal.SIGKILL)
            await watcher.step_after(2, 1)
        elif victim == "redis":
            reached = max(event.facts["step"] for event in watcher.seen if event.code == "step")
            os.kill(redis_of(home), signal.SIGKILL)
            await watcher.step_after(1, reached + 20)
        else:
            os.kill(supervisor.pid, signal.SIGKILL)
            await supervisor.wait()
            async with engine(home, tiny_folder):
                await watcher.step_after(2, 1)
                print(f"{victim} killed: training again after {time.monotonic() - killed:.1f} s")
                ended = await over(storage, job)
        if victim != "supervisor":
            print(f"{victim} killed: training again after {time.monotonic() - killed:.1f} s")
            ended = await over(storage, job)

        assert ended.state == State.SUCCEEDED, ended.error
        assert ended.attempt == (1 if victim == "redis" else 2)
        if victim != "redis":
            assert ended.result["resumed_at"] > 0
            first = min(event.facts["step"] for event in watcher.seen if event.code == "step" and event.attempt == 2)
            assert first > ended.result["resumed_at"]
        # Nothing more can come once the engine has ended.
        await stop(supervisor)
        await watcher.end()
        assert sum(event.code == "done" and event.job_id == job.id for event in watcher.seen) == 1
        assert [await storage.records.jobs.mark_delivered(job.id) for _ in range(2)] == [True, False]
        # One adapter, and its copies for other programs.
        assert len({key.rpartition("/")[0] for key in await storage.blobs.list("adapters/")}) == 1
        assert not await storage.blobs.list("checkpoints/")
        learned = await storage.records.avatars.get(avatar)
        assert learned.state == "ready" and 0 <= learned.details["likeness"] <= 1
        assert not list((home / "work").glob(f"{job.id}*")) or victim == "supervisor"


async def test_a_running_training_is_cancelled_and_leaves_nothing(tiny_folder, tmp_path) -> None:
    home = tmp_path / "home"
    async with open_storage(StorageSettings(home=home)) as storage, engine(home, tiny_folder) as supervisor:
        watcher = Watcher(storage)
        user, avatar = await send_album(storage)
        job = await ask(storage, JobKind.TRAIN, user, Train(avatar, steps=20_000))
        await watcher.step_after(1, 3)
        drawn = await over(storage, await ask(storage, JobKind.IMAGINE, user, Imagine("a man", count=2, steps=2)))
        assert drawn.state == State.SUCCEEDED
        assert len(await storage.records.jobs.pictures(drawn.id)) == 2
        await storage.records.jobs.request_cancel(job.id)
        ended = await over(storage, job)
        watcher.task.cancel()
        assert ended.state == State.CANCELLED

        async def clean() -> bool:
            blobs = [*await storage.blobs.list("checkpoints/"), *await storage.blobs.list("adapters/")]
            return not blobs and not list((home / "work").iterdir())

        await until(clean)
        await stop(supervisor)
        assert await clean()  # and nothing has come after


async def test_what_cannot_be_drawn_fails_with_its_code(tiny_folder, tmp_path) -> None:
    home = tmp_path / "home"
    async with open_storage(StorageSettings(home=home)) as storage, engine(home, tiny_folder):
        user = await storage.records.users.get_or_create("chat", "ann", "Ann")
        long = await over(storage, await ask(storage, JobKind.IMAGINE, user.id, Imagine("x" * 10_000)))
        lost = await over(storage, await ask(storage, JobKind.IMAGINE, user.id, Imagine("zk7", ("nobody",))))
        assert (long.state, long.error["code"]) == (State.FAILED, "prompt_too_long")
        assert (lost.state, lost.error["code"]) == (State.FAILED, "missing_avatar")
        assert not await storage.blobs.list("pictures/")
