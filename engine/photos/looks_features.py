"""What the reader of looks sees of a face: feature maps of dlib's network, and colours and shapes of hair and skin."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.photos.alignment import Points, aligned
from engine.photos.face_network import SIDE, Array, face_network
from engine.photos.head_parts import PartsNetwork, measures, small

FACE_PADDING, HEAD_PADDING = 0.25, 1.25
"""Margins of the two squares: the face as dlib's network knows it, and the head with hair and shoulders."""


def squares(image: Image.Image, points: Points) -> tuple[Image.Image, Image.Image]:
    """The face and the head, 150 pixels each, from an upright photo and the face's landmarks."""
    return aligned(image, points, SIDE, FACE_PADDING), aligned(image, points, SIDE, HEAD_PADDING)


def white_balance(head: Image.Image) -> NDArray[np.float64]:
    """Gains of red, green and blue, (3,), that make the light white, their product 1.

    The light's colour is the Minkowski mean of order 6 of all pixels ("Shades of Gray", Finlayson and Trezzi, 2004).
    Half of it is undone, since a face, a wall or a lawn fills much of these squares.
    """
    pixels = np.asarray(head).reshape(-1, 3).astype(np.float64) / 255
    light = (pixels**6).mean(axis=0) ** (1 / 6) + 1e-3
    limited = np.clip((light.mean() / light) ** 0.5, 0.75, 1.35)
    return np.asarray(limited / np.prod(limited) ** (1 / 3))


def balanced(picture: Image.Image, gains: NDArray[np.float64]) -> Image.Image:
    """The picture with its channels multiplied by `gains`."""
    return Image.fromarray(np.clip(np.asarray(picture) * gains + 0.5, 0, 255).astype(np.uint8))


def features(
    faces: Sequence[Image.Image], heads: Sequence[Image.Image], network: PartsNetwork
) -> tuple[dict[str, Array], Array]:
    """The features of B faces by their groups' names, each (B, n), and hair and skin in the heads, (B, 3, 64, 64).

    Groups: maps of 8 x 8, 4 x 4 and 2 x 2 places and dlib's descriptor of the face and of the head, the colours of
    both, and the shapes and measures of hair and skin.

    Args:
        faces, heads: the squares of each, as `squares` gives them.
        network: finds hair and skin.
    """
    count = len(faces)
    pictures = np.stack([np.asarray(picture) for picture in (*faces, *heads)])
    _, _, eight, four, two, descriptor = face_network().levels(pictures)
    found = dict[str, Array]()
    for name, part in (("face", slice(0, count)), ("head", slice(count, None))):
        found[f"{name}_8"], found[f"{name}_4"] = eight[part].reshape(count, -1), four[part].reshape(count, -1)
        found[f"{name}_2"], found[f"{name}_1"] = two[part].reshape(count, -1), descriptor[part]
    gains = [white_balance(head) for head in heads]
    faces = [balanced(square, gain) for square, gain in zip(faces, gains, strict=True)]
    heads = [balanced(square, gain) for square, gain in zip(heads, gains, strict=True)]
    found["face_colours"], found["head_colours"] = _colours(faces, 15), _colours(heads, 25)
    tiny = np.stack([small(head) for head in heads])
    parts = network(tiny)
    found["shapes"] = parts[:, 1:].reshape(count, 2, 16, 4, 16, 4).mean(axis=(3, 5)).reshape(count, -1)
    found["measures"] = np.stack([measures(*pair) for pair in zip(tiny, parts, strict=True)])
    return found, parts


def _colours(squares: Sequence[Image.Image], cells: int) -> Array:
    """The mean colours of `cells` x `cells` places, (B, 3 cells^2), -0.5 to 0.5."""
    rows = [np.asarray(square.resize((cells, cells), Image.Resampling.BOX)).ravel() for square in squares]
    return np.stack(rows).astype(np.float32) / np.float32(255) - np.float32(0.5)
