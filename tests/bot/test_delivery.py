"""Each job is answered exactly once, even if events are lost or doubled or the process restarts."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.delivery import Delivery
from bot.messages import Message
from storage.events import Event, MemoryEvents
from storage.jobs import Imagine, JobKind, State
from tests.until import until


class Killed(BaseException):
    """The bot's process dies here, without any cleanup."""


class Room:
    """A frontend that keeps every message, and drops a second post with the same key as the port requires."""

    name = "chat"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.edits: list[Message] = []
        self.refs: dict[str, str] = {}
        self.posts_to_fail = 0
        self.killed_at: str | None = None

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        if self.posts_to_fail:
            self.posts_to_fail -= 1
            raise ConnectionError("the platform is away")
        if self.killed_at == "before the post":
            raise Killed
        ref = self.refs.get(dedupe or "")
        if ref is None:
            self.messages.append(message)
            ref = str(len(self.messages) - 1)
            if dedupe is not None:
                self.refs[dedupe] = ref
        if self.killed_at == "after the post":
            raise Killed
        return ref

    async def edit(self, ref: str, message: Message) -> None:
        if self.killed_at == "at the edit":
            raise Killed
        self.messages[int(ref)] = message
        self.edits.append(message)

    def answers(self) -> list[Message]:
        return [message for message in self.messages if message.pictures and not message.progress]


@pytest.fixture
def room() -> Room:
    return Room()


class WatchedEvents:
    """The events of a bot. `subscribed` is set once somebody listens, so that no later event is missed."""

    def __init__(self, events: MemoryEvents) -> None:
        self._events = events
        self.subscribed = asyncio.Event()

    async def publish(self, event: Event) -> None:
        await self._events.publish(event)

    async def subscribe(self, after: str = "$") -> AsyncIterator[Event]:
        # A task that waits for `subscribed` continues only when this one is suspended in `MemoryEvents.subscribe`.
        self.subscribed.set()
        async for event in self._events.subscribe(after):
            yield event


@asynccontextmanager
async def running(bot: Any, room: Room, **every: float) -> AsyncIterator[None]:
    """A delivery loop that runs and has subscribed to the events."""
    events = WatchedEvents(bot.events)
    loop = asyncio.create_task(Delivery(bot.records, events, room, bot.commands.answer, **every).run())
    await events.subscribed.wait()
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def delivery_of(bot: Any, room: Room, **every: float) -> Delivery:
    return Delivery(bot.records, bot.events, room, bot.commands.answer, **every)


async def asked(bot: Any, room: Room, delivery: Delivery) -> Any:
    """A drawing that was requested, is followed and was claimed by an engine."""
    await bot.avatar("mia7")
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    reply = await bot.say("/imagine mia7 --count 1")
    ref = await room.post("studio", reply.message)
    await delivery.follow(reply.job_id, ref, reply.message)
    return await bot.records.jobs.claim(reply.job_id)


def step(job: Any, number: int) -> Event:
    return Event(job.id, job.attempt, "step", {"step": number, "steps": 10, "seconds_left": 10.0 - number})


async def test_one_message_is_edited_and_one_answer_posted(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    for number in (1, 2, 5):
        await delivery.news(step(job, number))
    await delivery.flush()
    await delivery.flush()
    assert [edit.progress.step for edit in room.edits if edit.progress] == [5]
    assert "step 5 of 10, about 5 s left" in room.messages[0].text
    await bot.engine.end(job)
    await delivery.sweep()
    assert len(room.answers()) == 1
    assert room.messages[0].text.startswith("Drawing: done")
    assert (await bot.records.jobs.get(job.id)).delivered is not None


async def test_a_room_is_edited_at_most_once_in_a_turn(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    other = await bot.say("/imagine mia7 --count 2")
    await delivery.follow(other.job_id, await room.post("studio", other.message), other.message)
    second = await bot.records.jobs.claim(other.job_id)
    await delivery.news(step(job, 1))
    await delivery.news(step(second, 1))
    await delivery.flush()
    assert len(room.edits) == 1
    await delivery.flush()
    assert len(room.edits) == 2


async def test_doubled_and_late_events_change_nothing(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    for event in (step(job, 4), step(job, 4), step(job, 2), Event(job.id, job.attempt, "started")):
        await delivery.news(event)
        await delivery.flush()
    assert len(room.edits) == 1
    await bot.engine.end(job)
    for _ in range(3):
        await delivery.news(Event(job.id, job.attempt, "done"))
        await delivery.news(step(job, 9))
        await delivery.flush()
        await delivery.sweep()
    assert len(room.answers()) == 1
    assert room.messages[0].progress is None


async def test_after_a_takeover_the_old_engines_events_are_ignored(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    await delivery.news(step(job, 6))
    again = await bot.records.jobs.claim(job.id)
    await delivery.news(Event(again.id, again.attempt, "retaken", {"attempt": again.attempt}))
    await delivery.flush()
    assert "picked up again" in room.messages[0].text
    await delivery.news(step(again, 3))
    await delivery.news(step(job, 7))
    await delivery.flush()
    assert "step 3 of 10" in room.messages[0].text


async def test_a_sweep_answers_a_job_whose_events_were_lost(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    await bot.engine.end(job)
    await delivery.sweep()
    await delivery.sweep()
    assert len(room.answers()) == 1


async def test_a_sample_is_shown_while_training(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    await delivery.news(step(job, 3))
    await delivery.news(Event(job.id, job.attempt, "sample", {"key": "pictures/x/1.png"}))
    await delivery.flush()
    assert [picture.key for picture in room.messages[0].pictures] == ["pictures/x/1.png"]
    assert "step 3 of 10" in room.messages[0].text


@pytest.mark.parametrize("seed", range(10))
async def test_a_restart_at_any_moment_answers_once(bot: Any, room: Room, seed: int) -> None:
    pick = random.Random(seed)
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    events = [step(job, number) for number in range(1, 6)]
    for event in events:
        await delivery.news(event)
        await delivery.flush()
        if pick.random() < 0.4:
            delivery = delivery_of(bot, room)
    await bot.engine.end(job)
    for _ in range(4):
        room.killed_at = pick.choice(["at the edit", "before the post", "after the post"])
        with suppress(Killed):
            if pick.random() < 0.5:
                await delivery.sweep()
            else:
                await delivery.news(Event(job.id, job.attempt, "done"))
        delivery = delivery_of(bot, room)
    room.killed_at = None
    await delivery.sweep()
    await delivery.sweep()
    assert len(room.answers()) == 1
    assert await bot.records.jobs.undelivered("chat") == []


async def test_after_a_restart_the_same_message_is_edited(bot: Any, room: Room) -> None:
    job = await asked(bot, room, delivery_of(bot, room))
    delivery = delivery_of(bot, room)
    await delivery.news(step(job, 7))
    await delivery.flush()
    assert len(room.messages) == 1
    assert "step 7 of 10" in room.messages[0].text


async def test_a_platform_that_is_away_gets_the_answer_later(
    bot: Any, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    await bot.engine.end(job)
    room.posts_to_fail = 2
    for _ in range(4):
        await delivery.sweep()
    assert len(room.answers()) == 1
    assert "not answered yet" in caplog.text


async def test_an_answer_that_cannot_be_composed_is_an_apology(
    bot: Any, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> Message:
        raise KeyError("verdicts")

    delivery = Delivery(bot.records, bot.events, room, broken)
    job = await asked(bot, room, delivery)
    await bot.engine.end(job)
    await delivery.sweep()
    await delivery.sweep()
    assert [message.tone for message in room.messages[1:]] == ["trouble"]
    assert "while answering job" in caplog.text


async def test_an_engine_that_finishes_before_the_first_message(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7 --count 1")
    await bot.answer(reply)
    await delivery.sweep()
    await delivery.follow(reply.job_id, await room.post("studio", reply.message), reply.message)
    assert "done" in room.messages[-1].text


async def test_an_event_that_arrives_while_its_job_is_looked_up(
    bot: Any, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await asked(bot, room, delivery_of(bot, room))
    delivery = delivery_of(bot, room)
    looking, go_on, look_up = asyncio.Event(), asyncio.Event(), bot.records.jobs.get

    async def slow(job_id: str) -> Any:
        found = await look_up(job_id)
        if not looking.is_set():
            looking.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(bot.records.jobs, "get", slow)
    following = asyncio.create_task(delivery.follow(job.id, "0", room.messages[0]))
    await looking.wait()
    await delivery.news(step(job, 4))
    go_on.set()
    await following
    await delivery.flush()
    assert "step 4 of 10" in room.messages[0].text


async def test_a_job_that_starts_while_its_queue_position_is_looked_up(
    bot: Any, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_of(bot, room)
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7 --count 1")
    await delivery.follow(reply.job_id, await room.post("studio", reply.message), reply.message)
    look_up = bot.records.jobs.queue_positions

    async def slow() -> dict[str, int]:
        positions: dict[str, int] = await look_up()
        await delivery.news(step(await bot.records.jobs.claim(reply.job_id), 4))
        return positions

    monkeypatch.setattr(bot.records.jobs, "queue_positions", slow)
    await delivery.sweep()
    await delivery.flush()
    assert "step 4 of 10" in room.messages[0].text


async def test_waiting_jobs_show_their_queue_position(bot: Any, room: Room) -> None:
    delivery = delivery_of(bot, room)
    await bot.avatar("mia7")
    ahead = await bot.say("/imagine mia7", name="Anna")
    reply = await bot.say("/imagine mia7")
    await delivery.follow(reply.job_id, await room.post("studio", reply.message), reply.message)
    assert "number 2 in line" in room.messages[0].text
    await bot.records.jobs.request_cancel(ahead.job_id)
    await delivery.sweep()
    await delivery.flush()
    assert "next in line" in room.messages[0].text


async def test_a_slow_edit_in_one_room_does_not_delay_another_room(bot: Any, room: Room) -> None:
    delivery, stuck = delivery_of(bot, room), asyncio.Event()
    job = await asked(bot, room, delivery)
    other = await bot.say("/imagine mia7 --count 1", room="attic")
    await delivery.follow(other.job_id, await room.post("attic", other.message), other.message)
    edit = room.edit

    async def slow(ref: str, message: Message) -> None:
        if ref == "0" and not stuck.is_set():
            await stuck.wait()
        await edit(ref, message)

    room.edit = slow  # type: ignore[method-assign]
    await delivery.news(step(job, 1))
    await delivery.flush()
    await delivery.news(step(job, 2))
    await delivery.news(step(await bot.records.jobs.claim(other.job_id), 3))
    await delivery.flush()
    assert "step 3 of 10" in room.messages[1].text and "step" not in room.messages[0].text
    stuck.set()

    async def edited() -> bool:
        await delivery.flush()
        return "step 2 of 10" in room.messages[0].text

    await until(edited, within=5)


async def test_rooms_that_refuse_a_notice_do_not_block_the_rooms_after_them(bot: Any, room: Room) -> None:
    user = await bot.records.users.get_or_create("chat", "ann", "Ann")
    for number in range(30):
        await bot.records.jobs.create(JobKind.IMAGINE, user.id, "chat", f"room {number:02}", Imagine("x"))
    await bot.records.notices.create("hello", datetime.now(UTC) - timedelta(hours=1))
    room.posts_to_fail = 25
    await delivery_of(bot, room).post_notices()
    assert len(room.messages) == 5
    await delivery_of(bot, room).post_notices()
    assert len(room.messages) == 30 and await bot.records.notices.pending("chat") == []


async def test_the_first_message_and_status_tell_when_it_should_be_ready(
    bot: Any, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    clock = bot.records.database.clock
    monkeypatch.setattr(bot.records.database, "clock", lambda: clock() + timedelta(seconds=0.6))
    await bot.engine.end(job)
    first, second = await bot.say("/imagine mia7"), await bot.say("/imagine mia7")
    assert "next in line, ready in about 1 s." in first.message.text
    assert "number 2 in line, ready in about" in second.message.text and second.message.progress.seconds_left > 1
    assert "number 2 in line · ready in about" in (await bot.say("/status")).message.text


async def test_in_a_long_queue_not_every_position_is_shown(
    bot: Any, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_of(bot, room)
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7")
    await delivery.follow(reply.job_id, await room.post("studio", reply.message), reply.message)
    positions = iter([100, 99, 81, 80, 64, 4, 4, 3, 2])

    async def queue_positions() -> dict[str, int]:
        return {reply.job_id: next(positions)}

    monkeypatch.setattr(bot.records.jobs, "queue_positions", queue_positions)
    shown = []
    for _ in range(9):
        await delivery.sweep()
        await delivery.flush()
        shown.append(room.messages[0].progress.position)
    assert shown == [100, 100, 100, 80, 64, 4, 4, 3, 2]


async def test_a_cancelled_job_is_answered_at_once(bot: Any, room: Room) -> None:
    await bot.avatar("mia7")

    async def all_delivered() -> bool:
        return not await bot.records.jobs.undelivered("chat")

    async with running(bot, room, sweep_every=60):
        # The only sweep answers the avatar's own jobs; what follows can only be answered because of its event.
        await until(all_delivered)
        reply = await bot.say("/imagine mia7")
        await bot.say("/cancel")

        async def delivered() -> bool:
            return (await bot.records.jobs.get(reply.job_id)).delivered is not None

        await until(delivered, within=2)
    assert room.messages[-1].text == "The drawing is cancelled."


async def test_other_frontends_jobs_are_left_alone(bot: Any, room: Room) -> None:
    room.name = "discord"
    delivery = delivery_of(bot, room)
    await bot.avatar("mia7")
    job = await bot.records.jobs.claim((await bot.say("/imagine mia7")).job_id)
    await delivery.news(step(job, 1))
    await bot.engine.end(job)
    await delivery.news(Event(job.id, job.attempt, "done"))
    await delivery.sweep()
    assert room.messages == []
    assert (await bot.records.jobs.get(job.id)).state == State.SUCCEEDED


async def test_a_slow_post_in_one_room_does_not_delay_another_room(bot: Any, room: Room) -> None:
    await bot.avatar("mia7")
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    let = asyncio.Event()
    posted: list[str] = []

    class Slow(Room):
        async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
            if room == "slow":
                await let.wait()
            posted.append(dedupe or "")
            return await super().post(room, message, dedupe)

    slow = [await bot.say(f"/imagine mia7 --count 1 --seed {seed}", room="slow") for seed in (1, 2)]
    quick = await bot.say("/imagine mia7 --count 1")

    async def all_delivered() -> bool:
        return not await bot.records.jobs.undelivered("chat")

    async with running(bot, Slow(), sweep_every=0.05):
        await bot.engine.work_off()
        await until(lambda: quick.job_id in posted)
        assert posted == [quick.job_id]
        let.set()
        await until(all_delivered, within=20)
    assert sorted(posted) == sorted([quick.job_id, *(reply.job_id for reply in slow)])


async def test_a_post_that_times_out_is_not_logged_as_an_error(
    bot: Any, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = delivery_of(bot, room)
    job = await asked(bot, room, delivery)
    await bot.engine.end(job)

    async def late(*_: object, **__: object) -> str:
        raise TimeoutError

    room.post = late  # type: ignore[method-assign]
    await delivery.sweep()
    del room.post  # type: ignore[method-assign]
    assert caplog.records == []
    await delivery.sweep()
    assert len(room.answers()) == 1
