"""Colours that a file gives by code points instead of an ICC profile: PNG's cICP chunk, and the nclx box of HEIC and
AVIF. Pictures in Display P3, BT.2020, PQ or HLG become sRGB.

The code points are those of ITU-T H.273 (coding-independent code points, CICP).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

UNSPECIFIED, SRGB, PQ, HLG = 2, 13, 16, 18
_BT709, _BT2020 = 1, 9

_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),  # BT.709 and sRGB
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), (0.310, 0.316)),  # BT.470 M
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),  # BT.470 B and G
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # BT.601
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # SMPTE 240
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),  # film
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020 and BT.2100
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),  # EBU 3213
}
"""Chromaticities (x, y) of red, green, blue and white by code point (H.273, table 2)."""

_LIKE_SRGB = frozenset({1, 6, 7, 12, SRGB, 14, 15})
"""Transfers shown as sRGB. Cameras' curves (BT.709, BT.601, BT.2020) are meant for a display whose curve is nearly
sRGB's, and programs write them for pictures that are in sRGB."""
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}

WHITE_NITS = 203.0
"""Luminance in cd/m² that becomes white: graphics white in HDR (ITU-R BT.2408, table 1)."""
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
"""The nominal display of HLG and its system gamma (ITU-R BT.2100, table 5)."""
_KNEE = 0.8
"""Share of white from which brighter values are compressed, where a picture has values beyond white."""
_ROWS = 256
"""Rows converted at once, so that a large photo needs little memory."""


class UnknownColours(ValueError):
    """Code points that cannot be converted."""


@dataclass(frozen=True, slots=True)
class Cicp:
    """The code points of a picture's colours."""

    primaries: int
    transfer: int


def cicp_of(data: bytes, format: str | None) -> Cicp | None:
    """The code points in a PNG or AVIF file; None if it has none. Damaged files give None as well."""
    try:
        if format == "PNG":
            return _of_png(data)
        if format == "AVIF":
            return _of_avif(memoryview(data))
    except (struct.error, IndexError):
        pass
    return None


def _of_png(data: bytes) -> Cicp | None:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"cICP" and length == 4:
            return Cicp(data[at + 8], data[at + 9])
        if kind == b"IDAT":
            return None
        at += 12 + length
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box in `data` (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if size == 0 else at + size
        if end < start:
            return
        yield kind, data[start:end]
        at = end


def _of_avif(data: memoryview) -> Cicp | None:
    """The nclx box of the primary picture (ISO/IEC 23008-12, 6.5.5, 6.9.2 and 9.3)."""
    meta = next((content[4:] for kind, content in _boxes(data) if kind == b"meta"), None)
    if meta is None:
        return None
    found = dict(_boxes(meta))
    item = struct.unpack_from(">I" if found[b"pitm"][0] else ">H", found[b"pitm"], 4)[0] if b"pitm" in found else None
    properties = list[tuple[bytes, memoryview]]()
    applied = list[int]()
    for kind, content in _boxes(found.get(b"iprp", memoryview(b""))):
        if kind == b"ipco":
            properties = list(_boxes(content))
        elif kind == b"ipma":
            applied += _applied(content, item)
    chosen = [properties[number - 1] for number in applied if 0 < number <= len(properties)]
    for kind, content in chosen or properties:
        if kind == b"colr" and bytes(content[:4]) == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            return Cicp(primaries, transfer)
    return None


def _applied(content: memoryview, item: int | None) -> list[int]:
    """Numbers, from 1, of the properties that an ipma box gives to an item."""
    version, wide = content[0], content[3] & 1
    (entries,) = struct.unpack_from(">I", content, 4)
    at, numbers = 8, list[int]()
    for _ in range(entries):
        (of,) = struct.unpack_from(">I" if version else ">H", content, at)
        at += 4 if version else 2
        count, at = content[at], at + 1
        for _ in range(count):
            (number,) = struct.unpack_from(">H" if wide else ">B", content, at)
            at += 2 if wide else 1
            if of == item:
                numbers.append(number & (0x7FFF if wide else 0x7F))
    return numbers


def to_srgb(image: Image.Image, cicp: Cicp) -> Image.Image:
    """An RGB picture, whose values were coded as `cicp` says, in sRGB.

    Colours outside sRGB are clipped. HDR white (203 cd/m²) becomes white; if the picture has brighter parts, the values
    above 0.8 of white are compressed so that these parts keep their shapes.

    Raises:
        UnknownColours: the code points are none that this function knows.
    """
    transfer = SRGB if cicp.transfer in (0, UNSPECIFIED) or cicp.transfer in _LIKE_SRGB else cicp.transfer
    usual = _BT2020 if transfer in (PQ, HLG) else _BT709
    primaries = usual if cicp.primaries in (0, UNSPECIFIED) else cicp.primaries
    if primaries not in _PRIMARIES or transfer not in {SRGB, PQ, HLG, *_GAMMAS}:
        raise UnknownColours(f"primaries {cicp.primaries}, transfer {cicp.transfer}")
    if (primaries, transfer) == (_BT709, SRGB):
        return image
    light = _light(transfer)
    matrix = (np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(primaries)).astype(np.float32)
    shown = _shown_values()

    def linear(pixels: NDArray[np.uint8]) -> Array:
        values = light[pixels]  # (rows, width, 3)
        if transfer == HLG:
            luminance = values @ _to_xyz(primaries)[1].astype(np.float32)
            values = values * np.maximum(luminance, 0)[..., None] ** np.float32(_HLG_GAMMA - 1)
            values *= np.float32(_HLG_PEAK_NITS / WHITE_NITS)
        return np.asarray(values @ matrix.T)

    peak = 1.0
    if transfer in (PQ, HLG):
        small = image.reduce(max(1, max(image.size) // 512))
        peak = max(1.0, float(linear(np.asarray(small)).max()))
    done = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        strip = image.crop((0, top, image.width, min(image.height, top + _ROWS)))
        values = linear(np.asarray(strip))
        if peak > 1:
            values = _compressed(values, peak)
        places = (np.clip(values, 0, 1) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
        done.paste(Image.fromarray(shown[places]), (0, top))
    return done


def _light(transfer: int) -> Array:
    """Linear light of the 256 values, (256,): 1 is white. For HLG it is the scene's, 0 to 1 (BT.2100, table 5)."""
    value = np.arange(256) / 255
    if transfer == SRGB:
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    elif transfer == PQ:  # BT.2100, table 4
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = value ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / WHITE_NITS
    elif transfer == HLG:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    else:
        light = value ** _GAMMAS[transfer]
    return light.astype(np.float32)


def _shown_values() -> NDArray[np.uint8]:
    """The sRGB value of each of 65,536 steps of linear light, (65536,)."""
    light = np.arange(65536) / 65535
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(value * 255).astype(np.uint8))


def _compressed(values: Array, peak: float) -> Array:
    """Linear light (rows, width, 3) with `peak` brought to 1: unchanged up to the knee, above it by the extended
    operator of Reinhard et al., "Photographic tone reproduction for digital images", 2002, equation 4. The largest
    channel decides for all three, so that hues stay."""
    largest = values.max(axis=2, keepdims=True)
    over = np.maximum((largest - _KNEE) / (1 - _KNEE), 0)
    end = (peak - _KNEE) / (1 - _KNEE)
    reduced = _KNEE + (1 - _KNEE) * over * (1 + over / end**2) / (1 + over)
    return np.where(largest > _KNEE, values * (reduced / np.maximum(largest, _KNEE)), values)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    """The matrix (3, 3) from linear RGB to XYZ (SMPTE RP 177), white adapted to D65 as Bradford's matrix does."""
    *corners, white = _PRIMARIES[primaries]
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in corners]).T
    here, d65 = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in (white, _D65))
    matrix = columns * np.linalg.solve(columns, here)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    scale = np.diag((cones @ d65) / (cones @ here))
    return np.asarray(np.linalg.inv(cones) @ scale @ cones @ matrix)
