import asyncio
import errno
import os
import shutil
import threading
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage.blobs
from storage.atomic import atomic_write
from storage.blobs import CHUNK, Blobs, FolderBlobs, MemoryBlobs, checked
from storage.errors import UnknownBlob, UserError


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


def files(folder: Path) -> set[str]:
    """The names of all files below a folder, drafts included."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another file system")

    if request.param == "no links":
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    return request.param == "links"


async def test_files_are_stored_and_fetched(blobs: Blobs, tmp_path: Path, links: bool) -> None:
    file, fetched = tmp_path / "file", tmp_path / "fetched"
    data = os.urandom(CHUNK * 2 + 1)
    file.write_bytes(data)
    fetched.write_bytes(b"before")
    await blobs.put("checkpoints/j1/x", b"before")
    for _ in range(2):
        await blobs.store("checkpoints/j1/x", file)
        await blobs.fetch("checkpoints/j1/x", fetched)
        assert await blobs.get("checkpoints/j1/x") == file.read_bytes() == fetched.read_bytes() == data
    file.unlink()
    assert await blobs.get("checkpoints/j1/x") == data
    await blobs.delete("checkpoints/j1/x")
    assert fetched.read_bytes() == data and not await blobs.exists("checkpoints/j1/x")
    assert files(tmp_path) == {"fetched"}


async def test_a_stored_blob_outlives_what_replaces_its_file(blobs: Blobs, tmp_path: Path, links: bool) -> None:
    """As a training replaces its checkpoint after each was stored."""
    file, fetched = tmp_path / "checkpoint", tmp_path / "fetched"
    file.write_bytes(b"first")
    await blobs.store("checkpoints/j1/x", file)
    await blobs.fetch("checkpoints/j1/x", fetched)
    for path in (file, fetched):
        with atomic_write(path) as draft:
            draft.write_bytes(b"second")
        assert await blobs.get("checkpoints/j1/x") == b"first"
    await blobs.store("checkpoints/j1/x", file)
    assert await blobs.get("checkpoints/j1/x") == b"second"


async def test_a_file_is_as_old_as_its_storing(blobs: Blobs, tmp_path: Path, links: bool) -> None:
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (0, 0))
    await blobs.store("adapters/x", tmp_path / "file")
    assert await blobs.list("adapters/", timedelta(hours=1)) == []
    assert await blobs.list("adapters/", timedelta(0)) == ["adapters/x"]


async def test_what_cannot_be_stored_or_fetched_changes_nothing(blobs: Blobs, tmp_path: Path, links: bool) -> None:
    await blobs.put("b/1", b"old")
    with pytest.raises(FileNotFoundError):
        await blobs.store("b/1", tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"mine")
    for key in ("b", "b/2", "b/1/below"):
        with pytest.raises(UnknownBlob):
            await blobs.fetch(key, tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        await blobs.fetch("b/1", tmp_path / "no folder" / "file")
    assert await blobs.list() == ["b/1"] and await blobs.get("b/1") == b"old"
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert files(tmp_path) <= {"file", "1"}


async def test_a_large_file_is_copied_in_chunks(tmp_path: Path, links: bool) -> None:
    blobs, large, size = FolderBlobs(tmp_path / "blobs"), tmp_path / "large", 32 * CHUNK
    with large.open("wb") as file:
        file.truncate(size)
    await blobs.put("warm", b"")
    tracemalloc.start()
    try:
        await blobs.store("adapters/x", large)
        await blobs.fetch("adapters/x", tmp_path / "fetched")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "fetched").stat().st_size == size
    assert peak < 4 * CHUNK


@pytest.mark.parametrize("slow", ["sync", "copy"])
async def test_the_loop_goes_on_while_a_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str, links: bool
) -> None:
    """Nothing that waits for the disk waits on the loop, which alone opens the gate."""
    if slow == "copy" and links:
        pytest.skip("nothing is copied")
    gate, reached, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()
    module, name = (os, "fsync") if slow == "sync" else (shutil, "copyfileobj")
    quick = getattr(module, name)

    def wait(*arguments: object) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert gate.wait(30), "the loop stood still"
        quick(*arguments)

    monkeypatch.setattr(module, name, wait)
    (tmp_path / "file").write_bytes(b"slow")
    blobs = FolderBlobs(tmp_path / "blobs")
    storing = asyncio.create_task(blobs.store("adapters/x", tmp_path / "file"))
    await asyncio.wait_for(reached.wait(), 40)
    assert not await blobs.exists("adapters/x")
    gate.set()
    await storing
    await blobs.fetch("adapters/x", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"slow"


@pytest.mark.parametrize("way", ["put", "store", "fetch"])
async def test_a_cancelled_write_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Also if it is cancelled before the thread has made the draft."""
    (tmp_path / "file").write_bytes(b"a face")
    blobs, fetched = FolderBlobs(tmp_path / "blobs"), tmp_path / "fetched"
    await blobs.store("k/old", tmp_path / "file")
    fetched.mkdir()
    gate, reached, ended = threading.Event(), threading.Event(), threading.Event()
    name = "_create" if way == "put" else "_link_or_copy"
    make_draft = getattr(storage.blobs, name)

    def wait(*paths: Path) -> None:
        reached.set()
        assert gate.wait(30)
        make_draft(*paths)
        ended.set()

    monkeypatch.setattr(storage.blobs, name, wait)
    write = {
        "put": lambda: blobs.put("k/new", b"a face"),
        "store": lambda: blobs.store("k/new", tmp_path / "file"),
        "fetch": lambda: blobs.fetch("k/old", fetched / "x"),
    }[way]
    writing = asyncio.create_task(write())
    assert await asyncio.to_thread(reached.wait, 30)
    writing.cancel()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await asyncio.to_thread(ended.wait, 30)
    assert [path.name for path in (*blobs.folder.rglob("*"), *fetched.iterdir()) if path.is_file()] == ["old"]


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
async def test_what_is_no_key_is_refused(blobs: Blobs, key: str, tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    for call in (
        blobs.put(key, b""), blobs.get(key), blobs.exists(key), blobs.delete(key), blobs.store(key, file),
        blobs.fetch(key, file),
    ):  # fmt: skip
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
    (tmp_path / "file").write_bytes(bytes(1000))
    (tmp_path / "file").chmod(0o644)
    await asyncio.gather(
        *(blobs.put("photos/a/0", bytes([n]) * 1000) for n in range(4)),
        *(blobs.store("photos/a/0", tmp_path / "file") for _ in range(4)),
    )
    assert len(set(await blobs.get("photos/a/0"))) == 1
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["0"]
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "deep", folder, folder / "photos"]} == {0o700}
    assert (folder / "photos/a/0").stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, file = FolderBlobs(tmp_path / "blobs"), tmp_path / "file"
    file.write_bytes(b"new")
    await blobs.put("photos/a/0", b"before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for writing in (blobs.put("photos/a/0", b"new"), blobs.put("photos/a/0", chunks(b"n", b"ew"))):
        with pytest.raises(UserError, match="disk_full"):
            await writing
    with pytest.raises(UserError, match="disk_full") as refused:
        await blobs.store("photos/a/0", file)
    assert refused.value.facts == {"folder": str(tmp_path / "blobs")}
    assert await blobs.get("photos/a/0") == b"before" and files(tmp_path / "blobs") == {"0"}
    monkeypatch.setattr("storage.blobs._link_or_copy", lambda source, target: full(0))
    with pytest.raises(UserError, match="disk_full"):
        await blobs.fetch("photos/a/0", file)
    assert file.read_bytes() == b"new"
