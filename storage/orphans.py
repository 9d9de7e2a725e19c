"""Blobs that no record names: what processes that died halfway left behind.

A blob is stored before the record that names it, so a new blob may still get its record; its age decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from functools import partial

from storage import keys
from storage.blobs import Blobs
from storage.records import Records

AGE = timedelta(hours=6)
"""From this age on, a blob without a record is an orphan: the photos of an album arrive within minutes."""
EVERY = 3600.0
"""Seconds between two sweeps."""

log = logging.getLogger(__name__)


async def keep_swept(records: Records, blobs: Blobs) -> None:
    """Sweep now and every hour, forever."""
    while True:
        try:
            if swept := await sweep(records, blobs):
                log.info("erased %d blobs that no record names", swept)
        except Exception:
            log.exception("blobs that no record names were not erased")
        await asyncio.sleep(EVERY)


async def sweep(records: Records, blobs: Blobs, age: timedelta = AGE) -> int:
    """Erase the blobs that no record names; returns how many keys.

    These are photos in no album, adapters, samples and pictures whose avatar or job is gone, checkpoints of jobs that
    are over, and half-stored blobs. Only blobs of at least this age are looked at, checkpoints excepted.
    """
    await blobs.clear_drafts(age)
    photos = await blobs.list(keys.PHOTOS, age)
    orphans = set(photos) - await records.avatars.photo_keys_in_use(photos)
    for prefix in (keys.ADAPTERS, keys.SAMPLES):
        orphans |= await _unowned(await blobs.list(prefix, age), records.avatars.get)
    orphans |= await _unowned(await blobs.list(keys.PICTURES, age), records.jobs.get)
    # A checkpoint is stored only while its job is under way, so its age does not matter.
    orphans |= await _unowned(await blobs.list(keys.CHECKPOINTS), partial(_under_way, records))
    for key in orphans:
        await blobs.delete(key)
    return len(orphans)


async def _unowned(blob_keys: Collection[str], find_owner: Callable[[str], Awaitable[object]]) -> set[str]:
    """Those of the keys whose avatar or job `find_owner` does not find."""
    unknown = {owner for owner in {keys.owner_of(key) for key in blob_keys} if not await find_owner(owner)}
    return {key for key in blob_keys if keys.owner_of(key) in unknown}


async def _under_way(records: Records, job_id: str) -> bool:
    job = await records.jobs.get(job_id)
    return job is not None and not job.over
