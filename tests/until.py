"""Waiting in tests for what another task or process does."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T | None] | Callable[[], Awaitable[T | None]], *, within: float = 60.0) -> T:
    """Call `condition`, plain or async, every 10 ms until it returns something true, and return that.

    Fails the test after `within` seconds. The limit ends a test that hangs; it measures nothing.
    """
    async with asyncio.timeout(within):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
