"""One attempt at a job, from its claim to its end.

Every write is fenced by the number that the claim gave: once a later attempt has claimed the job, an earlier one's
writes do nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from storage.background import Background
from storage.events import Event, Events
from storage.jobs import State
from storage.records import AdapterOutcome, Job, Records

RENEW = 1.0
"""Seconds between two checks whether the job was cancelled or claimed by a later attempt."""


class NotWanted(Exception):
    """The user cancelled the job, or a later attempt has claimed it."""


class Attempt:
    """One attempt at a claimed job: publishes its events, watches for cancellation, records its end."""

    def __init__(self, job: Job, records: Records, events: Events, renew: float = RENEW) -> None:
        self.job = job
        self._records, self._events = records, events
        self._renew = renew
        self._background = Background()

    async def publish(self, code: str, /, **facts: Any) -> None:
        """Publish an event of the job."""
        await self._events.publish(Event(self.job.id, self.job.attempt, code, facts))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a background task. The attempt does not end before it."""
        self._background.start(work, name=f"background of job {self.job.id}")

    async def wanted(self) -> bool:
        """Whether the job is still this attempt's and nobody has cancelled it."""
        return await self._records.jobs.renew(self.job.id, self.job.attempt) == "go"

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """A context that cancels its body once the job is no longer wanted, and then raises NotWanted."""
        body = asyncio.current_task()
        assert body
        unwanted = False

        async def watch() -> None:
            nonlocal unwanted
            # Another process sets the flag, so there is nothing in this one to wait for.
            while await self.wanted():  # noqa: ASYNC110
                await asyncio.sleep(self._renew)
            unwanted = True
            body.cancel()

        watching = asyncio.create_task(watch(), name=f"watch job {self.job.id}")
        try:
            yield
        except asyncio.CancelledError:
            # Only our own cancellation becomes NotWanted; the end of the process must reach the queue.
            if unwanted and body.uncancel() == 0:
                raise NotWanted from None
            raise
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._background.wait()

    async def succeed(
        self,
        result: dict[str, Any],
        *,
        pictures: Sequence[tuple[str, int]] = (),
        adapter: AdapterOutcome | None = None,
    ) -> bool:
        """Wait for the background tasks and record the success. False if this attempt no longer runs the job.

        pictures: blob keys and seeds.
        """
        await self._background.wait()
        written = await self._records.jobs.finish(
            self.job.id, self.job.attempt, State.SUCCEEDED, result, pictures=pictures, adapter=adapter
        )
        if written:
            await self.publish("done")
        return written

    async def fail(self, code: str, facts: dict[str, Any]) -> None:
        """Record the failure."""
        if await self._finish(State.FAILED, {"code": code, "facts": facts}):
            await self.publish("failed", code=code)

    async def cancel(self) -> None:
        """Record that the job was cancelled."""
        await self._finish(State.CANCELLED)
        await self.publish("cancelled")

    async def _finish(self, state: State, error: dict[str, Any] | None = None) -> bool:
        return await self._records.jobs.finish(self.job.id, self.job.attempt, state, error=error)
