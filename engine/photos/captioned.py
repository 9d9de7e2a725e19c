"""Captioned datasets: a folder with pictures and a metadata.jsonl with a caption for each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.photos.crops import prepare
from engine.photos.decoding import load_photo
from storage.errors import UserError

CAPTIONS = "metadata.jsonl"
"""The file of an imagefolder that holds each picture's caption (Hugging Face datasets: `file_name`, `text`)."""


@dataclass(frozen=True)
class Captioned(Sequence[Image.Image]):
    """A captioned dataset on disk. A picture is read when it is indexed, since a dataset may be larger than memory."""

    files: tuple[Path, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return Captioned(self.files[number], self.texts[number])
        return load_photo(self.files[number].read_bytes())


def read_captioned(folder: Path) -> Captioned:
    """The pictures that the folder's metadata.jsonl names, with their texts.

    Raises:
        UserError: `no_captions` without a metadata.jsonl, `bad_captions` with the number of a faulty line.
    """
    file = folder / CAPTIONS
    if not file.is_file():
        raise UserError("no_captions", folder=folder)
    files, texts = list[Path](), list[str]()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("bad_captions", file=file, line=number, reason="file_name and text are needed") from error
        picture = folder / str(name)
        if not picture.resolve().is_relative_to(folder.resolve()) or not picture.is_file():
            raise UserError("bad_captions", file=file, line=number, reason=f"there is no picture {name}")
        files.append(picture)
        texts.append(str(text))
    if not files:
        raise UserError("bad_captions", file=file, line=1, reason="it names no picture")
    return Captioned(tuple(files), tuple(texts))


def square_pictures(folder: Path, side: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of a captioned set as squares of `side` pixels, and their captions.

    Raises:
        UserError: `no_captions`, `bad_captions`.
    """
    captioned = read_captioned(folder)
    return [prepare(picture, side) for picture in captioned], list(captioned.texts)
