import asyncio
import itertools
import logging
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from storage.arq_worker import tries_key
from storage.embedded import EmbeddedRedis
from storage.errors import UserError
from storage.events import MemoryEvents
from storage.jobs import SPECS, TERMINAL, Imagine, Inspect, JobKind, Payload, State, Train
from storage.queue import LEASE, Handler, Queue, _Lease, work
from storage.records import Job, Records
from tests.until import until

PAYLOADS: dict[JobKind, Payload] = {
    JobKind.INSPECT: Inspect("a"),
    JobKind.TRAIN: Train("a"),
    JobKind.IMAGINE: Imagine("cr7d man"),
}


async def create(records: Records, kind: JobKind = JobKind.IMAGINE) -> Job:
    user = await records.users.get_or_create("chat", "ann", "Ann")
    return await records.jobs.create(kind, user.id, "chat", "room", PAYLOADS[kind])


async def submit(records: Records, queue: Queue, kind: JobKind = JobKind.IMAGINE) -> Job:
    job = await create(records, kind)
    assert await queue.enqueue(job)
    return job


async def over(records: Records, job: Job) -> Job:
    async def ended() -> Job | None:
        row = await records.jobs.get(job.id)
        return row if row and row.state in TERMINAL else None

    return await until(ended)


async def seconds_until(condition: Callable[[], Awaitable[bool] | bool]) -> float:
    began = time.monotonic()
    await until(condition)
    return time.monotonic() - began


async def tries(queue: Queue, job: Job) -> int:
    """How often workers started the entries of this job, whatever came of it."""
    keys = await queue.redis.keys(tries_key(f"{job.id}-*"))
    return sum([int(await queue.redis.get(key) or 0) for key in keys])


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A server of the test's own, to be killed."""
    server = EmbeddedRedis(tmp_path / "redis")
    yield server
    await server.release()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Queue]:
    queue = Queue(url)
    try:
        yield queue
    finally:
        await queue.close()


@asynccontextmanager
async def working(records: Records, queue: Queue, handler: Handler, **options: object) -> AsyncIterator[None]:
    task = asyncio.create_task(work(dict.fromkeys(JobKind, handler), records, queue, **options))  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def succeeding(records: Records, during: Callable[[Job], Awaitable[None]] | None = None) -> Handler:
    async def handle(job: Job) -> None:
        if claimed := await records.jobs.claim(job.id):
            if during:
                await during(claimed)
            await records.jobs.finish(job.id, claimed.attempt, State.SUCCEEDED, {"attempt": claimed.attempt})

    return handle


async def entries(queue: Queue) -> int:
    return sum([await queue.redis.zcard(spec.queue) for spec in SPECS.values()])


async def test_jobs_of_every_kind_are_run_and_leave_nothing_in_redis(records: Records, queue: Queue) -> None:
    jobs = [await submit(records, queue, kind) for kind in JobKind]
    async with working(records, queue, succeeding(records)):
        for job in jobs:
            assert (await over(records, job)).state is State.SUCCEEDED

        async def empty() -> bool:
            return not await queue.redis.keys("arq:*") and not await queue.redis.keys("avatar:lease:*")

        await until(empty)


async def test_only_ids_travel_and_as_json(records: Records, queue: Queue) -> None:
    job = await submit(records, queue)
    (key,) = await queue.redis.keys("arq:job:*")
    assert key.decode().startswith(f"arq:job:{job.id}-")
    value = (await queue.redis.get(key)).decode()
    assert value.startswith("{") and job.id in value and "cr7d" not in value


async def test_the_gap_between_two_jobs_is_short(records: Records, queue: Queue) -> None:
    ran: list[tuple[float, float]] = []

    async def handle(job: Job) -> None:
        began = time.monotonic()
        await succeeding(records)(job)
        ran.append((began, time.monotonic()))

    jobs = [await submit(records, queue, JobKind.TRAIN) for _ in range(12)]
    async with working(records, queue, handle):
        for job in jobs:
            await over(records, job)
    gaps = [start - end for (_, end), (start, _) in itertools.pairwise(ran)]
    assert statistics.median(gaps) < 0.1, gaps


async def test_one_training_at_a_time_and_in_order(records: Records, queue: Queue) -> None:
    order: list[str] = []

    async def during(job: Job) -> None:
        assert len(order) % 2 == 0, "alone"
        order.append(job.id)
        await asyncio.sleep(0.1)
        order.append(job.id)

    jobs = []
    for _ in range(3):
        jobs.append(await submit(records, queue, JobKind.TRAIN))
        await asyncio.sleep(0.002)  # arq orders by milliseconds
    async with working(records, queue, succeeding(records, during)):
        for job in jobs:
            assert (await over(records, job)).state is State.SUCCEEDED
    assert order[::2] == [job.id for job in jobs]


async def test_what_a_handler_raises_ends_its_job(
    records: Records, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    events = MemoryEvents()
    raised: dict[JobKind, Exception] = {
        JobKind.TRAIN: UserError("no_good_photos", good=0, needed=3),
        JobKind.IMAGINE: RuntimeError("bug"),
        JobKind.INSPECT: TimeoutError(),  # its own, not the limit's
    }

    async def handle(job: Job) -> None:
        await records.jobs.claim(job.id)
        raise raised[job.kind]

    jobs = {kind: await submit(records, queue, kind) for kind in JobKind}
    caplog.set_level(logging.CRITICAL)
    async with working(records, queue, handle, events=events):
        errors = {kind: (await over(records, job)).error for kind, job in jobs.items()}
    assert errors[JobKind.TRAIN] == {"code": "no_good_photos", "facts": {"good": 0, "needed": 3}}
    assert errors[JobKind.IMAGINE] == errors[JobKind.INSPECT] == {"code": "internal", "facts": {}}
    heard = [await anext(events.subscribe("0"))]
    assert heard[0].code == "failed" and heard[0].job_id in {job.id for job in jobs.values()}


async def test_a_job_over_its_time_limit_is_stopped(
    records: Records, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = {kind: replace(spec, time_limit=0.3) for kind, spec in SPECS.items()}
    monkeypatch.setattr("storage.queue.SPECS", specs)
    stopped = asyncio.Event()

    async def during(job: Job) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    job = await submit(records, queue)
    async with working(records, queue, succeeding(records, during)):
        assert (await over(records, job)).error == {"code": "timeout", "facts": {"seconds": 0.3}}
    assert stopped.is_set()


@pytest.mark.parametrize("late", [False, True])
async def test_a_job_fails_in_the_second_attempt_of_one_run_too(
    records: Records, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    monkeypatch.setattr("storage.queue.SPECS", {kind: replace(spec, time_limit=0.3) for kind, spec in SPECS.items()})

    async def handle(job: Job) -> None:
        for _ in range(2):
            assert await records.jobs.claim(job.id)
        if late:
            await asyncio.sleep(60)
        raise RuntimeError("bug")

    job = await submit(records, queue)
    caplog.set_level(logging.CRITICAL)
    async with working(records, queue, handle):
        ended = await over(records, job)
    assert ended.attempt == 2 and ended.error is not None
    assert ended.error["code"] == ("timeout" if late else "internal")


def test_a_lease_that_lapsed_is_never_unbroken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("storage.queue.time.monotonic", lambda: now)
    lease = _Lease()
    for now in (102.0, 106.0):  # within LEASE of each other
        assert lease.unbroken
        lease.renew(now)
    assert lease.unbroken
    now = 106.0 + LEASE
    assert not lease.unbroken
    lease.renew(now)
    assert not lease.unbroken


async def test_a_cancelled_job_is_not_run(records: Records, queue: Queue) -> None:
    first, second = await submit(records, queue), await submit(records, queue)
    await records.jobs.request_cancel(first.id)
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)
        await succeeding(records)(job)

    async with working(records, queue, handle):
        await over(records, second)
    assert ran == [second.id]


async def test_a_stopped_worker_hands_its_job_back_at_once(records: Records, queue: Queue) -> None:
    started = asyncio.Event()

    async def forever(job: Job) -> None:
        started.set()
        await asyncio.sleep(60)

    job = await submit(records, queue, JobKind.TRAIN)
    async with working(records, queue, succeeding(records, forever)):
        await started.wait()
    assert await queue.redis.keys("avatar:lease:*") == [] == await queue.redis.keys("arq:in-progress:*")
    began = time.monotonic()
    async with working(records, queue, succeeding(records)):
        assert (await over(records, job)).result == {"attempt": 2}
    assert time.monotonic() - began < 3


# Redis comes and goes


async def test_an_emptied_queue_is_filled_from_the_records(records: Records, queue: Queue) -> None:
    queued, running = await submit(records, queue), await submit(records, queue)
    await records.jobs.claim(running.id)
    await queue.redis.flushall()
    found = await asyncio.gather(*(queue.reconcile(records) for _ in range(3)))
    assert {job.id for jobs in found for job in jobs} == {queued.id, running.id}
    assert await entries(queue) == 2, "once each"
    assert await queue.reconcile(records) == []
    async with working(records, queue, succeeding(records)):
        assert (await over(records, queued)).result == {"attempt": 1}
        assert (await over(records, running)).result == {"attempt": 2}


async def test_a_running_job_is_not_run_twice_when_redis_is_emptied(records: Records, queue: Queue) -> None:
    """Neither by this process, which joins what runs, nor by another, which finds the lease taken."""
    started, release, calls = asyncio.Event(), asyncio.Event(), []

    async def during(job: Job) -> None:
        calls.append(job.attempt)
        started.set()
        await release.wait()

    job = await submit(records, queue, JobKind.INSPECT)
    async with (
        working(records, queue, succeeding(records, during)),
        working(records, queue, succeeding(records, during)),
    ):
        await started.wait()
        await queue.redis.flushall()
        await until(lambda: queue.redis.keys("avatar:lease:*"))  # a heartbeat renewed the lease
        assert await queue.reconcile(records) == [], "its engine leases it"
        assert await queue.enqueue(job)  # as a reconciler would that came before the heartbeat
        await until(lambda: tries(queue, job))  # a worker started the second entry
        release.set()
        assert (await over(records, job)).result == {"attempt": 1}
    assert calls == [1]


async def test_redis_killed_while_a_job_runs(records: Records, embedded: EmbeddedRedis) -> None:
    """The server comes back with the queue; what runs goes on, what waits is run, nothing twice."""
    async with opened(await embedded.ensure()) as queue:
        watch = asyncio.create_task(embedded.watch())
        started, release, attempts = asyncio.Event(), asyncio.Event(), []

        async def during(job: Job) -> None:
            attempts.append((job.id, job.attempt))
            started.set()
            await release.wait()

        running, waiting = await submit(records, queue, JobKind.TRAIN), await submit(records, queue, JobKind.TRAIN)
        async with working(records, queue, succeeding(records, during)):
            await started.wait()
            os.kill(int((embedded.folder / "server.pid").read_text()), signal.SIGKILL)
            later = await submit(records, queue, JobKind.IMAGINE)  # Redis is back
            release.set()
            for job in (running, waiting, later):
                assert (await over(records, job)).result == {"attempt": 1}
        assert len(attempts) == 3
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_redis_away_for_longer_than_clients_try(
    records: Records, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """arq's workers die of it; ours start again, and a running job goes on with none beside it."""
    monkeypatch.setattr("storage.connect.RETRIES", 1)
    async with opened(await embedded.ensure()) as queue:
        started, release, trained = asyncio.Event(), asyncio.Event(), []

        async def during(job: Job) -> None:
            if job.kind is JobKind.TRAIN:
                trained.append("begin")
                started.set()
                await release.wait()
                trained.append("end")

        running, waiting = await submit(records, queue, JobKind.TRAIN), await submit(records, queue, JobKind.TRAIN)
        async with working(records, queue, succeeding(records, during)):
            await started.wait()
            await embedded.stop()
            await until(lambda: f"queue {SPECS[JobKind.INSPECT].queue} unreadable" in caplog.text)
            await embedded.ensure()
            release.set()
            for job in (running, waiting, await submit(records, queue, JobKind.INSPECT)):
                assert (await over(records, job)).result == {"attempt": 1}
        assert trained == ["begin", "end"] * 2


async def test_an_enqueue_without_redis_is_made_up_for(
    records: Records, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queue.PATIENCE", 0.3)
    async with opened(await embedded.ensure()) as queue:
        await embedded.stop()
        job = await create(records)
        assert not await queue.enqueue(job)
        await embedded.ensure()
        assert [found.id for found in await queue.reconcile(records)] == [job.id]


# engines come and go: real processes, killed for real


@asynccontextmanager
async def engine(
    name: str, redis_url: str, records_url: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    script = str(Path(__file__).with_name("engine.py"))
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = (redis_url, records_url, str(folder), name)
    process = await asyncio.create_subprocess_exec(sys.executable, script, *arguments, env=paths)
    try:
        await until((folder / f"ready.{name}").exists)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_another_engine_takes_over_from_a_killed_one(
    records: Records, queue: Queue, redis_url: str, records_url: str, tmp_path: Path
) -> None:
    at = (redis_url, records_url, tmp_path)
    async with engine("one", *at) as one:
        job = await submit(records, queue, JobKind.TRAIN)
        await until((tmp_path / f"{job.id}.1.one").exists)
        async with engine("two", *at):
            assert not (tmp_path / f"{job.id}.2.two").exists(), "one's lease is respected"
            one.kill()
            assert await seconds_until((tmp_path / f"{job.id}.2.two").exists) < 10
            assert not await records.jobs.finish(job.id, 1, State.SUCCEEDED, {"by": "one"}), (
                "what one might still write"
            )
            (tmp_path / "finish.two").touch()
            assert (await over(records, job)).result == {"by": "two", "attempt": 2}


async def test_a_frozen_engine_that_wakes_up_is_fenced_out(
    records: Records, queue: Queue, redis_url: str, records_url: str, tmp_path: Path
) -> None:
    at = (redis_url, records_url, tmp_path)
    async with engine("one", *at) as one, engine("two", *at) as two:
        job = await submit(records, queue, JobKind.TRAIN)
        by_one, by_two = tmp_path / f"{job.id}.1.one", tmp_path / f"{job.id}.1.two"
        await until(lambda: by_one.exists() or by_two.exists())
        taken = by_one.exists()
        frozen, first, second = (one, "one", "two") if taken else (two, "two", "one")
        frozen.send_signal(signal.SIGSTOP)
        (tmp_path / f"finish.{first}").touch()
        assert await seconds_until((tmp_path / f"{job.id}.2.{second}").exists) < 10
        frozen.send_signal(signal.SIGCONT)
        await until((tmp_path / f"finished.{job.id}.{first}.lost").exists)
        (tmp_path / f"finish.{second}").touch()
        assert (await over(records, job)).result == {"by": second, "attempt": 2}


async def test_a_terminated_engine_hands_over_at_once(
    records: Records, queue: Queue, redis_url: str, records_url: str, tmp_path: Path
) -> None:
    at = (redis_url, records_url, tmp_path)
    async with engine("one", *at) as one:
        job = await submit(records, queue, JobKind.TRAIN)
        await until((tmp_path / f"{job.id}.1.one").exists)
        async with engine("two", *at):
            one.terminate()
            assert await seconds_until((tmp_path / f"{job.id}.2.two").exists) < 3
            assert await one.wait() == 0
            (tmp_path / "finish.two").touch()
            assert (await over(records, job)).state is State.SUCCEEDED


async def test_styles_are_those_of_all_engines_at_work(
    embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queue.PATIENCE", 0.5)
    url = await embedded.ensure()
    async with opened(url) as one, opened(url) as other:
        await one.offer(["oils", "inks"], 600)
        await other.offer(["oils", "chalk"], 2)
        await other.offer([], 600)
        assert await one.styles() == await other.styles() == ["chalk", "inks", "oils"]

        async def gone() -> bool:
            return await other.styles() == ["inks", "oils"]

        assert await seconds_until(gone) > 0.5, "whoever renews no offer keeps it for a while"
        await one.offer(["oils"], 1)
        assert await other.styles() == ["inks", "oils"], "a shorter offer takes nothing back"
        await embedded.release()
        await one.offer(["chalk"], 600)
        assert await other.styles() == ["inks", "oils"], "Redis is away"


async def test_a_job_is_left_to_an_engine_that_takes_it(records: Records, queue: Queue, redis_url: str) -> None:
    asked: list[str] = []

    async def never(job: Job) -> bool:
        asked.append(job.id)
        return False

    async with opened(redis_url) as other, working(records, queue, succeeding(records), accepts=never):
        job = await submit(records, queue)
        await until(lambda: len(asked) > 1)
        assert (row := await records.jobs.get(job.id)) and row.state is State.QUEUED
        async with working(records, other, succeeding(records)):
            ended = await over(records, job)
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)


async def test_a_paused_server_takes_no_job_and_loses_none(
    records: Records, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queue.PAUSE", 0.05)
    await records.operators.pause(True)
    jobs = [await submit(records, queue) for _ in range(2)]

    async def handle(job: Job) -> None:
        claimed = await records.jobs.claim(job.id)
        assert claimed
        await records.jobs.finish(job.id, claimed.attempt, State.SUCCEEDED)

    async def looked_at_twice(job: Job) -> bool:
        return await tries(queue, job) > 1

    working = asyncio.create_task(work({JobKind.IMAGINE: handle}, records, queue, poll=0.02))
    for job in jobs:
        await until(lambda job=job: looked_at_twice(job))
    assert [row.state for job in jobs if (row := await records.jobs.get(job.id))] == [State.QUEUED] * 2
    await records.operators.pause(False)
    ended = [await over(records, job) for job in jobs]
    assert [job.state for job in ended] == [State.SUCCEEDED] * 2
    assert ended[0].attempt == 1, "waiting is no attempt"
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
