"""Hair and skin in the square around a head, found by a small network of our own, and their colours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.photos.face_network import Array, Convolution

SIDE = 64
"""Pixels of the sides of the network's pictures."""
OTHER, HAIR, SKIN = range(3)
WIDTHS = (16, 32, 48, 64)
"""Channels at 64, 32, 16 and 8 pixels."""
CHANNELS = (
    (3, 16), (16, 16), (16, 32), (32, 32), (32, 48), (48, 48), (48, 64), (64, 64),
    (112, 48), (48, 48), (80, 32), (32, 32), (48, 16), (16, 16),
)  # fmt: skip
"""(in, out) of the 3 x 3 convolutions in order: two for each size going down, two for each going up."""


def small(head: Image.Image) -> NDArray[np.uint8]:
    """The network's picture, (64, 64, 3), of the square around a head."""
    return np.asarray(head.resize((SIDE, SIDE), Image.Resampling.BOX))


@dataclass(frozen=True)
class PartsNetwork:
    """A U-Net (Ronneberger et al., 2015) of 3 x 3 convolutions with ReLU."""

    layers: tuple[Convolution, ...]
    last: Convolution

    def __call__(self, heads: NDArray[np.uint8]) -> Array:
        """The probability of other, hair and skin at each pixel, (B, 3, 64, 64), from pictures (B, 64, 64, 3)."""
        maps: Array = (heads.astype(np.float32) / np.float32(255) - np.float32(0.5)).transpose(0, 3, 1, 2)
        kept = list[Array]()
        for level in range(4):
            maps = self._two(level, maps)
            if level < 3:
                kept.append(maps)
                maps = maps.reshape(*maps.shape[:2], maps.shape[2] // 2, 2, maps.shape[3] // 2, 2).mean(axis=(3, 5))
        for level in range(4, 7):
            maps = np.concatenate([maps.repeat(2, axis=2).repeat(2, axis=3), kept.pop()], axis=1)
            maps = self._two(level, maps)
        logits = self.last(maps)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def _two(self, level: int, maps: Array) -> Array:
        for layer in self.layers[2 * level : 2 * level + 2]:
            maps = np.maximum(layer(maps), 0)
        return maps


_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])


def lab(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB of sRGB 0..255, (..., 3), for the white of D65 (IEC 61966-2-1, CIE 15)."""
    c = pixels / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = linear @ (_TO_XYZ / _WHITE[:, None]).T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def srgb(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB 0..255 of CIELAB, (..., 3); what no screen can show is clipped."""
    y = (values[..., 0] + 16) / 116
    f = np.stack([y + values[..., 1] / 500, y, y - values[..., 2] / 200], axis=-1)
    xyz = np.where(f > 0.2069, f**3, (f - 16 / 116) / 7.787) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    return np.asarray(np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear) * 255)


def median_lab(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The median CIELAB of a picture (H, W, 3) where `mask` (H, W) holds, (3,); None for fewer than 12 pixels."""
    if mask.sum() < 12:
        return None
    return np.asarray(np.median(lab(picture[mask].astype(np.float64)), axis=0))


def measures(picture: NDArray[np.uint8], parts: Array) -> Array:
    """Colours and extents of hair and skin as one vector (`MEASURES`,).

    Args:
        picture: (64, 64, 3), white-balanced.
        parts: (3, 64, 64), probabilities.
    """
    values = lab(picture.astype(np.float64))
    rows = list[float]()
    colours = list[NDArray[np.float64]]()
    for part in (HAIR, SKIN):
        mask = parts[part] > 0.5
        chosen = values[mask] if mask.sum() >= 12 else np.array([[50.0, 0, 0]] * 2)
        middle = np.median(chosen, axis=0)
        colours.append(middle)
        rows += [*(middle / (25, 8, 10)), *(chosen.std(axis=0) / (25, 8, 10))]
        rows += [*(np.percentile(chosen[:, 0], (10, 90)) / 25), float(mask.sum() < 12)]
    rows += list((colours[0] - colours[1]) / (25, 8, 10))
    rows += [float(np.hypot(*colours[0][1:]) / 10), float(np.arctan2(colours[0][2], colours[0][1] + 1e-6))]
    # Soft memberships in a grid of hair colours, so that a linear head can tell them apart.
    grid = np.array([(light, c) for light in (12, 25, 38, 52, 68) for c in (2, 12, 24)], float)
    chroma = float(np.hypot(*colours[0][1:]))
    rows += list(np.exp(-(((grid - (colours[0][0], chroma)) / (10, 8)) ** 2).sum(axis=1)))
    hair = parts[HAIR]
    height, width = hair.mean(axis=1), hair.mean(axis=0)
    rows += list(height.reshape(16, 4).mean(axis=1) * 4) + list(width.reshape(16, 4).mean(axis=1) * 4)
    return np.array(rows, np.float32)
