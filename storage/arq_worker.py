"""arq as this project runs it. What arq's documentation does not promise is used here and nowhere else.

These are `Worker.in_progress_timeout_s`, `Worker.tasks`, `ArqRedis.job_serializer`, `job_deserializer` and
`expires_extra_ms`, and the names of arq's keys. `tests/storage/test_arq_worker.py` fails when arq changes one of them.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, retry_key_prefix
from arq.worker import Worker, func
from redis.exceptions import RedisError

from storage.connect import connect

FUNCTION = "run"
"""The one function that arq's entries name."""
_MONTH_MS = 30 * 24 * 3600 * 1000
_TRIES_MOST = 1_000_000

Run = Callable[[dict[Any, Any], str], Awaitable[None]]
"""Called with arq's context, whose "job_id" is the entry, and the job's id."""


def client(url: str) -> ArqRedis:
    """A client whose entries are JSON and are kept for a month. Connects at its first command."""
    redis = connect(url)
    redis.job_serializer, redis.job_deserializer = _dumps, json.loads
    redis.expires_extra_ms = _MONTH_MS  # by default arq drops, after a day, an entry that waited or ran for so long
    return redis


def in_progress_key(entry: str) -> str:
    """The key by which arq knows that a worker runs this entry."""
    return f"{in_progress_key_prefix}{entry}"


def tries_key(entry: str) -> str:
    """The key in which arq counts how often a worker started this entry."""
    return f"{retry_key_prefix}{entry}"


class ArqWorker:
    """Runs the entries of one queue until cancelled or until Redis is away for longer than its client tries.

    lease: seconds for which arq marks an entry as in progress when it starts it. limits are in seconds.
    """

    def __init__(
        self, redis: ArqRedis, queue: str, run: Run, *, at_once: int, poll: float, time_limit: float, lease: float
    ) -> None:
        self._redis = redis
        self._worker = Worker(
            [func(run, name=FUNCTION)],
            queue_name=queue,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=at_once,
            poll_delay=poll,
            job_timeout=time_limit,
            max_tries=_TRIES_MOST,  # attempts are counted in the records
            keep_result=0,
            log_results=False,
            job_serializer=_dumps,
            job_deserializer=json.loads,
        )
        # By default the time limit plus 10 s: for hours nobody would take the training of an engine that was killed.
        self._worker.in_progress_timeout_s = lease

    async def run(self) -> None:
        """Run entries. Raises RedisError or OSError once the client gives Redis up; what runs then goes on."""
        await self._worker.async_run()

    async def finish(self) -> None:
        """Wait until every running entry has ended."""
        await asyncio.gather(*self._worker.tasks.values(), return_exceptions=True)

    async def stop(self) -> None:
        """Cancel every running entry, which puts it back into its queue, and close the client."""
        # Not Worker.close(): it calls a method that redis deprecated.
        for task in self._worker.tasks.values():
            task.cancel()
        await self.finish()
        with suppress(RedisError, OSError):
            await self._redis.aclose()


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=repr).encode()  # repr: arq also hands over exceptions, which it then throws away
