"""Blobs that no record names: what a process that died in the middle left behind.

A blob is stored before the record that names it, so a young one may still be named; its age decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from functools import partial

from storage.blobs import Blobs
from storage.records import Records

AGE = timedelta(hours=6)
"""From which on nobody is still about to name a blob: a whole album comes within minutes."""
EVERY = 3600.0
"""Seconds between two sweeps."""

log = logging.getLogger(__name__)


async def keep_swept(records: Records, blobs: Blobs) -> None:
    """Sweep now and every hour, forever."""
    while True:
        try:
            if swept := await sweep(records, blobs):
                log.info("%d blobs that nobody names were erased", swept)
        except Exception:
            log.exception("blobs that nobody names were not erased")
        await asyncio.sleep(EVERY)


async def sweep(records: Records, blobs: Blobs, age: timedelta = AGE) -> int:
    """Erase photos that are in no album, what was made for jobs and avatars that are forgotten, the checkpoints of
    jobs that are over, and what is half stored; how many keys that were."""
    await blobs.clear_drafts(age)
    photos = await blobs.list("photos/", age)
    orphans = set(photos) - await records.photos_named(photos)
    for prefix in ("adapters/", "samples/"):
        orphans |= await _without(records.avatar, await blobs.list(prefix, age))
    orphans |= await _without(records.job, await blobs.list("pictures/", age))
    # Only of a job that is under way is one stored, so this is sure at once.
    orphans |= await _without(partial(_under_way, records), await blobs.list("checkpoints/"))
    for key in orphans:
        await blobs.delete(key)
    return len(orphans)


async def _without(look: Callable[[str], Awaitable[object]], keys: Collection[str]) -> set[str]:
    """Those of the keys whose second part `look` does not know."""
    unknown = {owner for owner in {key.split("/")[1] for key in keys} if not await look(owner)}
    return {key for key in keys if key.split("/")[1] in unknown}


async def _under_way(records: Records, job_id: str) -> bool:
    job = await records.job(job_id)
    return job is not None and not job.over
