import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.blobs import CHUNK, Blobs, FolderBlobs, MemoryBlobs, checked
from storage.errors import UnknownBlob


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path / "deep" / "blobs")


async def chunks(*parts: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if then:
        raise then


async def test_what_is_put_is_got(blobs: Blobs) -> None:
    await blobs.put("photos/a1/0", b"first")
    await blobs.put("photos/a1/0", b"second")
    await blobs.put("photos/a1/1.png", chunks(b"in ", b"", b"parts"))
    assert await blobs.get("photos/a1/0") == b"second"
    assert await blobs.get("photos/a1/1.png") == b"in parts"
    assert await blobs.exists("photos/a1/0") and not await blobs.exists("photos/a1/2")


async def test_large_blobs_are_streamed_in_chunks(blobs: Blobs) -> None:
    data = os.urandom(CHUNK * 2 + 1)
    await blobs.put("adapters/x", data)
    parts = [part async for part in blobs.stream("adapters/x")]
    assert b"".join(parts) == data and max(map(len, parts)) <= CHUNK


@pytest.mark.parametrize("key", ["photos/a1", "photos/none", "photos/a1/0/below"])
async def test_a_missing_blob_is_unknown(blobs: Blobs, key: str) -> None:
    await blobs.put("photos/a1/0", b"")
    assert not await blobs.exists(key)
    with pytest.raises(UnknownBlob):
        await blobs.get(key)
    with pytest.raises(UnknownBlob):
        _ = [part async for part in blobs.stream(key)]


async def test_keys_are_listed_by_prefix(blobs: Blobs) -> None:
    for key in ("b/2", "b/10", "b/1/x", "bb/1", "a"):
        await blobs.put(key, b"x")
    assert await blobs.list("b/") == ["b/1/x", "b/10", "b/2"]
    assert await blobs.list("b/1") == ["b/1/x", "b/10"]
    assert await blobs.list() == ["a", "b/1/x", "b/10", "b/2", "bb/1"]
    assert await blobs.list("none/") == []


async def test_deleting_a_key_or_all_below_it(blobs: Blobs) -> None:
    for key in ("b/1", "b/2/x", "b/2/y", "bb/1"):
        await blobs.put(key, b"x")
    await blobs.delete("b/1")
    await blobs.delete("b/1")
    await blobs.delete("b/2")  # a key, not what is below
    assert await blobs.list() == ["b/2/x", "b/2/y", "bb/1"]
    await blobs.delete("b/")
    await blobs.delete("b/")
    assert await blobs.list() == ["bb/1"]


async def test_a_failed_put_leaves_what_was_there(blobs: Blobs) -> None:
    await blobs.put("k/old", b"old")
    for key in ("k/old", "k/new"):
        with pytest.raises(ConnectionError):
            await blobs.put(key, chunks(b"half", then=ConnectionError()))
    assert await blobs.list() == ["k/old"] and await blobs.get("k/old") == b"old"


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "A", "a b", ".hidden", "a/.b", "a\n", "ä"]
)
async def test_what_is_no_key_is_refused(blobs: Blobs, key: str) -> None:
    for call in (blobs.put(key, b""), blobs.get(key), blobs.exists(key), blobs.delete(key)):
        with pytest.raises(ValueError, match="not a blob key"):
            await call


@given(st.text(alphabet="ab./_-\n\0A", max_size=12))
def test_no_key_leaves_the_folder(key: str) -> None:
    try:
        checked(key)
    except ValueError:
        return
    folder = Path("/blobs")
    assert Path(os.path.normpath(folder / key)) == folder / key != folder


async def test_the_folder_is_private_and_holds_no_drafts(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "blobs"
    blobs = FolderBlobs(folder)
    await asyncio.gather(*(blobs.put("photos/a/0", bytes([n]) * 1000) for n in range(8)))
    assert len(set(await blobs.get("photos/a/0"))) == 1
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["0"]
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "deep", folder, folder / "photos"]} == {0o700}
    assert (folder / "photos/a/0").stat().st_mode & 0o777 == 0o600
