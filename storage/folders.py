"""Folders that only their user may enter."""

from pathlib import Path


def private_folder(path: Path) -> Path:
    """The folder, made with every missing parent as 0700 (mkdir's own `parents` would leave those open)."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(0o700, exist_ok=True)
    return path
