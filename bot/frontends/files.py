"""Files of messages: reading one into memory, for platforms that do not stream uploads; and telling pictures."""

from bot.messages import File
from storage.blobs import Blobs


async def content(blobs: Blobs, file: File, most: int) -> bytes | None:
    """The file's bytes, or None if there are more than `most`. Raises UnknownBlob if it was erased."""
    if file.key is None:
        data = (file.content or "").encode()
        return data if len(data) <= most else None
    # In chunks, to stop at the limit: a DreamBooth checkpoint of Stable Diffusion has gigabytes.
    held = bytearray()
    async for chunk in blobs.stream(file.key):
        held += chunk
        if len(held) > most:
            return None
    return bytes(held)


_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
"""How files in JPEG, PNG, GIF, TIFF, BigTIFF and BMP begin."""
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"avif", b"avis"})
"""Brands of HEIC and AVIF in the box that ISO media files begin with; films have others (ISO/IEC 23008-12, annex B)."""


def is_picture(data: bytes) -> bool:
    """Whether a file begins like a picture in a format that an engine may read. The engine has the last word."""
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256)
        return any(data[at : at + 4] in _BRANDS for at in (8, *range(16, length, 4)))
    return data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
