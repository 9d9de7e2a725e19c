"""The supervisor's side of the GPU process: start it, ask it, see it die or hang, start it anew. No torch here."""

import asyncio
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

STALL = 600.0
"""Seconds without any news during a request after which the GPU process counts as hung and is killed."""

ENVIRONMENT: Mapping[str, str] = {
    # transformers would tell at every start that torchvision is not there, which nothing here needs.
    "TRANSFORMERS_VERBOSITY": "error",
    # A thread that waits for one whose core another program has taken would spin meanwhile, and so take that program's
    # place (libgomp, in torch's builds for Linux). Two threads on two cores of which others took 70 %, pairs of runs by
    # turns: 2.6 to 4.4 steps a second of a small training with spinning, 12.1 to 17.2 without.
    "OMP_WAIT_POLICY": "passive",
}
"""What must be said before torch is loaded; whoever starts the engine may say otherwise."""

STOPPING = 10.0
"""Seconds in which a cancelled request stops, else it is left to itself: a step of a large model takes some."""

News = Mapping[str, Any]
log = logging.getLogger(__name__)


class GpuDied(Exception):
    """The GPU process ended, or was killed for hanging, while it worked on this request."""


class Refused(Exception):
    """The GPU process refused or failed the request: `code` and `facts` say why."""

    def __init__(self, code: str, facts: Mapping[str, Any]) -> None:
        super().__init__(code)
        self.code, self.facts = code, dict(facts)


class BaseUnusable(Exception):
    """The GPU process cannot load the base model; it has said why on standard error."""


class Cancelled(Exception):
    """The request was cancelled and has stopped."""


class Gpu:
    """Owns one GPU process. It is started by the first request and again by the first one after its death.

    A spare process, which has imported torch and holds neither base model nor GPU memory, takes a dead one's place:
    that import is most of what a restart takes.
    """

    def __init__(self, base_model: str | None = None, stall: float = STALL) -> None:
        self._environment = {**ENVIRONMENT, **os.environ}
        if base_model:
            self._environment["AVATAR_BASE_MODEL"] = base_model
        self._stall = stall
        self._process: asyncio.subprocess.Process | None = None
        self._spare: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Queue[News | None]] = {}
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The GPU process's number while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the GPU process unless it runs; it then loads the base model."""
        async with self._starting:
            if self.pid is not None:
                return
            spare, self._spare = self._spare, None
            self._process = spare if spare and spare.returncode is None else await self._spawn()
            self._write({"task": "load"})
            self._ready = asyncio.Event()
            self._reader = asyncio.create_task(self._read(self._process, self._ready), name="GPU process's news")
            log.info("GPU process %d started", self._process.pid)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine.work.gpu_process",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=self._environment, limit=2**20,
        )  # fmt: skip

    async def ready(self) -> None:
        """Start the GPU process and wait until its base model is loaded.

        Raises:
            BaseUnusable: there is no such model, or its family is not supported.
            GpuDied: it ended for another reason.
        """
        await self.start()
        await self._ready.wait()
        if self.pid is None:
            assert self._process
            raise BaseUnusable if self._process.returncode == 2 else GpuDied

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout
        # Whoever waits now or asks later, of this process, hears of its end.
        mine = self._waiting
        while line := await process.stdout.readline():
            news = json.loads(line)
            if not ready.is_set():
                ready.set()
                self._spare = await self._spawn()
            if news["id"] in mine:
                mine[news["id"]].put_nowait(news)
        await process.wait()
        log.warning("GPU process %d ended with status %s", process.pid, process.returncode)
        self._waiting = {}
        ready.set()
        for waiting in mine.values():
            waiting.put_nowait(None)

    async def run(self, task: str, on_news: Callable[[News], None] = lambda news: None, **request: Any) -> News:
        """Ask for `task` and return the news `done`; other news goes to `on_news`.

        Cancelling this coroutine cancels the request, and waits until it has stopped at its next step's boundary: until
        then it may write into folders that whoever asked is about to remove.

        Raises:
            GpuDied: the process ended or hung; asking again starts a new one.
            Refused: it cannot be done, and asking again would not help.
            Cancelled: `cancel` ended it.
        """
        await self.start()
        id = str(next(self._ids))
        news_of_it: asyncio.Queue[News | None] = asyncio.Queue()
        self._waiting[id] = news_of_it
        try:
            if self.pid is None:
                raise GpuDied
            self._write({"id": id, "task": task, **request})
            return await self._follow(news_of_it, on_news)
        except asyncio.CancelledError:
            self._write({"id": id, "task": "cancel"})
            with suppress(TimeoutError, GpuDied, Refused, Cancelled):
                async with asyncio.timeout(STOPPING):
                    await self._follow(news_of_it, lambda news: None)
            raise
        finally:
            self._waiting.pop(id, None)

    async def _follow(self, news_of_it: "asyncio.Queue[News | None]", on_news: Callable[[News], None]) -> News:
        while True:
            try:
                async with asyncio.timeout(self._stall):
                    news = await news_of_it.get()
            except TimeoutError:
                log.error("GPU process gave no news for %.0f s and is killed", self._stall)
                self.kill()
                raise GpuDied from None
            if news is None:
                raise GpuDied
            match news["news"]:
                case "done":
                    return news
                case "failed":
                    raise Refused(news["code"], news["facts"])
                case "cancelled":
                    raise Cancelled
                case _:
                    on_news(news)

    def _write(self, request: Mapping[str, Any]) -> None:
        assert self._process and self._process.stdin
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def kill(self) -> None:
        """End the process at once; whoever waits gets GpuDied."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def close(self) -> None:
        """End the processes: gently, and after 5 s at once."""
        await self._end(self._process)
        if self._reader:
            await self._reader
        await self._end(self._spare)

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        if process is None or process.returncode is not None:
            return
        assert process.stdin
        process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
        await process.wait()
