"""Events of jobs. The records are the truth: a lost event costs a progress bar one step, never an answer."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

STREAM = "avatar:events"
LENGTH = 10_000
"""About how many events are kept for those who subscribe later."""
PATIENCE = 3.0
"""Seconds after which an event that Redis does not take is dropped."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a job. `id` is given by `publish` and orders events; pass the last one seen to `subscribe`.

    Codes and facts: started {}, retaken {attempt}, step {step, steps, seconds_left, and short=True where memory is
    short}, done {}, failed {code}, cancelled {}. `bot.replies.jobs.under_way` shows them.
    """

    job_id: str
    attempt: int
    code: str
    facts: dict[str, Any] = field(default_factory=dict)
    id: str = ""


class Events(Protocol):
    """One stream of events for all subscribers."""

    async def publish(self, event: Event) -> None:
        """Send an event to all subscribers. While Redis is away, the event is dropped and logged; nothing is raised."""

    def subscribe(self, after: str = "$") -> AsyncIterator[Event]:
        """Yield events later than `after`, forever: "$" is now (the first `anext`), "0" is everything that is kept."""


class RedisEvents:
    """Events on one capped Redis stream. `subscribe` goes on after restarts of Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, event: Event) -> None:
        body = json.dumps([event.job_id, event.attempt, event.code, event.facts])
        try:
            async with asyncio.timeout(PATIENCE):
                await self._redis.xadd(STREAM, {"event": body}, maxlen=LENGTH, approximate=True)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("event %s of job %s dropped: %s", event.code, event.job_id, type(error).__name__)

    async def subscribe(self, after: str = "$") -> AsyncIterator[Event]:
        while True:
            try:
                if after == "$":  # as an id, so that nothing slips between two reads
                    last = await self._redis.xrevrange(STREAM, count=1)
                    after = last[0][0].decode() if last else "0"
                streams = await self._redis.xread({STREAM: after}, count=100, block=1000)
            except (RedisError, OSError) as error:
                log.warning("events unreadable, trying again: %s", type(error).__name__)
                await asyncio.sleep(1)
                continue
            for _, entries in streams:
                for entry, fields in entries:
                    after = entry.decode()
                    job_id, attempt, code, facts = json.loads(fields[b"event"])
                    yield Event(job_id, attempt, code, facts, after)


class MemoryEvents:
    """Events within one process, for tests."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = asyncio.Condition()

    async def publish(self, event: Event) -> None:
        async with self._news:
            self._events.append(replace(event, id=f"{len(self._events) + 1}-0"))
            self._news.notify_all()

    async def subscribe(self, after: str = "$") -> AsyncIterator[Event]:
        seen = len(self._events) if after == "$" else int(after.partition("-")[0])
        while True:
            async with self._news:
                while len(self._events) <= seen:
                    await self._news.wait()
            event = self._events[seen]
            seen += 1
            yield event
