"""Whether a bot still works: its event loop touches a file for as long as it is connected to its platform."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

BEAT = 2.0
"""Seconds between two touches."""
STALE = 20.0
"""Seconds after which a file that nobody touched tells of no life."""


async def beating(file: Path | None, connected: Callable[[], bool]) -> None:
    """Touch the file, if there is one, whenever the bot is connected; until cancelled."""
    while file is not None:
        if connected():
            # A file that can't be touched is what the check reports.
            with suppress(OSError):
                await asyncio.to_thread(file.touch)
        await asyncio.sleep(BEAT)


def check(file: Path | None) -> int:
    """Say on standard error what is wrong, if anything; the exit status: 0 healthy, 1 not, 2 nothing to ask."""
    if file is None:
        print("python -m bot health: set AVATAR_HEALTH_FILE, for the bot too", file=sys.stderr)
        return 2
    try:
        age = time.time() - file.stat().st_mtime
    except OSError:
        print("python -m bot health: the bot was never connected", file=sys.stderr)
        return 1
    if age > STALE:
        print(f"python -m bot health: the bot was connected {age:.0f} s ago", file=sys.stderr)
        return 1
    return 0
