"""Photos from bytes: formats, limits, orientation, colour. A file that cannot be decoded raises BadPhoto.

Everything that reads a person's picture reads it here: inspection, training, captioned sets and originals to vary.
Nothing here trusts a file's name or its metadata.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from engine.photos.colours import Cicp, UnknownColours, cicp_of, to_srgb
from engine.photos.rules import Rules

SUFFIXES = frozenset(".jpg .jpeg .png .webp .avif .heic .heif .tif .tiff .gif .bmp".split())
"""Suffixes of the files in a folder that are read as pictures. The format follows from the content, not the suffix."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP")

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")


class BadPhoto(ValueError):
    """A file that cannot be used as a photo. `code` and `facts` are a verdict's."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code, self.facts = code, facts


def load_photo(data: bytes, rules: Rules | None = None) -> Image.Image:
    """The photo in RGB: upright by EXIF, in sRGB, transparency on white, without metadata. Raises BadPhoto."""
    return decode(data, rules or Rules())[0]


def decode(data: bytes, rules: Rules) -> tuple[Image.Image, dict[str, Any]]:
    """The photo as `load_photo` returns it, and facts of the file: its format and, for a JPEG, its quality.

    Raises BadPhoto.
    """
    if not data:
        raise BadPhoto("empty")
    if len(data) > rules.max_bytes:
        raise BadPhoto("too_heavy", megabytes=round(len(data) / 1e6, 1), limit=rules.max_bytes // 1_000_000)
    with _quiet():
        opened = _open(data, rules)
        facts: dict[str, Any] = {"format": opened.format}
        limit = rules.limit("progressive" if opened.info.get("progressive") else opened.format)
        if opened.width * opened.height > limit:
            raise _too_many(opened.width * opened.height, limit)
        try:
            if getattr(opened, "is_animated", False) and opened.format not in ("MPO", "TIFF", "HEIF"):
                raise BadPhoto("animated")
            if opened.format in ("JPEG", "MPO"):
                facts["quality"] = _jpeg_quality(opened)
                _halve_until_within(opened, rules.max_pixels)
            cicp = _cicp(opened, data)
            opened.load()
            return _normalised(opened, cicp, rules), facts
        except BadPhoto:
            raise
        except MemoryError:
            raise
        except UnknownColours as error:
            raise BadPhoto("unknown_colours", colours=str(error)) from error
        except Exception as error:  # Pillow's plugins raise nearly everything on damaged files, SyntaxError included
            raise BadPhoto("broken") from error


def _open(data: bytes, rules: Rules) -> Image.Image:
    _register_heif()
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d{6,}", str(error))
        raise _too_many(int(pixels[0]) if pixels else Image.MAX_IMAGE_PIXELS or 0, rules.max_pixels) from error
    except UnidentifiedImageError as error:
        if code := _tiff_code(data):
            raise BadPhoto(code) from error
        started = data.startswith(_MAGIC) or data[4:8] == b"ftyp"
        raise BadPhoto("broken" if started else "not_image") from error
    except Exception as error:
        raise BadPhoto("broken") from error


def _too_many(pixels: int, limit: int) -> BadPhoto:
    return BadPhoto("too_many_pixels", megapixels=round(pixels / 1e6), limit=limit // 1_000_000)


def _halve_until_within(opened: Image.Image, most: int) -> None:
    """Let libjpeg decode a JPEG of more than `most` pixels at 1/2, 1/4 or 1/8 of its size, which costs no more than a
    picture of that size."""
    for divisor in (2, 4, 8):
        if opened.width * opened.height > most:
            opened.draft(None, (opened.width // divisor, opened.height // divisor))


def _cicp(opened: Image.Image, data: bytes) -> Cicp | None:
    """The colours' code points, where they decide: in a PNG always, in HEIC and AVIF without an ICC profile."""
    if opened.format == "PNG":
        return cicp_of(data, "PNG")
    if opened.info.get("icc_profile"):
        return None
    told = opened.info.get("nclx_profile")  # by pillow_heif
    if isinstance(told, dict):
        return Cicp(int(told["color_primaries"]), int(told["transfer_characteristics"]))
    return cicp_of(data, opened.format)


def _tiff_code(data: bytes) -> str | None:
    """The code for a TIFF that Pillow does not know, such as one with floating point numbers in colour; None if the
    data is no TIFF or its directory is damaged."""
    tags = _tiff_tags(data)
    if not {_WIDTH, _HEIGHT} <= tags.keys():
        return None
    return "float_tiff" if tags.get(_SAMPLE_FORMAT) == 3 else "odd_tiff"


_WIDTH, _HEIGHT, _SAMPLE_FORMAT = 256, 257, 339
"""Tags of a TIFF; a sample format of 3 is floating point (TIFF 6.0, section 19)."""


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first short number of each tag in a TIFF's first directory (TIFF 6.0, section 2)."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    start = number(4, 4) + 2
    tags = dict[int, int]()
    for entry in range(start, min(start + 12 * number(start - 2, 2), len(data) - 11), 12):
        # Up to two short numbers are in the entry itself, more of them where it points.
        inside = number(entry + 4, 4) <= 2
        tags[number(entry, 2)] = number(entry + 8 if inside else number(entry + 8, 4), 2)
    return tags


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings: about damaged metadata, which is dropped, and about huge pictures, since `Rules` have
    limits of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _register_heif() -> None:
    with suppress(ImportError):  # without it HEIC is one of the formats that cannot be read
        import pillow_heif

        pillow_heif.register_heif_opener()


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that puts the picture upright (CIPA DC-008, tag 0x0112)."""


def _normalised(image: Image.Image, cicp: Cicp | None, rules: Rules) -> Image.Image:
    orientation = None
    with suppress(
        Exception
    ):  # a corrupt EXIF block raises SyntaxError, struct.error and others; the photo is still good
        orientation = image.getexif().get(0x0112)
    profile = image.info.get("icc_profile")
    rgb = _rgb(image, profile if isinstance(profile, bytes) else None, cicp)
    if rgb.width * rgb.height > rules.max_pixels:
        rgb = rgb.reduce(2)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    clean = Image.new("RGB", rgb.size)  # a new picture carries none of the old one's metadata
    clean.paste(rgb)
    return clean


def _rgb(image: Image.Image, profile: bytes | None, cicp: Cicp | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _from_wide(image).convert("RGB")
        return to_srgb(image, cicp) if cicp else image
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode in ("P", "1", "LAB", "HSV", "YCbCr"):
        image = image.convert("RGB")
    if cicp:
        image = to_srgb(image.convert("RGB"), cicp)
    elif profile:
        with suppress(Exception):  # profiles of the wrong colour space or cut short are common; the pixels still count
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            image = converted or image
    image = image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return image


def _from_wide(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, or floating point, scaled to 8 bits; `convert` would clip it to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = float(values.max(initial=0.0))
    scale = 255.0 if image.mode == "F" and top <= 1.0 else 1.0 if top <= 255 else 255 / max(65535.0, top)
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))


def _jpeg_quality(image: Image.Image) -> int | None:
    """The quality, 1 to 100, that libjpeg's scale gives for the file's first quantisation table (jcparam.c)."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    if not tables:
        return None
    table = next(iter(tables.values()))
    scale = 100 * sum(table) / 3686  # the sum of libjpeg's luminance table at quality 50
    return round(max(1.0, min(100.0, 5000 / scale if scale > 100 else 100 - scale / 2)))
