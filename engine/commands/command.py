"""A command of the command line: its name, its options and the function that runs it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import UserError

Figures = dict[str, Any]
"""What a command reports with --json."""


@dataclass(frozen=True)
class Command:
    """One command. `engine.__main__.COMMANDS` lists all."""

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    """Adds the command's options to its parser."""
    run: Callable[[argparse.Namespace], Figures]
    """Runs the command; raises UserError for wrong input."""
    single: bool = False
    """Whether it refuses to run as one of several processes, which would write the same files."""


def base_option(parser: argparse.ArgumentParser) -> None:
    """The base model; `base_source` reads it."""
    parser.add_argument(
        "--base",
        help="base model: a diffusers folder, a hub id, a .safetensors file or 'embedded' "
        "(default: AVATAR_BASE_MODEL, or the embedded base if that is not set)",
    )


def seed_option(parser: argparse.ArgumentParser) -> None:
    """The seed."""
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")


def json_option(parser: argparse.ArgumentParser) -> None:
    """Whether the figures are printed as JSON."""
    parser.add_argument(
        "--json", action="store_true", help="print the figures as one JSON object on the last line (default: no)"
    )


def overwrite_option(parser: argparse.ArgumentParser) -> None:
    """Whether a result of an earlier run is replaced; `check_new` reads it."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run has written (default: no)"
    )


def check_new(asked: argparse.Namespace, file: Path) -> None:
    """Refuse to write over a file that exists, unless that was asked for.

    Raises:
        UserError: `file_exists`.
    """
    if file.exists() and not asked.overwrite:
        raise UserError("file_exists", file=file)


def photo_files(folder: Path) -> list[Path]:
    """The photos in a folder, by name.

    Raises:
        UserError: `no_photos` if there are none, or there is no such folder.
    """
    from engine.photos.decoding import SUFFIXES

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise UserError("no_photos", folder=folder)
    return files


def settings() -> Any:
    """The engine's settings. Raises UserError `bad_setting`."""
    from pydantic import ValidationError

    from engine.work.settings import EngineSettings
    from storage.settings import setting_error

    try:
        return EngineSettings()
    except ValidationError as error:
        raise UserError("bad_setting", problem=setting_error(error)) from error


def base_source(asked: argparse.Namespace) -> str | None:
    """The base model that was asked for, or else the operator's; None for the embedded one."""
    source: str | None = asked.base
    return settings().base_model or None if source is None else source
