"""Writing files so that whoever is killed meanwhile leaves no half of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A draft to write, `<stem>.partial` beside `path`, which takes the place of `path` once the body is through.

    Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    yield draft
    draft.replace(path)
