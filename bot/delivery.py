"""The delivery loop: a job's events edit its progress message, and its end posts exactly one answer.

The records decide. Events only make it fast: they may be lost or doubled, and a sweep of the records every few seconds
finds what they missed. So a restarted process continues where the last one stopped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from bot.language import speaking
from bot.messages import Frontend, Message
from bot.replies import jobs, operators, refusals
from storage.background import Background
from storage.cancellation import uninterrupted
from storage.events import Event, Events
from storage.jobs import Imagine, State
from storage.records import Job, Records

log = logging.getLogger(__name__)

_ENDS = frozenset({"done", "failed", "cancelled"})
_PATIENCE = 2.0
"""Seconds that `sweep` and `flush` wait for the rooms they post or edit in; slower rooms continue in the background."""
_NOTICE_LIFE = timedelta(days=1)
_NEAR = 3
"""From this queue position on, every change is shown."""


@dataclass(slots=True)
class _Followed:
    """A job under way and the latest event for its message."""

    job: Job
    token: str | None
    ref: str | None
    attempt: int = 0
    code: str = "queued"
    facts: dict[str, Any] = field(default_factory=dict)
    sample: str | None = None
    """Blob key of a preview, from an event "sample". No engine publishes such events yet."""
    shown: Message | None = None


class Delivery:
    """Keeps one frontend's messages up to date. `answer` composes the message that ends a job."""

    def __init__(
        self,
        records: Records,
        events: Events,
        frontend: Frontend,
        answer: Callable[[Job], Awaitable[Message]],
        *,
        edit_every: float = 1.0,
        sweep_every: float = 2.0,
    ) -> None:
        self._records = records
        self._events = events
        self._frontend = frontend
        self._answer = answer
        self._edit_every = edit_every
        self._sweep_every = sweep_every
        # None: the job is over or belongs to another frontend.
        self._followed: dict[str, _Followed | None] = {}
        self._changed: dict[str, None] = {}
        self._delivering: set[str] = set()
        # A room that the platform delays must not hold up the others.
        self._background = Background()
        self._editing: set[str] = set()
        self._rooms: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self) -> None:
        """Listen, edit and sweep, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_forever(self._listen, 1.0))
                tasks.create_task(_forever(lambda: uninterrupted(self.flush()), self._edit_every))
                tasks.create_task(_forever(lambda: uninterrupted(self.sweep()), self._sweep_every))
                tasks.create_task(_forever(lambda: uninterrupted(self.post_notices()), self._sweep_every))
        finally:
            await self._background.wait()

    async def follow(self, job_id: str, ref: str, shown: Message) -> None:
        """Show the progress of this job in the message `ref` from now on; `shown` is its content now."""
        await self._records.jobs.set_progress_ref(job_id, ref)
        followed = await self._find(job_id)
        if followed is not None:
            followed.ref, followed.shown = ref, shown
            if followed.code != "queued":
                self._changed[job_id] = None
            return
        # A fast engine may finish before the first message is posted.
        job = await self._records.jobs.get(job_id)
        if job is not None and job.over:
            token = await self._token(job)
            with speaking(job.language):
                await self._edit(ref, jobs.ended(job, token))

    async def news(self, event: Event) -> None:
        """Take in one event. Doubled and outdated events change nothing."""
        if event.code in _ENDS:
            await self._deliver(event.job_id)
            return
        followed = await self._find(event.job_id)
        if followed is None or event.attempt < followed.attempt:
            return
        if event.code == "sample":
            followed.sample = event.facts.get("key")
        elif _outdated(followed, event):
            return
        else:
            followed.code, followed.facts = event.code, event.facts
        followed.attempt = event.attempt
        self._changed[event.job_id] = None

    async def flush(self) -> None:
        """Edit the messages that changed: one at a time in each room, longest waiting first; all rooms at once."""
        edits: list[asyncio.Task[None]] = []
        for job_id in list(self._changed):
            followed = self._followed.get(job_id)
            if followed is None or followed.ref is None:
                del self._changed[job_id]
            elif (room := followed.job.room) not in self._editing:
                del self._changed[job_id]
                with speaking(followed.job.language):
                    message = jobs.under_way(
                        followed.job, followed.token, followed.code, followed.facts, followed.sample
                    )
                if message != followed.shown:
                    followed.shown = message
                    self._editing.add(room)
                    edits.append(self._background.start(self._edit(followed.ref, message, followed.job.language)))
                    edits[-1].add_done_callback(lambda _, room=room: self._editing.discard(room))  # type: ignore[misc]
        if edits:
            await asyncio.wait(edits, timeout=_PATIENCE)

    async def sweep(self) -> None:
        """Deliver what the records list as undelivered, and show waiting jobs their position in the queue."""
        rooms: dict[str, list[str]] = {}
        for job in await self._records.jobs.undelivered(self._frontend.name):
            rooms.setdefault(job.room, []).append(job.id)
        if tasks := [self._background.start(self._deliver_all(ids)) for ids in rooms.values()]:
            done, _ = await asyncio.wait(tasks, timeout=_PATIENCE)
            for task in done:
                task.result()
        self._followed = {job_id: followed for job_id, followed in self._followed.items() if followed}
        waiting = [followed for followed in self._followed.values() if followed and followed.code == "queued"]
        if waiting:
            await self._update_positions(waiting)

    async def _update_positions(self, waiting: Sequence[_Followed]) -> None:
        usual = {
            kind: await self._records.jobs.usual_seconds(kind) for kind in {followed.job.kind for followed in waiting}
        }
        paused, positions = await self._records.operators.paused(), await self._records.jobs.queue_positions()
        for followed in waiting:
            facts = {"position": positions.get(followed.job.id), "paused": paused}
            # It may have started while its position was looked up.
            if facts["position"] and followed.code == "queued" and _worth_an_edit(followed.facts, facts):
                seconds = usual[followed.job.kind]
                followed.facts = facts | {"seconds": seconds and seconds * facts["position"]}
                self._changed[followed.job.id] = None

    async def post_notices(self) -> None:
        """Post the operators' notices to every room. A room that refuses a notice for a day is given up."""
        refused = 0
        # Rooms that refuse the notice must not hide the rooms behind them.
        while notices := await self._records.notices.pending(self._frontend.name, skip=refused):
            done = []
            for notice in notices:
                try:
                    with speaking(await self._records.jobs.language_in(notice.frontend, notice.room)):
                        await self._frontend.post(notice.room, operators.notice(notice.text), dedupe=notice.id)
                except Exception as error:
                    log.warning("a notice was not posted: %s", type(error).__name__)
                    if datetime.now(UTC) - notice.created < _NOTICE_LIFE:
                        refused += 1
                        continue
                done.append(notice.id)
            if done:
                await self._records.notices.delete(done)

    async def _listen(self) -> None:
        async for event in self._events.subscribe():
            if event.code in _ENDS:
                self._background.start(self._deliver(event.job_id))
                continue
            try:
                await uninterrupted(self.news(event))
            except Exception:
                log.exception("event %s of job %s was not shown", event.code, event.job_id)

    async def _find(self, job_id: str) -> _Followed | None:
        if job_id not in self._followed:
            job = await self._records.jobs.get(job_id)
            found = None
            if job is not None and not job.over and job.frontend == self._frontend.name:
                code = "queued" if job.state == State.QUEUED else "started"
                found = _Followed(job, await self._token(job), job.progress_ref, job.attempt, code)
            # A task that looked at the same time and was quicker may have stored a newer state.
            return self._followed.setdefault(job_id, found)
        return self._followed[job_id]

    async def _deliver_all(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            await self._deliver(job_id)

    async def _deliver(self, job_id: str) -> None:
        if job_id in self._delivering:
            return
        self._delivering.add(job_id)
        try:
            job = await self._records.jobs.get(job_id)
            if job is None:
                await self._release(job_id)
                return
            if not job.over or job.delivered or job.frontend != self._frontend.name:
                return
            self._followed.pop(job_id, None)
            self._changed.pop(job_id, None)
            lock = self._rooms.setdefault(job.room, asyncio.Lock())
            async with lock:
                with speaking(job.language):
                    if job.progress_ref is not None:
                        await self._edit(job.progress_ref, jobs.ended(job, await self._token(job)))
                    await self._frontend.post(job.room, await self._compose(job), dedupe=job.id)
                await self._records.jobs.mark_delivered(job.id)
        except TimeoutError:
            # The frontend is still sending it; the next sweep asks again.
            log.info("the answer of job %s is slow", job_id)
        except Exception:
            # It stays undelivered, so the next sweep tries again.
            log.exception("job %s was not answered yet", job_id)
        finally:
            self._delivering.discard(job_id)

    async def _release(self, job_id: str) -> None:
        """Replace the progress message of a job that was erased with its person: there will be no answer."""
        self._changed.pop(job_id, None)
        followed = self._followed.pop(job_id, None)
        if followed is not None and followed.ref is not None:
            with speaking(followed.job.language):
                await self._edit(followed.ref, jobs.forgotten())

    async def _compose(self, job: Job) -> Message:
        try:
            return await self._answer(job)
        except Exception:
            # An answer that cannot be composed now never can be, so the person gets an apology instead of silence.
            error_id = uuid4().hex[:8]
            log.exception("error %s while answering job %s", error_id, job.id)
            return refusals.apology(error_id)

    async def _edit(self, ref: str, message: Message, language: str | None = None) -> None:
        """Edit with this language set, since the frontend adds sentences of its own, on buttons for example."""
        try:
            with speaking(language):
                await self._frontend.edit(ref, message)
        except Exception:
            log.exception("a progress message was not edited")

    async def _token(self, job: Job) -> str | None:
        if isinstance(job.payload, Imagine):
            return None
        avatar = await self._records.avatars.get(job.payload.avatar_id)
        return avatar.token if avatar else None


async def _forever(step: Callable[[], Awaitable[None]], pause: float) -> None:
    while True:
        try:
            await step()
        except Exception:
            log.exception("delivery failed, trying again")
        await asyncio.sleep(pause)


def _worth_an_edit(shown: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a new queue position is worth an edit. In a long queue, each finished job moves everybody."""
    if "position" not in shown or shown.get("paused") != now["paused"]:
        return True
    return bool(
        now["position"] != shown["position"]
        and (now["position"] <= _NEAR or now["position"] <= 0.8 * shown["position"])
    )


def _outdated(followed: _Followed, event: Event) -> bool:
    """Whether the message already shows a later state than this event of the same attempt."""
    if event.attempt != followed.attempt or followed.code != "step":
        return False
    return event.code != "step" or event.facts["step"] < followed.facts["step"]
