import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.connect import connect
from storage.events import Event, Events, MemoryEvents, RedisEvents


@pytest.fixture(params=["memory", "redis"])
async def events(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Events]:
    if request.param == "memory":
        yield MemoryEvents()
        return
    redis = connect(redis_url)
    yield RedisEvents(redis)
    await redis.aclose()


async def take(events: Events, count: int, after: str = "$") -> list[Event]:
    taken = []
    async with asyncio.timeout(5):
        async for event in events.subscribe(after):
            taken.append(event)
            if len(taken) == count:
                break
    return taken


def step(number: int) -> Event:
    return Event("job", 1, "step", {"step": number, "steps": 9, "seconds_left": 1.5})


async def test_everybody_hears_everything_in_order(events: Events) -> None:
    listeners = [asyncio.create_task(take(events, 3)) for _ in range(2)]
    await asyncio.sleep(0.1)  # both are listening
    for number in range(3):
        await events.publish(step(number))
    first, second = await asyncio.gather(*listeners)
    assert first == second
    assert [event.facts for event in first] == [step(number).facts for number in range(3)]
    assert [(event.job_id, event.attempt, event.code) for event in first] == [("job", 1, "step")] * 3


async def test_a_listener_goes_on_where_it_was(events: Events) -> None:
    for number in range(4):
        await events.publish(step(number))
    kept = await take(events, 4, after="0")
    assert [event.facts["step"] for event in kept] == [0, 1, 2, 3]
    assert len({event.id for event in kept}) == 4
    assert await take(events, 2, after=kept[1].id) == kept[2:]


async def test_events_before_a_subscription_are_not_received(events: Events) -> None:
    await events.publish(step(0))
    listener = asyncio.create_task(take(events, 1))
    await asyncio.sleep(0.1)
    await events.publish(step(1))
    assert [event.facts["step"] for event in await listener] == [1]


async def test_news_that_redis_does_not_take_are_dropped(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.events.PATIENCE", 0.2)
    redis = connect(f"unix://{tmp_path}/nobody.sock")
    await RedisEvents(redis).publish(step(0))
    await redis.aclose()
