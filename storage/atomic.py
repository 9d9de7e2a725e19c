"""Write a file so that a crash at any moment leaves either the old file or the new one, both complete.

The content goes into a draft in the same folder. The draft is synced to disk and then renamed over the file; POSIX
makes the rename atomic. Syncing the folder makes the rename itself survive a power failure.
"""

import errno
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from storage.errors import UserError

STALE_SECONDS = 3600.0
"""Age from which a draft counts as left behind by a killed process."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""The system's errors where a disk is full, or a user's share of it."""


def is_disk_full(error: BaseException) -> bool:
    """Whether this error says that a disk is full.

    Libraries written in Rust, such as safetensors, tell the system's error in words alone: "... (os error 28)".
    """
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    told = re.search(r"\(os error (\d+)\)", str(error))
    return told is not None and int(told[1]) in NO_SPACE


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """A context in which a full disk is the UserError `disk_full` {folder}."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise UserError("disk_full", folder=str(folder)) from error
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a draft for the caller to write; when the body ends, the draft becomes `path`.

    The draft is a hidden file in the same folder with the same suffix. If the body raises, the draft is deleted and
    `path` stays as it was. Missing folders are created. Two processes that write the same path never share a draft: the
    last one to finish wins.

    Raises:
        UserError: `disk_full`.
    """
    with full_disk_told(path.parent):
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


def put_aside(path: Path, word: str) -> Path | None:
    """Rename a file that cannot be used, so that another can take its name; `word` is added to its name.

    An earlier file of the new name is replaced, so that there is one at most.

    Returns:
        The new path, or None if the file could not be renamed, or is gone.
    """
    aside = path.with_name(f"{path.stem}.{word}{path.suffix}")
    try:
        return path.replace(aside)
    except OSError:
        return None


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
