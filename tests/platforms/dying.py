"""A bot process that dies by SIGKILL at a chosen step: each time that one of its coroutines goes on after an await."""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from typing import Any

from bot.frontends import discord, telegram
from bot.settings import BotSettings
from storage.open import Storage, open_storage

Serve = Callable[[Storage, BotSettings, Callable[[str], None]], Awaitable[None]]
SERVE: Mapping[str, Serve] = {"discord": discord.serve, "telegram": telegram.serve}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are counted."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine, self._step = coroutine, step

    def send(self, value: Any) -> Any:
        self._step()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._step()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)


def _run(platform: str, environment: dict[str, str], at: int | None, steps: Any, ready: Any) -> None:
    """Serve until terminated, or until step `at` after the bot was ready; 0 is never, None does not even count."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.update(environment)
    counting = False

    def step() -> None:
        if counting:
            steps.value += 1
            if steps.value == at:
                os.kill(os.getpid(), signal.SIGKILL)

    def is_ready(_: str) -> None:
        nonlocal counting
        counting = True
        ready.set()

    def loop() -> asyncio.AbstractEventLoop:
        made = asyncio.new_event_loop()
        made.set_task_factory(
            lambda where, coroutine, **more: asyncio.Task(Counted(coroutine, step), loop=where, **more)
        )  # type: ignore[arg-type]
        return made

    async def serve() -> None:
        serving = asyncio.current_task()
        assert serving
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        settings = BotSettings(_env_file=None)
        async with open_storage(settings) as storage:
            await SERVE[platform](storage, settings, is_ready)

    with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=None if at is None else loop) as runner:
        runner.run(serve())


class Bot:
    """A process of the bot. `steps`: how many it has made since it was ready."""

    def __init__(self, platform: str, environment: dict[str, str], at: int | None = 0) -> None:
        self._steps, self._ready = _context.Value("q", 0), _context.Event()
        self._process = _context.Process(target=_run, args=(platform, environment, at, self._steps, self._ready))

    async def start(self) -> None:
        """Start it, and return once people can use it, unless it died before."""
        await asyncio.to_thread(self._process.start)
        async with asyncio.timeout(120):
            while self.alive and not self._ready.is_set():
                await asyncio.sleep(0.01)

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def steps(self) -> int:
        return int(self._steps.value)

    @property
    def killed(self) -> bool:
        """Whether it died as it was told to."""
        return self._process.exitcode == -signal.SIGKILL

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    async def stop(self) -> None:
        """End it as an operator would, and wait for that."""
        if self.alive:
            self._process.terminate()
        await asyncio.to_thread(self._process.join, 30)
        if self.alive:
            self._process.kill()
        await asyncio.to_thread(self._process.join)
        self._process.close()
