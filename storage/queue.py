"""The queue: it tells engines that there is a job. The records are the truth; arq only wakes an engine.

An entry of arq holds a job's id and nothing else. The job's payload, state, attempt and result are in the records. So a
lost entry delays a job, but does not lose it (`Queue.reconcile` finds it), and a duplicate entry does nothing (a job
has one lease, and attempts are fenced).

A running job is leased for a few seconds at a time, so that another engine soon takes the job of an engine that was
killed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Retry
from redis.exceptions import RedisError

from storage.arq_worker import FUNCTION, ArqWorker, client, in_progress_key
from storage.errors import UserError
from storage.events import Event, Events
from storage.jobs import SPECS, JobKind, JobSpec, State
from storage.records import Job, Records

LEASE = 5.0
"""Seconds after which a lease that is not renewed ends, and another engine may take the job."""
HEARTBEAT = 1.0
"""Seconds between two renewals of a lease."""
POLL = 0.04
"""Seconds between two reads of a queue: the longest idle time between two jobs."""
RECONCILE = 5.0
"""Seconds between two searches for active jobs without a queue entry and without a lease."""
PATIENCE = 3.0
"""Seconds of trying to reach Redis before an enqueue is left to `reconcile`."""
PAUSE = 2.0
"""Seconds for which a job is deferred while an operator has paused the engines."""
DECLINED = 0.2
"""Seconds for which a job is deferred that this engine does not accept, so that other engines can take it."""
LEASED = 0.2
"""Seconds for which an entry is deferred whose job another engine has leased."""

Handler = Callable[[Job], Awaitable[None]]
"""Runs one job: claims, renews and finishes it through Records. If it is cancelled, the job goes back to the queue."""
Accepts = Callable[[Job], Awaitable[bool]]
"""Whether this engine runs a job, or leaves it to other engines."""

_LEASE_KEY = "avatar:lease:"
_RECONCILING = "avatar:reconciling"
_STYLES = "avatar:styles"

log = logging.getLogger(__name__)


class Queue:
    """Jobs on their way to engines, in the Redis behind this URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._styles: list[str] = []
        self.redis = self.connection()

    def connection(self) -> ArqRedis:
        """A new Redis client, for a worker. The caller closes it."""
        return client(self._url)

    async def enqueue(self, job: Job) -> bool:
        """Add an entry for a job of the records. False if Redis is away: `reconcile` adds it when Redis is back."""
        # arq refuses an entry id that exists; this one exists only if an earlier try of this loop did reach Redis.
        entry = f"{job.id}-{time.time_ns() // 1_000_000}"
        try:
            async with asyncio.timeout(PATIENCE):
                while True:  # the client's own retries do not cover arq's transactions
                    with suppress(RedisError, OSError):
                        await self.redis.enqueue_job(FUNCTION, job.id, _job_id=entry, _queue_name=SPECS[job.kind].queue)
                        return True
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log.warning("job %s is not queued yet: Redis is away", job.id)
            return False

    async def reconcile(self, records: Records) -> list[Job]:
        """Queue the active jobs without an entry and without a lease (Redis was emptied, or away). Returns these jobs.

        Raises RedisError while Redis is away. Several processes may call this at the same time.
        """
        if not await records.jobs.active(await self._queued_or_leased()):
            return []
        if not await self.redis.set(_RECONCILING, b"1", nx=True, px=round(4000 * HEARTBEAT)):
            return []
        try:
            # An engine whose Redis was emptied renews its lease within a heartbeat, and new jobs are on their way.
            await asyncio.sleep(1.5 * HEARTBEAT)
            lost = await records.jobs.active(await self._queued_or_leased())
            return [job for job in lost if await self.enqueue(job)]
        finally:
            await self.redis.delete(_RECONCILING)

    async def _queued_or_leased(self) -> set[str]:
        entries = [entry for spec in SPECS.values() for entry in await self.redis.zrange(spec.queue, 0, -1)]
        leases = [key async for key in self.redis.scan_iter(f"{_LEASE_KEY}*", count=1000)]
        return {e.decode().rpartition("-")[0] for e in entries} | {k.decode().removeprefix(_LEASE_KEY) for k in leases}

    async def offer(self, styles: Collection[str], seconds: float = LEASE) -> None:
        """Add the styles that an engine has to those on offer, for this many seconds.

        Does nothing while Redis is away.
        """
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                now, _ = await self.redis.time()
                await self.redis.zremrangebyscore(_STYLES, "-inf", f"({now}")
                if styles:
                    await self.redis.zadd(_STYLES, dict.fromkeys(styles, now + seconds), gt=True)

    async def styles(self) -> list[str]:
        """The names of the styles that running engines offer, sorted; while Redis is away, those read last."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                now, _ = await self.redis.time()
                found = await self.redis.zrangebyscore(_STYLES, now, "+inf")
                self._styles = sorted(name.decode() for name in found)
        return list(self._styles)

    async def close(self) -> None:
        """Close the Redis client."""
        await self.redis.aclose()


async def work(
    handlers: Mapping[JobKind, Handler],
    records: Records,
    queue: Queue,
    *,
    events: Events | None = None,
    accepts: Accepts | None = None,
    poll: float = POLL,
) -> None:
    """Run jobs of these kinds until cancelled; then the running ones are cancelled and handed back at once.

    If a handler raises, its job fails, with the code of a UserError, or else `internal`. A handler that exceeds the
    kind's time limit is cancelled, and its job fails with `timeout`. Failures are published to `events`, if given. A
    job that this engine does not accept stays in the queue.
    """
    async with asyncio.TaskGroup() as group:
        for kind, handler in handlers.items():
            consumer = _Consumer(SPECS[kind], handler, records, queue, events, accepts, poll)
            group.create_task(consumer.consume(), name=f"consume {kind}")
        group.create_task(_reconcile(records, queue), name="reconcile")


async def _reconcile(records: Records, queue: Queue) -> None:
    while True:
        try:
            for job in await queue.reconcile(records):
                log.warning("job %s was in no queue and is queued again", job.id)
        except Exception as error:  # the next search may succeed, and the jobs go on meanwhile
            log.warning("reconcile failed: %s", type(error).__name__)
        await asyncio.sleep(RECONCILE)


class _Consumer:
    """Runs the jobs of one kind, each leased while it runs."""

    def __init__(
        self,
        spec: JobSpec,
        handler: Handler,
        records: Records,
        queue: Queue,
        events: Events | None,
        accepts: Accepts | None,
        poll: float,
    ) -> None:
        self.spec = spec
        self.handler = handler
        self.records = records
        self.queue = queue
        self.events = events
        self.accepts = accepts
        self.poll = poll
        self.running: dict[str, asyncio.Task[None]] = {}

    async def consume(self) -> None:
        while True:
            worker = ArqWorker(
                self.queue.connection(),
                self.spec.queue,
                self._run,
                at_once=self.spec.at_once,
                poll=self.poll,
                time_limit=self.spec.time_limit + 60,  # ours comes first
                lease=LEASE,
            )
            try:
                await worker.run()
            except (RedisError, OSError) as error:
                log.warning("queue %s unreadable, trying again: %s", self.spec.queue, type(error).__name__)
                # Running jobs go on without Redis. A second worker at the same time would exceed `at_once`.
                await worker.finish()
            finally:
                await worker.stop()
            await asyncio.sleep(1)

    async def _run(self, ctx: dict[Any, Any], job_id: str) -> None:
        if first := self.running.get(job_id):
            # Redis restarted or was emptied, and delivers a job that this engine already runs: wait for that run.
            return await asyncio.shield(first)
        task = asyncio.current_task()
        assert task
        self.running[job_id] = task
        try:
            await self._lease(ctx["job_id"], job_id)
        except RedisError:
            log.warning("job %s goes on when Redis does", job_id)
            raise Retry(defer=1) from None
        finally:
            del self.running[job_id]

    async def _lease(self, entry: str, job_id: str) -> None:
        job = await self.records.jobs.get(job_id)
        if job is None or job.over:
            return
        if await self.records.operators.paused():
            raise Retry(defer=PAUSE)
        if self.accepts is not None and not await self.accepts(job):
            raise Retry(defer=DECLINED)
        redis, lease = self.queue.redis, _Lease()
        # arq's own lease is on the entry, but a job may have two entries after Redis was emptied.
        if not await redis.set(_LEASE_KEY + job_id, b"1", nx=True, px=round(LEASE * 1000)):
            raise Retry(defer=LEASED)
        heart = asyncio.create_task(_beat(lease, redis, in_progress_key(entry), _LEASE_KEY + job_id))
        try:
            await self._handle(job, lease)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await redis.delete(_LEASE_KEY + job_id)

    async def _handle(self, job: Job, lease: "_Lease") -> None:
        try:
            async with asyncio.timeout(self.spec.time_limit) as limit:
                await self.handler(job)
        except RedisError:  # no fault of the job
            raise
        except UserError as error:
            await self._fail(job, lease, error.code, error.facts)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                log.warning("job %s exceeded %.0f s", job.id, self.spec.time_limit)
                await self._fail(job, lease, "timeout", {"seconds": self.spec.time_limit})
            else:
                log.exception("job %s failed", job.id)
                await self._fail(job, lease, "internal", {})

    async def _fail(self, job: Job, lease: "_Lease", code: str, facts: Mapping[str, Any]) -> None:
        # The handler's claim raised the attempt by one. If another engine has claimed it since, nothing is written.
        attempt = job.attempt + 1
        # It may have claimed the job again since. Without a lapse of the lease, no other engine has.
        if lease.unbroken and (now := await self.records.jobs.get(job.id)):
            attempt = max(attempt, now.attempt)
        written = await self.records.jobs.finish(
            job.id, attempt, State.FAILED, error={"code": code, "facts": dict(facts)}
        )
        if written and self.events:
            await self.events.publish(Event(job.id, attempt, "failed", {"code": code}))


class _Lease:
    """Whether this engine has had a job's lease without a lapse. Another engine can claim the job only in a lapse."""

    def __init__(self) -> None:
        self._renewed = time.monotonic()
        self._lapsed = False

    @property
    def unbroken(self) -> bool:
        return not self._lapsed and time.monotonic() - self._renewed < LEASE

    def renew(self, sent: float) -> None:
        """The lease was renewed by a command that was sent at this moment of the monotonic clock."""
        self._lapsed = not self.unbroken
        self._renewed = sent


async def _beat(lease: _Lease, redis: ArqRedis, *keys: str) -> None:
    while True:
        sent = time.monotonic()
        with suppress(RedisError, OSError):
            # SET, not EXPIRE: the keys may have expired, or gone, while Redis was away.
            async with redis.pipeline(transaction=True) as pipe:
                for key in keys:
                    pipe.set(key, b"1", px=round(LEASE * 1000))
                await pipe.execute()
            lease.renew(sent)
        await asyncio.sleep(HEARTBEAT)
