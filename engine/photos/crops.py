"""Crops for training: the centre square, the square around the face, or the uncropped photo in a size bucket."""

import math
from collections.abc import Sequence

from PIL import Image, ImageOps

from engine.photos.faces import Face, face_crop, find_faces, is_drawing
from engine.recipe import AlbumCrop, Crop


def prepared_album(
    photos: Sequence[Image.Image],
    album_crop: AlbumCrop,
    crop: Crop,
    side: int,
    drawn: Sequence[bool] | None = None,
) -> list[Image.Image]:
    """The photos as `engine.learning.train` takes them; for the worker and the command line.

    Args:
        photos: RGB, of any size.
        album_crop: the family's; "face" if the base cannot learn a face that is small in its photo.
        crop: the recipe's. A recipe that crops faces or uses size buckets itself takes uncropped photos.
        side: pixels of the training pictures' sides.
        drawn: whether each photo is a drawing; None if that is not known yet.
    Returns:
        Squares of `side` pixels around the largest faces, or the photos as they are.
    """
    if album_crop == "none" or crop != "centre":
        return list(photos)
    known: Sequence[bool | None] = drawn or [None] * len(photos)
    return [face_crop(photo, side, drawn=flat) for photo, flat in zip(photos, known, strict=True)]


def prepare(picture: Image.Image, side: int) -> Image.Image:
    """The picture's centre square, resized to `side` pixels."""
    return ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def buckets(side: int, multiple: int) -> list[tuple[int, int]]:
    """(width, height) in pixels of the sizes that pictures are learned at (NovelAI's aspect ratio bucketing).

    All are multiples of `multiple`, have 0.8 side^2 to side^2 pixels, and an aspect of at most 2.
    """
    sizes = set[tuple[int, int]]()
    for width in range(multiple, side + 1, multiple):
        height = min(side * side // width, 2 * width) // multiple * multiple
        if width * height >= 0.8 * side * side:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def bucket_of(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The one of `sizes` whose aspect ratio is nearest to that of `size`; the largest of equally near ones."""
    aspect = math.log(size[0] / size[1])
    return min(sizes, key=lambda one: (round(abs(math.log(one[0] / one[1]) - aspect), 6), -one[0] * one[1]))


def largest_face(picture: Image.Image) -> Face | None:
    """The largest upright face of a photograph; None if there is none, and for drawings."""
    faces = [] if is_drawing(picture) else [face for face in find_faces(picture) if not face.turn]
    return faces[0] if faces else None


def face_square(size: tuple[int, int], face: Face, side: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of the square to learn from a photo of (width, height) `size`.

    Its side is three times the face's, at least `side` (a smaller square would have to be enlarged) and at most the
    photo's shorter side. It is centred on the face as far as the photo's edges allow.
    """
    length = min(max(3 * max(face.width, face.height), side), *size)
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    left = round(max(0, min(x - length / 2, size[0] - length)))
    top = round(max(0, min(y - length / 2, size[1] - length)))
    return left, top, left + length, top + length


def cropped(
    picture: Image.Image, crop: Crop, side: int, multiple: int, face: Face | None
) -> tuple[Image.Image, tuple[float, ...] | None, tuple[int, int, int, int]]:
    """The part to learn at its final size, the face's box in it, and its original size.

    The box is (left, top, right, bottom) as shares 0..1 of width and height, None without a face. The original size is
    the height and width of the photo and the top and left of the part in the photo at its new size, in pixels, as
    diffusers' train_dreambooth_lora_sdxl.py tells SDXL. The square around a face counts as a photo of its own, since
    enlarging it may cost sharpness as enlarging a small photo does.

    Args:
        crop: "centre" and "face" give squares of `side` pixels ("face" without a face: the centre), "buckets" the size
            from `buckets(side, multiple)` that is nearest in aspect.
    """
    picture = picture.convert("RGB")
    if crop == "face" and face:
        box = face_square(picture.size, face, side)
        size = (side, side)
        original = (box[3] - box[1], box[2] - box[0], 0, 0)
    else:
        size = bucket_of(picture.size, buckets(side, multiple)) if crop == "buckets" else (side, side)
        scale = min(picture.width / size[0], picture.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (round(left), round(top), round(left + width), round(top + height))
        original = (picture.height, picture.width, round(top / scale), round(left / scale))
    part = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    if face is None:
        return part, None, original
    wide, high = box[2] - box[0], box[3] - box[1]
    shares = (
        (face.left - box[0]) / wide,
        (face.top - box[1]) / high,
        (face.right - box[0]) / wide,
        (face.bottom - box[1]) / high,
    )
    return part, shares, original
