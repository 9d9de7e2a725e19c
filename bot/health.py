"""The health file: a bot's event loop touches it for as long as the bot is connected to its platform."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

BEAT = 2.0
"""Seconds between two touches."""
STALE = 20.0
"""Age in seconds from which on the file means that the bot is not connected."""


async def beating(file: Path | None, connected: Callable[[], bool]) -> None:
    """Touch the file every BEAT seconds while the bot is connected, until cancelled. Do nothing without a file."""
    while file is not None:
        if connected():
            # If the file can't be touched it grows old, and the check reports that.
            with suppress(OSError):
                await asyncio.to_thread(file.touch)
        await asyncio.sleep(BEAT)


def check(file: Path | None) -> int:
    """Print what is wrong to standard error. Return the exit status: 0 connected, 1 not connected, 2 no file set."""
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
