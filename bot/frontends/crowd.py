"""Under load the bot first acknowledges every command, then works through them.

People who see nothing for some seconds send their command again, and Discord gives up after three. Acknowledging is
quick and working is not, so work waits while many acknowledgements are pending.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

CROWD = 10
"""Number of simultaneous commands from which on the bot is under load."""
_WAIT_MOST = 2.0
"""Longest wait for acknowledgements, in seconds."""


class Crowd:
    """Counts pending acknowledgements. Work waits while at least `blocking` of them are pending."""

    def __init__(self, blocking: int) -> None:
        self._blocking = blocking
        self._pending = 0
        self._more_expected = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._acknowledged = asyncio.Event()
        self._acknowledged.set()

    @property
    def work_waits(self) -> bool:
        """Whether work that begins now has to wait."""
        return not self._acknowledged.is_set()

    @contextmanager
    def acknowledging(self) -> Iterator[None]:
        """Count one pending acknowledgement inside the `with` block."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def acknowledge(self, acknowledgement: Coroutine[Any, Any, None]) -> None:
        """Acknowledge a command in a background task, which counts as pending from now on."""
        self._add(1)
        self._tasks.add(task := asyncio.create_task(acknowledgement))
        task.add_done_callback(self._ended)

    def expect_more(self, more: bool) -> None:
        """Say whether more commands are about to arrive; work waits for them too."""
        self._more_expected = more
        self._add(0)

    async def all_acknowledged(self) -> None:
        """Return once work may begin, at the latest after two seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._acknowledged.wait(), _WAIT_MOST)

    async def close(self) -> None:
        """Wait for the background acknowledgements."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._add(-1)

    def _add(self, pending: int) -> None:
        self._pending += pending
        if self._more_expected or self._pending >= self._blocking:
            self._acknowledged.clear()
        else:
            self._acknowledged.set()
