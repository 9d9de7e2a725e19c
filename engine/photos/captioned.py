"""Captioned datasets: a folder with pictures, and their captions in one of the three forms that people have.

These are a metadata.jsonl or a metadata.csv with the columns `file_name` and `text` (Hugging Face's imagefolder), and a
`1.txt` beside each `1.png` (kohya's scripts, OneTrainer).
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from engine.photos.crops import prepare
from engine.photos.decoding import SUFFIXES, BadPhoto, load_photo
from engine.photos.inspection import clause
from storage.errors import UserError

CAPTIONS = ("metadata.jsonl", "metadata.csv")
"""The files of an imagefolder that hold each picture's caption. The first that is there counts."""

_TEXTS = ("text", "caption", "prompt")
"""Names of the column with the caption. The first that a row has counts."""
_NO_TEXT = frozenset({"", "nan", "null", "none", "n/a"})
"""What programs write into a CSV's cell where there is no text."""


@dataclass(frozen=True)
class Captioned(Sequence[Image.Image]):
    """A captioned dataset on disk. A picture is read when it is indexed, since a dataset may be larger than memory."""

    files: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    """One or more of each picture; training takes one of them at random in each step."""
    left_out: tuple[str, ...] = ()
    """A line on each picture that cannot be used."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The first caption of each picture."""
        return tuple(captions[0] for captions in self.captions)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return Captioned(self.files[number], self.captions[number])
        return load_photo(self.files[number].read_bytes())


def read_captioned(folder: Path) -> Captioned:
    """The pictures of a folder that have captions and can be read.

    Raises:
        UserError: as `read_captions`; `no_good_pictures` if nothing is left.
    """
    found = read_captions(folder)
    faults = [_fault(file) for file in found.files]
    good = [number for number, fault in enumerate(faults) if not fault]
    named = [f"{file.name}: {fault}." for file, fault in zip(found.files, faults, strict=True) if fault]
    left_out = (*found.left_out, *named)
    if not good:
        raise UserError("no_good_pictures", folder=folder, of=len(left_out), reasons=" ".join(left_out[:3]))
    files, captions = tuple(found.files[number] for number in good), tuple(found.captions[number] for number in good)
    return replace(found, files=files, captions=captions, left_out=left_out)


def read_captions(folder: Path) -> Captioned:
    """The pictures of a folder that have captions. The pictures themselves are not read.

    Raises:
        UserError: `no_captions` if there are none, `bad_captions` with the number of a faulty line.
    """
    rows = list(_rows(folder))
    left_out = tuple(f"{picture.name}: it has no caption." for picture, captions in rows if not captions)
    kept = [(picture, captions) for picture, captions in rows if captions]
    return Captioned(tuple(picture for picture, _ in kept), tuple(captions for _, captions in kept), left_out)


def square_pictures(captioned: Captioned, side: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of a captioned set as squares of `side` pixels, and their captions. A picture with several captions
    comes once with each."""
    squares = [prepare(picture, side) for picture in captioned]
    pairs = [(square, text) for square, several in zip(squares, captioned.captions, strict=True) for text in several]
    return [square for square, _ in pairs], [text for _, text in pairs]


def _fault(file: Path) -> str:
    """What is wrong with a picture, in the words of a photo's verdict; "" if nothing is."""
    try:
        load_photo(file.read_bytes())
    except BadPhoto as bad:
        return clause(bad.code, bad.facts)
    return ""


def _rows(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each picture with its captions, none where the set has none for it."""
    file = next((folder / name for name in CAPTIONS if (folder / name).is_file()), None)
    if file is None:
        yield from _text_files(folder)
        return
    read = _json_rows if file.name == CAPTIONS[0] else _csv_rows
    seen = False
    for line, row in read(file):
        seen = True
        name = row.get("file_name")
        column = next((column for column in _TEXTS if column in row), None)
        if not isinstance(name, str) or not name or column is None:
            raise _bad(file, line, "file_name and text are needed")
        yield _picture(file, line, name), _captions(file, line, row[column])
    if not seen:
        raise _bad(file, 1, "it names no picture")


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Each object with the number of its line. Only "\\n" ends a line: JSON may hold other line separators."""
    for line, text in enumerate(_utf8(file).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise _bad(file, line, f"it is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise _bad(file, line, "file_name and text are needed")
        yield line, row


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Each row with the number of its last line. Spreadsheets of some countries separate columns by semicolons."""
    text = _utf8(file)
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="," if "," in head else ";", strict=True)
    try:
        for row in reader:
            cells = {name: cell for name, cell in row.items() if isinstance(name, str)}
            yield (
                reader.line_num,
                {name: None if (cell or "").strip().lower() in _NO_TEXT else cell for name, cell in cells.items()},
            )
    except csv.Error as error:
        raise _bad(file, reader.line_num, f"it is no CSV ({error})") from error


def _text_files(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The folder's pictures with the lines of the text file of the same name: each line is a caption."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    texts = {picture: picture.with_suffix(".txt") for picture in pictures}
    if not any(text.is_file() for text in texts.values()):
        raise UserError("no_captions", folder=folder)
    for picture, text in texts.items():
        lines = _utf8(text).split("\n") if text.is_file() else []
        yield picture, tuple(line.strip() for line in lines if line.strip())


def _utf8(file: Path) -> str:
    """The file's text, without the byte order mark that some editors write. Raises UserError `bad_captions`."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _bad(file, line, "it is not in UTF-8. Save the file in UTF-8") from error


def _picture(file: Path, line: int, name: str) -> Path:
    """The picture that a row names. Names from Windows may have backslashes."""
    folder = file.parent
    for picture in (folder / name, folder / name.replace("\\", "/")):
        if picture.resolve().is_relative_to(folder.resolve()) and picture.is_file():
            return picture
    raise _bad(file, line, f"there is no picture {name}")


def _captions(file: Path, line: int, value: object) -> tuple[str, ...]:
    """The captions of a row: a text or a list of texts. null, NaN and blank texts are none."""
    several = value if isinstance(value, list) else [value]
    captions = list[str]()
    for one in several:
        if one is None or (isinstance(one, float) and math.isnan(one)):
            continue
        if not isinstance(one, str):
            raise _bad(file, line, "text must be a text or a list of texts")
        if one.strip():
            captions.append(one)
    return tuple(captions)


def _bad(file: Path, line: int, reason: str) -> UserError:
    return UserError("bad_captions", file=file, line=line, reason=reason)
