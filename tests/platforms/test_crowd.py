"""Sixty people at once with all kinds of commands, while one call in fifty goes wrong in each way.

Five hundred are in `tests/benchmarks`.
"""

import pytest

from tests.platforms.crowd import on_discord, on_telegram

pytestmark = pytest.mark.slow
CHANCE = 0.02


async def test_a_crowd_on_telegram() -> None:
    (await on_telegram(60, CHANCE)).check()


async def test_a_crowd_on_discord() -> None:
    (await on_discord(60, CHANCE)).check()
