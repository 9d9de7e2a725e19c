"""The supervisor's client of the GPU process: starts it, sends requests, and restarts it when it dies or hangs.

Imports no torch.
"""

import asyncio
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from storage.errors import UserError

STALL = 600.0
"""Seconds of silence during a request before the GPU process is killed and restarted."""

ENVIRONMENT: Mapping[str, str] = {
    # Otherwise transformers warns at every start that torchvision is missing, which nothing here needs.
    "TRANSFORMERS_VERBOSITY": "error",
    # By default a waiting thread spins (libgomp, in torch's builds for Linux). If another program has taken a core, the
    # spinning thread keeps that program from finishing. Two threads on two cores of which other programs took 70 %,
    # runs in turn: 2.6 to 4.4 steps a second of a small training with spinning, 12.1 to 17.2 without.
    "OMP_WAIT_POLICY": "passive",
}
"""Environment variables that must be set before torch is loaded. Values that the operator set take precedence."""

STOPPING = 10.0
"""Seconds to wait until a cancelled request has stopped; a step of a large model takes some of them."""

PROCESS = (sys.executable, "-m", "engine.work.gpu_process")
"""The command line of the GPU process."""

News = Mapping[str, Any]
log = logging.getLogger(__name__)


class GpuDied(Exception):
    """The GPU process ended, or was killed because it hung, while it worked on this request."""


class RequestFailed(Exception):
    """An internal error of the engine ended the request; the GPU process has printed it on standard error."""


class BaseUnusable(Exception):
    """The GPU process cannot load the base model; it has printed the reason on standard error."""


class GpuClient:
    """Owns one GPU process. The first request starts it, and so does the first request after it died.

    A spare process replaces a dead one. It has imported torch, which takes most of the time of a restart, and holds
    neither base model nor GPU memory.
    """

    def __init__(self, base_model: str | None = None, stall: float = STALL, process: Sequence[str] = PROCESS) -> None:
        self._environment = {**ENVIRONMENT, **os.environ}
        if base_model:
            self._environment["AVATAR_BASE_MODEL"] = base_model
        self._stall = stall
        self._command = process
        self._process: asyncio.subprocess.Process | None = None
        self._spare: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Queue[News | None]] = {}
        self._ready = asyncio.Event()
        self._model: News = {}

    @property
    def pid(self) -> int | None:
        """The GPU process's id while it runs."""
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
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            limit=2**20,
        )

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

    async def model(self) -> News:
        """What the base model can do: the GPU process's first message, `ready`. Starts the process if it does not run.

        Raises:
            BaseUnusable, GpuDied: as `ready`.
        """
        await self.ready()
        return self._model

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout
        # Requests add themselves to this dict, and all of them are notified when the process ends.
        waiting = self._waiting
        while line := await process.stdout.readline():
            news = json.loads(line)
            if not ready.is_set():
                self._model = news
                ready.set()
                self._spare = await self._spawn()
            if news["id"] in waiting:
                waiting[news["id"]].put_nowait(news)
        await process.wait()
        log.warning("GPU process %d ended with status %s", process.pid, process.returncode)
        self._waiting = {}
        ready.set()
        for queue in waiting.values():
            queue.put_nowait(None)

    async def run(self, task: str, on_news: Callable[[News], None] = lambda news: None, **request: Any) -> News:
        """Send the request `task` and return its last message, `done`; earlier messages go to `on_news`.

        Cancelling this coroutine cancels the request and waits until it has stopped between two steps: until then it
        may write into folders that the caller is about to remove.

        Raises:
            GpuDied: the process ended or hung; the next request starts a new one.
            UserError: the request cannot be done, and repeating it would not help.
            RequestFailed: an internal error of the engine.
        """
        await self.start()
        request_id = str(next(self._numbers))
        queue: asyncio.Queue[News | None] = asyncio.Queue()
        self._waiting[request_id] = queue
        try:
            if self.pid is None:
                raise GpuDied
            self._write({"id": request_id, "task": task, **request})
            return await self._follow(queue, on_news)
        except asyncio.CancelledError:
            self._write({"id": request_id, "task": "cancel"})
            with suppress(TimeoutError, GpuDied, UserError, RequestFailed):
                async with asyncio.timeout(STOPPING):
                    await self._follow(queue, lambda news: None)
            raise
        finally:
            self._waiting.pop(request_id, None)

    async def _follow(self, queue: "asyncio.Queue[News | None]", on_news: Callable[[News], None]) -> News:
        """The last message of a request: `done`, or `cancelled` after this client cancelled it."""
        while True:
            try:
                async with asyncio.timeout(self._stall):
                    news = await queue.get()
            except TimeoutError:
                log.error("GPU process gave no news for %.0f s and is killed", self._stall)
                self.kill()
                raise GpuDied from None
            if news is None:
                raise GpuDied
            match news["news"]:
                case "done" | "cancelled":
                    return news
                case "failed" if news["code"] == "internal":
                    raise RequestFailed
                case "failed":
                    raise UserError(news["code"], **news["facts"])
                case _:
                    on_news(news)

    def _write(self, request: Mapping[str, Any]) -> None:
        assert self._process and self._process.stdin
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def kill(self) -> None:
        """End the process at once; requests under way raise GpuDied."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def close(self) -> None:
        """End the processes by closing their standard input; kill those that still run after 5 s."""
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
