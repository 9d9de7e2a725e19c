"""How fast Telegram may be sent messages: about 30 a second in all, 1 a second in a chat, 20 a minute in a group.

Source: "My bot is hitting limits" in Telegram's bot FAQ. Every picture of an album counts as a message.

The library's own AIORateLimiter limits the overall and the group rate only, counts an album as one message, and makes
all chats wait after a retry-after in one. It also waits inside the call, so the ledger would list a message as perhaps
sent long before it is sent.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bot.frontends.locks import Locks


@dataclass(frozen=True, slots=True)
class Rate:
    """At most this many messages within this many seconds."""

    most: int
    seconds: float


@dataclass(slots=True)
class _Window:
    rate: Rate
    times: deque[float] = field(default_factory=deque)

    def wait(self, count: int, now: float) -> float:
        """Seconds until `count` more messages fit."""
        while self.times and self.times[0] <= now - self.rate.seconds:
            self.times.popleft()
        over = len(self.times) + min(count, self.rate.most) - self.rate.most
        return self.times[over - 1] + self.rate.seconds - now if over > 0 else 0.0


class Pace:
    """The right to send in each chat, given in the order of the requests.

    clock: seconds that only grow. sleep: waits for that many seconds of the clock.
    """

    def __init__(
        self,
        overall: Rate = Rate(28, 1.0),
        private: Rate = Rate(20, 20.0),
        group: Rate = Rate(19, 60.0),
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._overall = _Window(overall)
        self._private, self._group = private, group
        self._chats: dict[int, _Window] = {}
        self._paused: dict[int, float] = {}
        self._turns = Locks[int]()

    async def turn(self, chat: int, count: int = 1) -> None:
        """Return once `count` messages may be sent to this chat; they count as sent."""
        async with self._turns[chat]:
            window = self._window(chat)
            while True:
                wait = self._wait(chat, window, count)
                if wait <= 0:
                    break
                await self._sleep(wait)
            for used in (window, self._overall):
                used.times.extend([self._clock()] * min(count, used.rate.most))
        if len(self._chats) > 10_000:
            self._chats = {
                known: window for known, window in self._chats.items() if window.wait(window.rate.most, self._clock())
            }

    def wait(self, chat: int, count: int = 1) -> float:
        """Seconds until `count` messages may be sent to this chat, if nobody else asks meanwhile."""
        if self._turns.locked(chat):
            return max(self._overall.rate.seconds, self._overall.wait(count, self._clock()))
        return self._wait(chat, self._window(chat), count)

    def _window(self, chat: int) -> _Window:
        return self._chats.setdefault(chat, _Window(self._private if chat > 0 else self._group))

    def _wait(self, chat: int, window: _Window, count: int) -> float:
        now = self._clock()
        if self._paused.get(chat, 0.0) <= now:
            self._paused.pop(chat, None)
        return max(window.wait(count, now), self._overall.wait(count, now), self._paused.get(chat, now) - now)

    async def wait_retry_after(self, chat: int) -> None:
        """Return once Telegram's retry-after time for this chat is over."""
        if (seconds := self.retry_after(chat)) > 0:
            await self._sleep(seconds)

    def retry_after(self, chat: int) -> float:
        """Seconds left of Telegram's retry-after time for this chat."""
        return max(0.0, self._paused.get(chat, 0.0) - self._clock())

    def pause(self, chat: int, seconds: float) -> None:
        """Note the retry-after time that Telegram asked for in this chat."""
        self._paused[chat] = max(self._paused.get(chat, 0.0), self._clock() + seconds)
