"""Five hundred people at once on each platform, with all kinds of commands: what they get is checked, how soon printed.

`AVATAR_BENCHMARK_PEOPLE=500 pytest -s tests/benchmarks/test_crowd.py`; without the setting it is skipped, since it
wants a machine that does nothing else. The time runs from the moment in which the first of all commands is given; the
simulated platform, the engine's stub and the bot share the machine's processors.
"""

import os
from collections.abc import Awaitable, Callable

import pytest

from tests.platforms.crowd import Seen, on_discord, on_telegram

PEOPLE = int(os.environ.get("AVATAR_BENCHMARK_PEOPLE", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PEOPLE, reason="set AVATAR_BENCHMARK_PEOPLE, to 500 say")]


@pytest.mark.parametrize("chance", [0.0, 0.02])
@pytest.mark.parametrize("platform", [on_telegram, on_discord])
async def test_a_crowd(platform: Callable[[int, float], Awaitable[Seen]], chance: float) -> None:
    seen = await platform(PEOPLE, chance)
    half, nearly_all = seen.percentile(0.5), seen.percentile(0.99)
    print(f"\n{platform.__name__}: {PEOPLE} people at once, {chance:.0%} errors of each kind")
    print(f"acknowledged within {half:.2f} s (half), {nearly_all:.2f} s (99 %); all answered in {seen.seconds:.0f} s")
    print(f"{sum(one.silenced > 0 for one in seen.people)} of them not counting the silence that was asked for before")
    print(f"{sum(one.asked > 1 for one in seen.people)} were told that their answer may be lost, and asked again")
    seen.check()
