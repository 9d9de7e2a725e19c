"""What can be measured in a drawn picture without a model: colours at known places, and the number of heads."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.toon.colours import oklab
from tests.evaluation.palette import rgb, text

Pixels = NDArray[np.uint8]

SIDE = 128
"""Pixels of the shorter side at which pictures are measured."""

ALIKE = 0.05
"""Colours nearer than this in OKLab, where black and white are 1 apart, are one area of a drawing."""

PLAIN_SHARE = 0.8
"""A background is plain if so much of the picture's upper border has one colour."""


def distance(one: str, other: str) -> float:
    """How different two colours look, in OKLab."""
    a, b = oklab(rgb(one)), oklab(rgb(other))
    return float(np.linalg.norm(np.array(a) - np.array(b)))


def small(picture: Image.Image) -> Pixels:
    """The picture with `SIDE` pixels on its shorter side, (height, width, 3)."""
    scale = SIDE / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), np.uint8)


def _oklab(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    red, green, blue = (int(value) for value in colour)
    return np.array(oklab((red, green, blue)), np.float64)


def areas(pixels: Pixels) -> list[tuple[str, float]]:
    """The colours of pixels (n, 3) with their shares, the most frequent first.

    Colours that look alike are one, that of the most frequent among them.
    """
    counted = Counter(map(tuple, (pixels // 12).tolist()))
    found = list[tuple[NDArray[np.float64], int]]()
    for key, count in counted.most_common(40):
        mean = pixels[(pixels // 12 == key).all(axis=1)].mean(axis=0)
        lab = _oklab(mean)
        for number, (centre, total) in enumerate(found):
            if np.linalg.norm(lab - _oklab(centre)) < ALIKE:
                found[number] = (centre, total + count)  # the purest pixels give the colour, not their edges
                break
        else:
            found.append((mean, count))
    found.sort(key=lambda one: -one[1])
    return [(text(tuple(colour)), total / len(pixels)) for colour, total in found]


def border(pixels: Pixels) -> Pixels:
    """The pixels where the background shows beside and above a figure that is not close, (n, 3)."""
    height, width, _ = pixels.shape
    top, side, down = max(2, height // 16), max(2, width // 20), round(0.95 * height)
    third = round(0.3 * width)
    parts = [pixels[:top, :third], pixels[:top, -third:], pixels[:down, :side], pixels[:down, -side:]]
    return np.concatenate([part.reshape(-1, 3) for part in parts])


def background(picture: Image.Image) -> tuple[str, bool]:
    """The colour of the background, and whether it is plain."""
    colour, share = areas(border(small(picture)))[0]
    return colour, share >= PLAIN_SHARE


SHIRTS = ("#e6e6e6", "#f2f2f2")
"""What the artwork draws under jackets, whatever their colour."""


LAPEL = 0.85
"""Brightness of a jacket's lapels, relative to the jacket's."""


def clothes_colour(picture: Image.Image) -> str | None:
    """The colour of the clothes, at the middle of the lower edge; None if only the background is there."""
    pixels = small(picture)
    height, width, _ = pixels.shape
    # In a wide picture the figure still stands in the middle and is as wide as the picture is high.
    half = round(0.27 * min(height, width))
    strip = pixels[-max(3, height // 24) :, width // 2 - half : width // 2 + half].reshape(-1, 3)
    behind, _ = background(picture)
    found = [(colour, share) for colour, share in areas(strip) if distance(colour, behind) > ALIKE or share > 0.45]
    jackets = [(colour, share) for colour, share in found if min(distance(colour, shirt) for shirt in SHIRTS) > ALIKE]
    chosen = jackets if jackets and jackets[0][1] > 0.2 else found
    # Long hair and bare arms reach down too. They show around the face, where clothes do not.
    around = pixels[height // 6 : 6 * height // 10, width // 2 - half : width // 2 + half].reshape(-1, 3)
    head = [colour for colour, share in areas(around) if share > 0.07]
    others = [one for one in chosen if min(distance(one[0], colour) for colour in head) > ALIKE]
    chosen = others if others and others[0][1] > 0.2 else chosen
    if not chosen:
        return None
    # A jacket's lapels lie in its own shadow.
    lit = text(tuple(min(255, value / LAPEL) for value in rgb(chosen[0][0])))
    return next((colour for colour, share in found if share > 0.06 and distance(colour, lit) < 0.03), chosen[0][0])


HEAD = 0.035
"""Least area of a head, as a share of the square of the picture's shorter side."""


def heads(picture: Image.Image, skin: str) -> int:
    """How many areas of skin are large enough for a head. Eleven small heads in a large picture count as none."""
    pixels = small(picture)[::2, ::2].astype(np.float64)
    mask = np.abs(pixels - np.array(rgb(skin))).max(axis=2) < 22
    least = HEAD * min(mask.shape) ** 2
    return sum(size >= least for size in _components(mask))


def _components(mask: NDArray[np.bool_]) -> Sequence[int]:
    """The sizes of the areas of neighbouring places that are set."""
    left, sizes = mask.copy(), list[int]()
    while left.any():
        y, x = (int(value) for value in np.argwhere(left)[0])
        left[y, x] = False
        open_, size = [(y, x)], 0
        while open_:
            y, x = open_.pop()
            size += 1
            for there in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= there[0] < mask.shape[0] and 0 <= there[1] < mask.shape[1] and left[there]:
                    left[there] = False
                    open_.append(there)
        sizes.append(size)
    return sizes
