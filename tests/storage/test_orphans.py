"""What dead processes left in the real folder and records is erased; what anybody names, or is about to, stays."""

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from storage.blobs import Blobs, FolderBlobs, MemoryBlobs
from storage.jobs import Imagine, JobKind, State, Train
from storage.orphans import AGE, keep_swept, sweep
from storage.records import Records
from tests.until import until


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


async def stored(blobs: FolderBlobs, *keys: str, age: timedelta = AGE) -> None:
    """As if they had been stored so long ago."""
    for key in keys:
        await blobs.put(key, b"x")
        made_old(blobs.folder / key, age)


def made_old(path: Path, age: timedelta = AGE) -> None:
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


async def test_photos_in_no_album_are_erased_once_nobody_is_about_to_name_them(
    records: Records, blobs: FolderBlobs
) -> None:
    anna = await records.users.get_or_create("discord", "11", "Anna")
    await records.avatars.create(anna.id, "mia7", "woman", ["photos/a/1", "photos/a/2"], "1")
    await stored(blobs, "photos/a/1", "photos/a/2", "photos/b/1", "photos/b/2")
    await stored(blobs, "photos/c/1", age=AGE - timedelta(minutes=1))
    assert await sweep(records, blobs) == 2
    assert await blobs.list() == ["photos/a/1", "photos/a/2", "photos/c/1"]
    assert await sweep(records, blobs) == 0


async def test_a_photo_that_was_half_stored_is_erased(records: Records, blobs: FolderBlobs) -> None:
    await stored(blobs, "photos/a/1", age=timedelta())
    old, young = blobs.folder / "photos/a/.half", blobs.folder / "photos/a/.begun"
    for draft in (old, young):
        draft.write_bytes(b"half a photo")
    made_old(old)
    await sweep(records, blobs)
    assert not old.exists() and young.exists() and await blobs.list() == ["photos/a/1"]


async def test_what_was_made_for_jobs_and_avatars_goes_with_them(records: Records, blobs: FolderBlobs) -> None:
    anna = await records.users.get_or_create("discord", "11", "Anna")
    avatar = await records.avatars.create(anna.id, "mia7", "woman", [], "1")
    drawing = await records.jobs.create(JobKind.IMAGINE, anna.id, "discord", "dm/1", Imagine("mia7", (avatar.id,)))
    kept = [f"adapters/{avatar.id}/x/a", f"pictures/{drawing.id}/1-0.png", f"samples/{avatar.id}/x/0.png"]
    await stored(blobs, *kept, "adapters/gone/x/a", "samples/gone/x/0.png", "pictures/gone/1-0.png")
    assert await sweep(records, blobs) == 3
    assert await blobs.list() == kept
    # As an engine leaves it that was still at it while its person was forgotten.
    await records.users.forget(anna.id)
    assert await sweep(records, blobs) == 3 and await blobs.list() == []


async def test_a_checkpoint_goes_with_the_end_of_its_job(records: Records, blobs: FolderBlobs) -> None:
    anna = await records.users.get_or_create("discord", "11", "Anna")
    avatar = await records.avatars.create(anna.id, "mia7", "woman", [], "1")
    job = await records.jobs.create(JobKind.TRAIN, anna.id, "discord", "dm/1", Train(avatar.id))
    checkpoint = f"checkpoints/{job.id}/checkpoint.safetensors"
    await stored(blobs, checkpoint, age=timedelta())
    claimed = await records.jobs.claim(job.id)
    assert claimed and await sweep(records, blobs) == 0
    await records.jobs.finish(job.id, claimed.attempt, State.SUCCEEDED, result={})
    await stored(blobs, checkpoint, age=timedelta())
    assert await sweep(records, blobs) == 1 and await blobs.list() == []


async def test_more_photos_than_one_query_takes(records: Records, blobs: FolderBlobs) -> None:
    anna = await records.users.get_or_create("discord", "11", "Anna")
    keys = [f"photos/a/{number}" for number in range(1200)]
    await records.avatars.create(anna.id, "mia7", "woman", keys[1:], "1")
    assert await records.avatars.photo_keys_in_use(keys) == set(keys[1:])


async def test_it_goes_on_after_a_failure(
    records: Records, blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("storage.orphans.EVERY", 0.01)
    await stored(blobs, "photos/b/1")
    look, calls = records.avatars.photo_keys_in_use, []

    async def away(keys: list[str]) -> set[str]:
        calls.append(keys)
        if len(calls) == 1:
            raise OSError
        return await look(keys)

    monkeypatch.setattr(records.avatars, "photo_keys_in_use", away)
    sweeping = asyncio.create_task(keep_swept(records, blobs))

    async def all_erased() -> bool:
        return not await blobs.list()

    await until(all_erased)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    assert "were not erased" in caplog.text


async def test_both_stores_tell_the_old_from_the_young(tmp_path: Path) -> None:
    stores: list[Blobs] = [MemoryBlobs(), FolderBlobs(tmp_path)]
    for blobs in stores:
        await blobs.put("photos/a/1", b"x")
        assert await blobs.list("photos/", timedelta()) == ["photos/a/1"]
        assert await blobs.list("photos/", timedelta(seconds=60)) == []
        await blobs.clear_drafts(timedelta())
        assert await blobs.list() == ["photos/a/1"]
