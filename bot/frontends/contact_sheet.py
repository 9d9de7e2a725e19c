"""The demo's result on one page: the album above, the answers with their prompts below."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from storage.atomic import atomic_write

_MARGIN, _GAP, _CELL, _COLUMNS = 72, 20, 272, 4
_WIDTH = 2 * _MARGIN + _COLUMNS * _CELL + (_COLUMNS - 1) * _GAP
_INNER = _WIDTH - 2 * _MARGIN
_GROUND, _CARD, _INK, _DIM, _ACCENT = "#f4f4f8", "#ffffff", "#1f2030", "#686a80", "#5b5bd6"


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A prompt and its pictures, as encoded bytes."""

    prompt: str
    pictures: Sequence[bytes]


def contact_sheet(path: Path, title: str, subtitle: str, album: Sequence[Path], rows: Sequence[SheetRow]) -> None:
    """Draw the sheet and save it as PNG."""
    photos = [photo for source in album if (photo := _opened(source)) is not None]
    thumb = min(_CELL, (_INNER - 2 * 28 - 12 * (max(len(photos), 1) - 1)) // max(len(photos), 1))
    lines = _wrapped(subtitle, ImageFont.load_default(22), _INNER)
    album_top = _MARGIN + 84 + 32 * len(lines) + 28
    album_height = 28 + 36 + thumb + 28
    row_height = 54 + _CELL + 34
    height = album_top + album_height + 48 + row_height * len(rows) - 34 + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), _GROUND)
    draw = ImageDraw.Draw(sheet)

    draw.rounded_rectangle((_MARGIN, _MARGIN + 8, _MARGIN + 10, _MARGIN + 60), 5, fill=_ACCENT)
    draw.text((_MARGIN + 30, _MARGIN), title, _INK, ImageFont.load_default(60))
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 84 + 32 * number), line, _DIM, ImageFont.load_default(22))

    draw.rounded_rectangle((_MARGIN, album_top, _WIDTH - _MARGIN, album_top + album_height), 28, fill=_CARD)
    draw.text((_MARGIN + 28, album_top + 24), "The album", _DIM, ImageFont.load_default(20))
    for number, photo in enumerate(photos):
        _paste(sheet, photo, _MARGIN + 28 + number * (thumb + 12), album_top + 28 + 36, thumb, 14)

    top = album_top + album_height + 48
    font = ImageFont.load_default(27)
    for row in rows:
        draw.text((_MARGIN, top), _shortened(row.prompt, font, _INNER), _INK, font)
        for number, picture in enumerate(row.pictures[:_COLUMNS]):
            with Image.open(io.BytesIO(picture)) as opened:
                _paste(sheet, opened.convert("RGB"), _MARGIN + number * (_CELL + _GAP), top + 54, _CELL, 22)
        top += row_height
    with atomic_write(path) as draft:
        sheet.save(draft)


def _opened(path: Path) -> Image.Image | None:
    # Pillow alone does not read HEIC, which the engine does; such a photo is left out of the sheet.
    try:
        with Image.open(path) as photo:
            return ImageOps.exif_transpose(photo).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None


def _paste(sheet: Image.Image, picture: Image.Image, left: int, top: int, size: int, radius: int) -> None:
    mask = Image.new("L", (size * 4, size * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size * 4 - 1, size * 4 - 1), radius * 4, fill=255)
    fitted = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    sheet.paste(fitted, (left, top), mask.resize((size, size), Image.Resampling.LANCZOS))


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
