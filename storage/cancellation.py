"""What must not stop halfway when its process is told to end."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Go through with work that was begun, so that being stopped does not part what belongs together.

    A cancellation waits until the work is over and goes on then, whatever came of the work; a second one ends both.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
