"""A process that works as an engine does, but on jobs that last until a file says so. Run by the queue's tests."""

import asyncio
import signal
import sys
from pathlib import Path

from storage.jobs import SPECS, State
from storage.queue import Queue, work
from storage.records import Job, Records


async def main(url: str, records_url: str, folder: Path, name: str) -> None:
    records, queue = await Records.open(records_url), Queue(url)

    async def handle(job: Job) -> None:
        claimed = await records.jobs.claim(job.id)
        if claimed is None:
            return
        (folder / f"{job.id}.{claimed.attempt}.{name}").touch()
        while not (folder / f"finish.{name}").exists():  # no event crosses processes
            await asyncio.sleep(0.05)  # and no renewal, so that it tries to finish what it lost
        won = await records.jobs.finish(
            job.id, claimed.attempt, State.SUCCEEDED, {"by": name, "attempt": claimed.attempt}
        )
        (folder / f"finished.{job.id}.{name}.{'won' if won else 'lost'}").touch()

    working = asyncio.create_task(work(dict.fromkeys(SPECS, handle), records, queue))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    (folder / f"ready.{name}").touch()
    try:
        await working
    except asyncio.CancelledError:
        pass
    finally:
        await queue.close()
        await records.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
