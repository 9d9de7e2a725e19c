import io
import struct

import pytest
from PIL import Image

from bot.frontends.files import is_picture


def box(*brands: bytes) -> bytes:
    """The first box of an ISO media file: its main brand, a version, and the brands it is compatible with."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(40)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_pictures_are_known_by_how_they_begin(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, format)
    assert is_picture(file.getvalue())


@pytest.mark.parametrize(
    ("data", "picture"),
    [
        (box(b"heic", b"mif1", b"heic"), True),
        (box(b"MiHE", b"MiPr", b"mif1", b"heic"), True),
        (box(b"isom", b"iso2", b"avc1", b"mp41"), False),
        (box(b"qt  "), False),
        (b"RIFF\0\0\0\0WAVEfmt ", False),
        (b"%PDF-1.7", False),
        (b"PK\3\4", False),
        (b"", False),
    ],
)
def test_films_sounds_and_papers_are_no_pictures(data: bytes, picture: bool) -> None:
    assert is_picture(data) is picture
