"""A clock that tests move, for code that takes `clock` and `sleep`."""

import asyncio


class Clock:
    """Seconds since the test began. Sleeping moves the clock at once; with `stopped` a sleeper waits for ever."""

    def __init__(self, stopped: bool = False) -> None:
        self.now = 0.0
        self.stopped = stopped
        self.sleeps: list[float] = []
        """The seconds of each sleep that was asked for."""

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if self.stopped:
            await asyncio.Event().wait()
        self.now += seconds
        await asyncio.sleep(0)
