"""Bytes by key: photos/<avatar>/<n>, adapters/<avatar>/..., checkpoints/<job>/..., pictures/<job>/<n>.png"""

import asyncio
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from storage.atomic import full_disk_told, sync_folder
from storage.cancellation import uninterrupted
from storage.errors import UnknownBlob
from storage.folders import private_folder

CHUNK = 1 << 20
"""Bytes held in memory at once by `stream`, `fetch` and `store`."""

_KEY = re.compile(r"[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*")


class Blobs(Protocol):
    """A store of bytes by key. A key is lower-case segments of [a-z0-9._-] joined by "/"; others raise ValueError.

    What writes to a folder raises UserError `disk_full` {folder} if there is no space.
    """

    async def put(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        """Store data under the key and replace its blob, completely or not at all."""

    async def get(self, key: str) -> bytes:
        """The blob's bytes. Raises UnknownBlob."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """The blob in chunks. Raises UnknownBlob before the first chunk."""

    async def store(self, key: str, path: Path) -> None:
        """Store a file's content under the key and replace its blob, completely or not at all. The file stays.

        The content is copied in chunks, or linked: file and blob may share their bytes on the disk afterwards. So the
        file may be replaced or removed, but must not be written into. Raises FileNotFoundError; nothing has changed
        then.
        """

    async def fetch(self, key: str, path: Path) -> None:
        """Write the blob to the file `path`, in an existing folder, and replace that file, completely or not at all.

        The content is copied in chunks, or linked, as in `store`. Raises UnknownBlob; nothing has changed then.
        """

    async def exists(self, key: str) -> bool:
        """Whether there is a blob under the key."""

    async def delete(self, key: str) -> None:
        """Delete the blob, or all blobs below a key that ends in "/". A missing blob is no error."""

    async def list(self, prefix: str = "", age: timedelta | None = None) -> Sequence[str]:
        """The keys that start with prefix, sorted; with `age`, only those of blobs that are at least that old."""

    async def clear_drafts(self, age: timedelta) -> None:
        """Delete half-stored blobs of processes that died, if they are at least that old."""


def checked(key: str) -> str:
    """The key itself. Raises ValueError if it is no key."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"not a blob key: {key!r}")
    return key


class FolderBlobs:
    """Blobs as files (0600) in a private folder (0700).

    A thread goes on when the task that waits for it is cancelled. So what creates a draft is `uninterrupted`: the draft
    is deleted once its thread has ended, and not before it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def put(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        path = self.folder / checked(key)
        draft = _draft_for(path)
        try:
            with full_disk_told(self.folder):
                await uninterrupted(asyncio.to_thread(_create, draft))
                with await asyncio.to_thread(draft.open, "wb") as file:
                    if isinstance(data, bytes):
                        await asyncio.to_thread(file.write, data)
                    else:
                        async for chunk in data:
                            await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(file.flush)
                    await asyncio.to_thread(os.fsync, file.fileno())
                await asyncio.to_thread(self._settle, draft, path)
        finally:
            draft.unlink(missing_ok=True)

    async def store(self, key: str, path: Path) -> None:
        blob = self.folder / checked(key)
        draft = _draft_for(blob)
        try:
            with full_disk_told(self.folder):
                await uninterrupted(asyncio.to_thread(_store_draft, path, draft))
                await asyncio.to_thread(self._settle, draft, blob)
        finally:
            draft.unlink(missing_ok=True)

    async def fetch(self, key: str, path: Path) -> None:
        blob, draft = self.folder / checked(key), _draft_for(path)
        try:
            with full_disk_told(path.parent):
                await uninterrupted(asyncio.to_thread(_link_or_copy, blob, draft))
                draft.replace(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if not path.parent.is_dir():
                raise
            raise UnknownBlob(key) from None
        finally:
            draft.unlink(missing_ok=True)

    def _settle(self, draft: Path, path: Path) -> None:
        draft.replace(path)
        for folder in path.parents:
            sync_folder(folder)
            if folder == self.folder:
                break

    async def get(self, key: str) -> bytes:
        try:
            return await asyncio.to_thread((self.folder / checked(key)).read_bytes)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UnknownBlob(key) from None

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        try:
            file = await asyncio.to_thread((self.folder / checked(key)).open, "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UnknownBlob(key) from None
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.folder / checked(key)).is_file)

    async def delete(self, key: str) -> None:
        path = self.folder / checked(key.removesuffix("/"))
        if key.endswith("/"):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        elif await asyncio.to_thread(path.is_file):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def list(self, prefix: str = "", age: timedelta | None = None) -> Sequence[str]:
        def walk() -> Sequence[str]:
            base = self.folder / prefix.rpartition("/")[0]
            files = (path for path in base.rglob("*") if not path.name.startswith(".") and path.is_file())
            return sorted(
                key
                for file in files
                if (key := file.relative_to(self.folder).as_posix()).startswith(prefix)
                and (age is None or _older(file, age))
            )

        if prefix:
            checked(prefix.removesuffix("/"))
        return await asyncio.to_thread(walk)

    async def clear_drafts(self, age: timedelta) -> None:
        def clear() -> None:
            for draft in self.folder.rglob(".*"):
                if draft.is_file() and _older(draft, age):
                    draft.unlink(missing_ok=True)

        await asyncio.to_thread(clear)


class MemoryBlobs:
    """Blobs in a dict, for tests."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._stored: dict[str, float] = {}

    async def put(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        checked(key)
        self._data[key] = data if isinstance(data, bytes) else b"".join([chunk async for chunk in data])
        self._stored[key] = time.time()

    async def get(self, key: str) -> bytes:
        try:
            return self._data[checked(key)]
        except KeyError:
            raise UnknownBlob(key) from None

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        data = await self.get(key)
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]

    async def store(self, key: str, path: Path) -> None:
        await self.put(key, await asyncio.to_thread(path.read_bytes))

    async def fetch(self, key: str, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, await self.get(key))

    async def exists(self, key: str) -> bool:
        return checked(key) in self._data

    async def delete(self, key: str) -> None:
        checked(key.removesuffix("/"))
        for known in [known for known in self._data if known == key or (key.endswith("/") and known.startswith(key))]:
            del self._data[known], self._stored[known]

    async def list(self, prefix: str = "", age: timedelta | None = None) -> Sequence[str]:
        if prefix:
            checked(prefix.removesuffix("/"))
        until = time.time() - (age.total_seconds() if age else 0.0)
        return sorted(key for key in self._data if key.startswith(prefix) and self._stored[key] <= until)

    async def clear_drafts(self, age: timedelta) -> None:
        """There are none: blobs in memory are never half stored."""


def _older(path: Path, age: timedelta) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime <= time.time() - age.total_seconds()
    return False


def _create(path: Path) -> None:
    """Create an empty private file in a private folder."""
    private_folder(path.parent)
    os.close(_open_new(path))


def _open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _draft_for(path: Path) -> Path:
    """A name in the same folder, for writing the file first. No key starts with a dot, so nobody reads half a blob."""
    return path.parent / f".{uuid.uuid4().hex}"


def _store_draft(path: Path, draft: Path) -> None:
    """Make `draft` a private file with the content of `path`, on the disk and as old as this call."""
    private_folder(draft.parent)
    _link_or_copy(path, draft)
    draft.chmod(0o600)
    os.utime(draft)
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def _link_or_copy(source: Path, target: Path) -> None:
    """Make `target`, which does not exist, a hard link to `source`, or a copy where the file system allows no link."""
    if source.is_dir():
        raise IsADirectoryError(source)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        with source.open("rb") as read, os.fdopen(_open_new(target), "wb") as written:
            shutil.copyfileobj(read, written, CHUNK)
