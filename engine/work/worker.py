"""`python -m engine work`: the supervisor. It takes jobs from the queues and owns the GPU process; no torch here."""

import asyncio
import logging
import signal
from pathlib import Path

from engine.work.gpu_client import Gpu
from engine.work.handlers import Tasks, styles, sweep
from engine.work.settings import EngineSettings
from storage.open import open_storage
from storage.orphans import keep_swept
from storage.queue import HEARTBEAT, Queue, work

log = logging.getLogger(__name__)


async def run(settings: EngineSettings) -> None:
    """Work until SIGTERM or SIGINT; what runs then is handed back to the queue with its checkpoint.

    Raises:
        BaseUnusable: the base model cannot be loaded.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_storage(settings) as storage:
        folder = settings.home / "work"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(folder)
        gpu = Gpu(settings.base_model, settings.gpu_stall)
        try:
            await gpu.ready()
            print("The engine is ready", flush=True)
            sweeping = asyncio.create_task(keep_swept(storage.records, storage.blobs))
            offering = asyncio.create_task(_offer(storage.queue, settings.home))
            tasks = Tasks(storage, gpu, folder)
            working = asyncio.create_task(
                work(tasks.handlers(), storage.records, storage.queue, events=storage.events, takes=tasks.takes)
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            stopping.cancel()
            working.cancel()
            sweeping.cancel()
            offering.cancel()
            await asyncio.gather(working, stopping, sweeping, offering, return_exceptions=True)
        finally:
            await gpu.close()


async def _offer(queue: Queue, home: Path) -> None:
    while True:
        await queue.offer(styles(home))
        await asyncio.sleep(HEARTBEAT)
