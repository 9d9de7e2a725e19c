"""`python -m engine work`: the supervisor. It takes jobs from the queues and owns the GPU process. Imports no torch."""

import asyncio
import logging
import signal
from pathlib import Path

from engine.sentences import OPERATOR_NOTICES
from engine.work.gpu_client import GpuClient
from engine.work.handlers import Handlers, styles, sweep
from engine.work.settings import EngineSettings
from storage.background import Background
from storage.open import open_storage
from storage.orphans import keep_swept
from storage.queue import HEARTBEAT, Queue, work

log = logging.getLogger(__name__)


async def run(settings: EngineSettings) -> None:
    """Work until SIGTERM or SIGINT. Running jobs then go back to the queue; their checkpoints stay.

    Raises:
        BaseUnusable: the base model cannot be loaded.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_storage(settings) as storage:
        folder = settings.home / "work"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(sweep, folder)
        gpu, background = GpuClient(settings.base_model, settings.gpu_stall), Background()
        try:
            model = await gpu.model()
            await storage.records.operators.set_base_model(model["base"], model["notice"], model["sizes"])
            log.info("base model: %s on %s", model["base"], model["device"])
            if model["notice"]:
                log.info("%s", OPERATOR_NOTICES[model["notice"]])
            print("The engine is ready", flush=True)
            background.start(keep_swept(storage.records, storage.blobs), "sweep blobs")
            background.start(_offer(storage.queue, settings.home), "offer styles")
            handlers = Handlers(storage, gpu, folder)
            working = asyncio.create_task(
                work(
                    handlers.by_kind(), storage.records, storage.queue, events=storage.events, accepts=handlers.accepts
                )
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            stopping.cancel()
            working.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)
        finally:
            await background.stop()
            await gpu.close()


async def _offer(queue: Queue, home: Path) -> None:
    """Offer this engine's styles for as long as it runs."""
    while True:
        await queue.offer(styles(home))
        await asyncio.sleep(HEARTBEAT)
