"""What this project uses of arq without a promise of its documentation. A new arq that breaks it fails here."""

import asyncio

from arq.worker import Worker, func

from storage.arq_worker import FUNCTION, ArqWorker, client, in_progress_key, tries_key


async def test_arq_has_the_attributes_that_are_set(redis_url: str) -> None:
    async def run(ctx: object, job_id: str) -> None: ...

    redis = client(redis_url)
    worker = Worker([func(run, name=FUNCTION)], redis_pool=redis, job_timeout=100, handle_signals=False)
    assert worker.in_progress_timeout_s == 110
    assert worker.tasks == {}
    await redis.aclose()


async def test_an_entry_is_leased_counted_and_put_back(redis_url: str) -> None:
    started = asyncio.Event()

    async def run(ctx: object, job_id: str) -> None:
        started.set()
        await asyncio.Event().wait()

    redis = client(redis_url)
    await redis.enqueue_job(FUNCTION, "job", _job_id="entry", _queue_name="queue")
    assert await redis.pttl("arq:job:entry") > 24 * 3600 * 1000, "kept for longer than arq does by itself"
    worker = ArqWorker(client(redis_url), "queue", run, at_once=1, poll=0.01, time_limit=3600, lease=5)
    running = asyncio.create_task(worker.run())
    await started.wait()
    assert 0 < await redis.pttl(in_progress_key("entry")) <= 5000, "the lease, not the time limit"
    assert await redis.get(tries_key("entry")) == b"1"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.stop()
    assert await redis.zcard("queue") == 1 and not await redis.exists(in_progress_key("entry"))
    await redis.aclose()
