"""Faces put upright and to one size: five landmarks, and square pictures around them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.photos.faces import Face, five_landmarks

Points = NDArray[np.float64]
"""Five landmarks as (x, y) in pixels, (5, 2): outer and inner corner of the eye on the viewer's right, then of the one
on the viewer's left, and the base of the nose."""

MEAN_FACE = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
"""Where the landmarks of the mean face lie in its square, from dlib's `get_face_chip_details`
(image_transforms/interpolation.h). The chin is at about 1.15 and the top of the hair at about -0.6."""

OUTSIDE = (128, 128, 128)
"""Colour of what lies outside the photo."""


def landmarks(image: Image.Image, face: Face) -> Points:
    """The five landmarks of a face in pixels of the upright `image`."""
    return five_landmarks(image, face)


def similarity(points: Points, targets: Points) -> Points:
    """The similarity transform (2, 3) that takes `points` (n, 2) to `targets` (n, 2) with the least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, equations 40-42.
    """
    centre, goal = points.mean(axis=0), targets.mean(axis=0)
    here, there = points - centre, targets - goal
    left, spread, right = np.linalg.svd(there.T @ here)
    sign = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ np.diag(sign) @ right
    scaled = rotation * ((spread * sign).sum() / (here**2).sum())
    return np.column_stack([scaled, goal - scaled @ centre])


def placed(side: int, padding: float) -> Points:
    """The mean face's landmarks, (5, 2), in a square of `side` pixels whose margin is `padding` times the face."""
    return (MEAN_FACE + padding) / (1 + 2 * padding) * side


def warped(image: Image.Image, transform: Points, side: int) -> Image.Image:
    """The square of `side` pixels that `transform` (2, 3) takes the image to, gray where the image ends.

    A photo that becomes smaller is reduced by averaging first, so that fine patterns do not alias.
    """
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    factor = max(1, int(1 / scale))
    inverse = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
    if factor > 1:
        corners = inverse @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]], float)
        left, top = np.maximum(corners[:2].min(axis=1) - 2 * factor, 0).astype(int)
        right, bottom = np.minimum(np.ceil(corners[:2].max(axis=1)) + 2 * factor, image.size).astype(int)
        image = image.reduce(factor, box=(int(left), int(top), max(int(right), left + 1), max(int(bottom), top + 1)))
        inverse[0] -= (0, 0, left)
        inverse[1] -= (0, 0, top)
        inverse[:2] /= factor
    data: Any = inverse[:2].ravel().tolist()
    return image.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC, fillcolor=OUTSIDE)


def aligned(image: Image.Image, points: Points, side: int, padding: float) -> Image.Image:
    """The upright square around a face, as dlib's `get_face_chip` cuts it.

    Args:
        image: RGB.
        points: the face's landmarks in it.
        side: pixels of the square's sides.
        padding: margin on each side as a multiple of the face's own square; dlib's network was trained with 0.25.
    """
    return warped(image, similarity(points, placed(side, padding)), side)
