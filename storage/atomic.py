"""Write a file so that a crash at any moment leaves either the old file or the new one, both complete.

The content goes into a draft in the same folder. The draft is synced to disk and then renamed over the file; POSIX
makes the rename atomic. Syncing the folder makes the rename itself survive a power failure.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

STALE_SECONDS = 3600.0
"""Age from which a draft counts as left behind by a killed process."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a draft for the caller to write; when the body ends, the draft becomes `path`.

    The draft is a hidden file in the same folder with the same suffix. If the body raises, the draft is deleted and
    `path` stays as it was. Missing folders are created. Two processes that write the same path never share a draft: the
    last one to finish wins.
    """
    new_folders = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_stale_drafts(path)
    draft = path.parent / f".{path.stem}.{uuid.uuid4().hex}.draft{path.suffix}"
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    for folder in new_folders:
        sync_folder(folder.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as `atomic_write` does."""
    with atomic_write(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` in UTF-8 as `atomic_write` does."""
    write_bytes(path, content.encode())


def sync_folder(folder: Path) -> None:
    """Make the files that were created, renamed or deleted in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_stale_drafts(path: Path) -> None:
    """Delete the drafts of `path` that a killed process left behind: a checkpoint's has gigabytes."""
    oldest = time.time() - STALE_SECONDS
    for draft in path.parent.glob(f".{escape(path.stem)}.*.draft{escape(path.suffix)}"):
        with suppress(FileNotFoundError):
            if draft.stat().st_mtime < oldest:
                draft.unlink()
