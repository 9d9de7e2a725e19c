"""Faces in pictures: detection, crops and descriptors; and whether a picture is a drawing.

dlib's models are loaded with the first picture, so importing this module is cheap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps


@dataclass(frozen=True, slots=True)
class Face:
    """A face. `turn`: degrees counter-clockwise that turn the picture upright. The box is in pixels of the turned
    picture."""

    left: int
    top: int
    right: int
    bottom: int
    score: float
    turn: int = 0

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def _network() -> Any:
    import dlib
    import face_recognition_models as models

    return dlib.cnn_face_detection_model_v1(models.cnn_face_detector_model_location())


@cache
def _descriptor() -> tuple[Any, Any]:
    import dlib
    import face_recognition_models as models

    return (
        dlib.shape_predictor(models.pose_predictor_five_point_model_location()),
        dlib.face_recognition_model_v1(models.face_recognition_model_location()),
    )


_DETECTION_SIDE = 640
"""Longer side in pixels of the picture for the quick detector. It finds faces of 40 px or more, 6 % of that side."""
_SURE, _MAYBE = 0.5, -0.35
"""Scores of the quick detector: at least `_SURE` is a face, less than `_MAYBE` is none.

On 580 photos every score above 0.3 was a face. Faces in profile, in shadow or very small score down to -0.3, and so do
a backpack and a dog. The network decides between these two scores: it is slow, and gives 0.5 to 1.1 to faces only."""


_CLEAR, _MORE = 1.0, 0.5
"""A face of at least the score `_CLEAR` is upright. One below it is, unless the quick detector finds a face that scores
`_MORE` higher in the turned picture.

On 70 photos, each in all four turns, upright faces score 1.2 or more in 60 of them, upside down ones up to 0.6, and
faces on their side up to 0.44. Of 69 other photos in all four turns, 274 of 276 get the right turn."""


def find_faces(image: Image.Image) -> list[Face]:
    """The faces in a picture, the largest first. If they are not upright, their `turn` is the turn that makes them so.

    A face that scores low as it is may be upside down or on its side, so the other three turns are searched as well.
    """
    seen = _seen(image)
    best = max((face.score for face in seen), default=_MAYBE)
    turned = [] if best >= _CLEAR else _turned_faces(image, max(_SURE, best + _MORE))
    faces = turned or _sure_faces(image, seen) or _turned_hard_faces(image) or _faces_of_network(image)
    return sorted(faces, key=lambda face: -face.width)


def _seen(image: Image.Image) -> list[Face]:
    """What the quick detector takes for faces, doubtful ones among them."""
    small, scale = _resized(image, _DETECTION_SIDE)
    return _quick(small, scale, upsample=1, least=_MAYBE)


def _sure_faces(image: Image.Image, seen: Sequence[Face]) -> list[Face]:
    """The faces of those that the quick detector has seen, with the network's word on doubtful ones."""
    doubtful = [face for face in seen if face.score < _SURE][:5]
    return [face for face in seen if face.score >= _SURE or (face in doubtful and _confirmed(image, face))]


def _turned_faces(image: Image.Image, least: float) -> list[Face]:
    """The faces in the one of the other three turns in which the best face scores highest, and at least `least`."""

    def found(turned: Image.Image) -> list[Face]:
        small, scale = _resized(turned, _DETECTION_SIDE)
        return _quick(small, scale, upsample=0, least=_SURE)

    return _best_turn(image, found, least)


def _turned_hard_faces(image: Image.Image) -> list[Face]:
    """As `_turned_faces`, but small and doubtful faces as well. It is slower."""
    return _best_turn(image, lambda turned: _sure_faces(turned, _seen(turned)), _MAYBE)


def _best_turn(image: Image.Image, find: Callable[[Image.Image], list[Face]], least: float) -> list[Face]:
    best: list[Face] = []
    for turn in (90, 270, 180):
        faces = [replace(face, turn=turn) for face in find(rotated(image, turn))]
        top = max((face.score for face in faces), default=_MAYBE)
        if faces and top >= least:
            best, least = faces, top
    return best


def _faces_of_network(image: Image.Image) -> list[Face]:
    """The faces that only the network finds: upright ones, or upside down ones. It gives faces on their side nearly the
    same score as upright ones, so it cannot tell those."""
    for turn in (0, 180):
        if found := _thorough(rotated(image, turn), 360):
            return [replace(face, turn=turn) for face in found]
    return []


def _quick(small: Image.Image, scale: float, upsample: int, least: float) -> list[Face]:
    boxes, scores, _ = _detector().run(np.asarray(small), upsample, least)
    return [_face(box, score, scale) for box, score in zip(boxes, scores, strict=True)]


def _confirmed(image: Image.Image, face: Face) -> bool:
    """Whether the network finds a face where the quick detector was in doubt."""
    around = _square(face, 2.5)
    return any(
        seen.width > 0.2 * (around[2] - around[0]) for seen in _thorough(image.crop(around).resize((224, 224)), 224)
    )


def _thorough(image: Image.Image, side: int) -> list[Face]:
    small, scale = _resized(image, side)
    found = _network()(np.asarray(small), 0)
    return [_face(seen.rect, seen.confidence, scale) for seen in found if seen.confidence > 0.4]


def _face(box: Any, score: float, scale: float) -> Face:
    left, top, right, bottom = (round(value / scale) for value in (box.left(), box.top(), box.right(), box.bottom()))
    return Face(left, top, right, bottom, float(score))


def _resized(image: Image.Image, side: int) -> tuple[Image.Image, float]:
    """The picture with its longer side at `side` pixels (at most doubled), and the scale that did it."""
    scale = min(side / max(image.size), 2.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), scale


def rotated(image: Image.Image, turn: int) -> Image.Image:
    """The picture turned by 0, 90, 180 or 270 degrees counter-clockwise."""
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    return image.transpose(turns[turn]) if turn else image


def _square(face: Face, factor: float, lower: float = 0.0) -> tuple[int, int, int, int]:
    """A square around a face, `factor` times its size, its centre lowered by that share of the face's height."""
    half = factor * max(face.width, face.height) / 2
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2 + lower * face.height
    return round(x - half), round(y - half), round(x + half), round(y + half)


def face_crop(image: Image.Image, size: int, *, enlarge: float = 2.2, drawn: bool | None = None) -> Image.Image:
    """The square around the largest face, with hair and shoulders, at `size` pixels; the middle if there is no face.

    Args:
        drawn: whether the picture is a drawing, if the caller knows; None finds out.
    """
    faces = [] if (is_drawing(image) if drawn is None else drawn) else find_faces(image)
    if not faces:
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    image = rotated(image, faces[0].turn)
    left, top, right, bottom = _square(faces[0], enlarge, lower=0.1)
    side = min(right - left, *image.size)
    left = max(0, min((left + right - side) // 2, image.width - side))
    top = max(0, min((top + bottom - side) // 2, image.height - side))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def describe(image: Image.Image) -> NDArray[np.float64] | None:
    """The largest face as a vector (128,), None without a face. Two of the same person have a distance below 0.6."""
    faces = find_faces(image)
    if not faces:
        return None
    landmarks, model = _descriptor()
    small, shape, _ = _shape(rotated(image, faces[0].turn), faces[0], landmarks)
    return np.array(model.compute_face_descriptor(np.asarray(small), shape))


def five_landmarks(image: Image.Image, face: Face) -> NDArray[np.float64]:
    """Corners of the eyes and base of the nose as (x, y) in pixels, (5, 2), in dlib's order.

    Args:
        image: RGB, already turned by the face's `turn`.
    """
    _, shape, scale = _shape(image, face, _descriptor()[0])
    return np.array([(point.x, point.y) for point in shape.parts()]) / scale


def _shape(upright: Image.Image, face: Face, landmarks: Any) -> tuple[Image.Image, Any, float]:
    """The picture at 1,024 px, the face's landmarks in it, and the scale of that size."""
    import dlib

    small, scale = _resized(upright, 1024)
    box = (face.left, face.top, face.right, face.bottom)
    return small, landmarks(np.asarray(small), dlib.rectangle(*(round(value * scale) for value in box))), scale


def looks_drawn(image: Image.Image) -> bool:
    """Whether a picture is a flat drawing: even areas with hard edges between them and no shading; or lines on one even
    ground.

    Measured at 128 px, after a median filter that removes JPEG's ringing. On 800 drawings of the embedded base's world
    and 580 photos it recognises every drawing saved as PNG and 19 of 20 JPEGs from 256 px on (at 128 px two thirds at
    quality 90). It mistakes none of 464 portraits for a drawing, and of 90 photos of things three of a cartoon clock.
    Of 2,000 PNGs of 500 drawings in 25 other styles, line drawings among them, at 512, 256 and 128 px and small in the
    picture, it misses two. Pages of text are none, unless lines of small type merge at 128 px.
    """
    side = image.copy()
    side.thumbnail((128, 128), Image.Resampling.BOX)
    pixels = np.asarray(side.filter(ImageFilter.MedianFilter(3))).astype(np.int16)
    if min(pixels.shape[:2]) < 16:
        return False
    here = pixels[:-1, :-1]
    step = np.maximum(np.abs(pixels[:-1, 1:] - here), np.abs(pixels[1:, :-1] - here)).max(axis=2)
    even, shaded, edges = (float(part.mean()) for part in (step <= 5, (step > 5) & (step <= 24), step > 24))
    hard = edges / max(edges + shaded, 1e-9)
    levels = pixels >> 5
    _, counts = np.unique(levels[..., 0] * 64 + levels[..., 1] * 8 + levels[..., 2], return_counts=True)
    several = int((counts > 0.02 * levels[..., 0].size).sum()) >= 2
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    on_ground = float((np.abs(pixels - ground).max(axis=2) <= 6).mean())
    if several:
        flat = even >= 0.7 and shaded <= 0.15 and hard >= 0.3
    else:  # thin lines cover too little to count as a colour
        flat = on_ground >= 0.6 and edges >= 0.006 and shaded <= 0.08 and hard >= 0.5
    # A printed page is flat as well, but its marks are many and small.
    marks = np.abs(np.asarray(side).astype(np.int16) - ground).max(axis=2) > 24
    return flat and (on_ground < 0.6 or not _scattered(marks))


def _scattered(marks: NDArray[np.bool_]) -> bool:
    """Whether marks (H, W) are in more than eight pieces, of which no large one is as high and wide as 0.15 of the
    picture."""
    height, width = marks.shape
    labels = np.where(marks, np.arange(1, marks.size + 1).reshape(marks.shape), 0)
    for _ in range(4 * max(marks.shape)):  # each round brings a piece's largest number one pixel farther
        around = np.pad(labels, 1)
        spread = np.max([around[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0) * marks
        if np.array_equal(spread, labels):
            break
        labels = spread
    numbers, counts = np.unique(labels[marks], return_counts=True)
    largest = 0.0
    for number in numbers[np.argsort(-counts)][:5]:
        y, x = np.nonzero(labels == number)
        largest = max(largest, min((np.ptp(y) + 1) / height, (np.ptp(x) + 1) / width))
    return len(numbers) > 8 and largest < 0.15


def is_drawing(image: Image.Image) -> bool:
    """Whether a picture looks drawn and shows no photographed face (a dark suit before a white wall is flat as well).

    In photos that look drawn, faces score 1.37 or more; the highest score in 240 drawings is 1.03.
    """
    if not looks_drawn(image):
        return False
    small, scale = _resized(image, _DETECTION_SIDE)
    return not _quick(small, scale, upsample=1, least=1.2)
