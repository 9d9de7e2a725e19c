"""Tasks that run beside their owner."""

import asyncio
import gc

import pytest

from storage.background import Background


async def test_tasks_are_held_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    background, gate, ended = Background(), asyncio.Event(), []

    async def work(number: int) -> None:
        await gate.wait()
        if number == 1:
            raise ValueError("a secret prompt")
        ended.append(number)
        if number == 2:
            background.start(work(3))

    for number in range(3):
        background.start(work(number), f"work {number}")
    await asyncio.sleep(0)
    gc.collect()
    gate.set()
    await background.wait()
    assert sorted(ended) == [0, 2, 3]  # one that was started meanwhile included
    assert [record.getMessage() for record in caplog.records] == ["work 1 failed: ValueError"]


async def test_stopping_cancels_all_and_waits_until_they_have_ended() -> None:
    background, ended = Background(), []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    for _ in range(3):
        background.start(forever())
    await asyncio.sleep(0)
    await background.stop()
    assert ended == [True] * 3
    await background.stop()
