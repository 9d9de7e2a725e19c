"""What a person looks like, read from photos: skin, hair, beard and glasses, by vote over an album.

Skin is one of six tones, 1 the lightest. They are the ten of the Monk Skin Tone scale (skintone.google) in pairs where
neighbours are hard to tell apart: 1 is Monk 1 and 2, 2 is 3 and 4, 3 is 5, 4 is 6, 5 is 7 and 8, 6 is 9 and 10.
Importing this module is cheap; models are loaded with the first photo.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.photos.alignment import Points, landmarks
from engine.photos.face_network import Array
from engine.photos.faces import Face, find_faces, is_drawing, rotated
from engine.photos.head_parts import HAIR, SKIN, median_lab, small, srgb
from engine.photos.looks_features import balanced, features, squares, white_balance
from engine.photos.looks_model import CLASSES, looks_model

Shares = NDArray[np.float64]
"""Probabilities of a head's classes, (classes,)."""


@dataclass(frozen=True, eq=False)
class PhotoLooks:
    """One face as one photo shows it."""

    shares: Mapping[str, Shares]
    """By the names of `looks_model.CLASSES`."""
    descriptor: Array
    """dlib's face descriptor, (128,): two of one person are nearer than 0.6."""
    skin: Shares | None
    """Median CIELAB of the skin after white balance, (3,); None if too little of it is seen."""
    hair: Shares | None
    """The same of the hair."""
    weight: float
    """How much the photo counts, 0..1: less for a small face, and for one that is turned away."""
    coloured: bool
    """Whether the photo has colours."""


@dataclass(frozen=True)
class Looks:
    """What a person looks like."""

    skin: int
    """1 (lightest) to 6; see the module."""
    hair_colour: str
    """black, brown, blonde, red, grey, or none for a bald head."""
    hair_length: str
    """bald, short (above the jaw), medium (to the shoulders) or long."""
    facial_hair: str
    """none, moustache or beard; clear stubble is a beard."""
    glasses: bool
    hair_kind: str
    """straight, wavy, curly or coily."""
    hair_tied: bool
    """Whether long hair is worn tied back or up."""
    beard_length: str | None
    """light or full; None without a beard."""
    skin_srgb: str | None
    """The skin's colour after white balance, such as #c68642; None if it could not be measured."""
    hair_srgb: str | None
    """The hair's colour; None for a bald head."""
    confidence: Mapping[str, float]
    """How sure each attribute is, 0..1, by its name. For `skin`: that it is right or one tone off."""
    photos: int
    """Number of photos that were read."""

    def to_json(self) -> dict[str, Any]:
        """The looks as JSON values."""
        names = ("skin", "hair_colour", "hair_length", "facial_hair", "glasses", "hair_kind", "hair_tied")
        colours = ("beard_length", "skin_srgb", "hair_srgb")
        found: dict[str, Any] = {name: getattr(self, name) for name in (*names, *colours)}
        return found | {"confidence": dict(self.confidence), "photos": self.photos}


def read_photo(image: Image.Image, face: Face | None = None) -> PhotoLooks | None:
    """What one photo shows; None if it shows no face, or is a drawing.

    Args:
        image: RGB.
        face: the face to read, if the caller has found it, in an upright photo; None looks for the largest.
    """
    if face is None:
        faces = [] if is_drawing(image) else find_faces(image)
        if not faces:
            return None
        face, image = faces[0], rotated(image, faces[0].turn)
    model = looks_model()
    points = landmarks(image, face)
    square, head = squares(image, points)
    # The mirrored picture is the same person: the mean of both is steadier.
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    found, parts = features([square, square.transpose(flip)], [head, head.transpose(flip)], model.parts)
    shares = {name: one(found).mean(axis=0) for name, one in model.heads.items()}
    picture = small(balanced(head, white_balance(head)))
    pixels = np.asarray(head).astype(np.int16)
    return PhotoLooks(
        shares=shares,
        descriptor=found["face_1"].mean(axis=0),
        skin=median_lab(picture, parts[0, SKIN] > 0.6),
        hair=median_lab(picture, parts[0, HAIR] > 0.6),
        weight=min(1.0, max(face.width, 24) / 120) * _frontal(points),
        coloured=float((pixels.max(axis=2) - pixels.min(axis=2) <= 6).mean()) < 0.97,
    )


def _frontal(points: Points) -> float:
    """1 for a face that looks into the camera, down to 0.3 for one in profile: how near the nose is to the middle."""
    right, left, nose = points[:2].mean(axis=0), points[2:4].mean(axis=0), points[4]
    axis = right - left
    apart = float(np.linalg.norm(axis)) + 1e-6
    off = abs(float((nose - (right + left) / 2) @ axis)) / apart**2
    return max(0.3, 1 - 1.6 * max(0.0, off - 0.1))


def read_album(photos: Sequence[PhotoLooks | Image.Image]) -> Looks | None:
    """What the person of an album looks like; None if no photo shows a face.

    Every photo votes with its weight. Photos of somebody else count a fifth, photos without colours a quarter where
    colour matters, and a covered head counts little for hair.
    """
    read = [read_photo(photo) if isinstance(photo, Image.Image) else photo for photo in photos]
    found = [one for one in read if one is not None]
    if not found:
        return None
    weights = np.array([one.weight for one in found]) * _same_person(found)
    colour = weights * np.array([1.0 if one.coloured else 0.25 for one in found])
    bare = 1 - 0.85 * np.array([one.shares["covered"][1] for one in found])

    def vote(name: str, votes: Shares) -> Shares:
        return np.asarray(np.average([one.shares[name] for one in found], axis=0, weights=votes))

    confidence = dict[str, float]()

    def chosen(name: str, shares: Shares, sure: float = 1.0) -> str:
        best = int(shares.argmax())
        confidence[name] = float(shares[best]) * sure
        return CLASSES[name][best]

    skin_shares = vote("skin", colour)
    skin = int(np.clip(round(float(skin_shares @ np.arange(1, 7))), 1, 6))
    confidence["skin"] = float(skin_shares[max(0, skin - 2) : skin + 1].sum())
    seen = float((weights * bare).sum() / weights.sum())
    length = chosen("hair_length", vote("hair_length", weights * bare), seen)
    colours = vote("hair_colour", colour * bare)
    colours[-1] *= length == "bald"
    if length == "bald" and colours[-1] > 0.2:
        colours[:-1] = 0.0
    hair_colour = chosen("hair_colour", colours / colours.sum(), seen)
    none, clear, dark = vote("glasses", weights)
    # Sunglasses say less about what a person wears every day.
    worn = np.array([none, clear + 0.4 * dark])
    glasses = bool(worn[1] > worn[0])
    confidence["glasses"] = float(worn.max() / worn.sum()) * float(1 - 0.4 * dark)
    facial = chosen("facial_hair", vote("facial_hair", weights))
    beard = chosen("beard_length", vote("beard_length", weights)) if facial == "beard" else None
    kind = chosen("hair_kind", vote("hair_kind", weights * bare), seen)
    tied = chosen("tied", vote("tied", weights * bare), seen) == "yes" and length in ("medium", "long")
    confidence["hair_tied"] = confidence.pop("tied")
    return Looks(
        skin=skin,
        hair_colour=hair_colour,
        hair_length=length,
        facial_hair=facial,
        glasses=glasses,
        hair_kind=kind,
        hair_tied=tied,
        beard_length=beard,
        skin_srgb=_colour([one.skin for one in found], colour),
        hair_srgb=None if length == "bald" else _colour([one.hair for one in found], colour * bare),
        confidence={name: round(value, 3) for name, value in confidence.items()},
        photos=len(found),
    )


def _same_person(found: Sequence[PhotoLooks]) -> Shares:
    """1 for each photo of the person that most photos show, 0.2 for the others, (n,)."""
    descriptors = np.stack([one.descriptor for one in found])
    distances = np.linalg.norm(descriptors[:, None] - descriptors[None], axis=2)
    middle = np.median(distances, axis=1).argmin()
    return np.where(distances[middle] < 0.65, 1.0, 0.2)


def _colour(values: Sequence[Shares | None], weights: Shares) -> str | None:
    """The weighted mean of CIELAB colours as #rrggbb; None if there is none."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    if not known or sum(weight for _, weight in known) <= 0:
        return None
    mean = np.average([value for value, _ in known], axis=0, weights=[weight for _, weight in known])
    return "#" + "".join(f"{round(float(channel)):02x}" for channel in srgb(mean))


SKIN_WORDS = ("very light", "light", "medium", "tan", "brown", "dark")
"""Words for the six tones."""

UNSURE = 0.4
"""Confidence below which the sentence says that a thing is hard to see."""


def looks_sentence(looks: Looks) -> str:
    """The looks in one sentence, such as "I see short dark brown hair, a full beard, light skin, no glasses."."""
    parts = [_hair_words(looks)]
    if looks.facial_hair == "beard":
        parts.append("a light beard" if looks.beard_length == "light" else "a full beard")
    elif looks.facial_hair == "moustache":
        parts.append("a moustache")
    parts.append(f"{SKIN_WORDS[looks.skin - 1]} skin")
    parts.append("glasses" if looks.glasses else "no glasses")
    return f"I see {', '.join(parts)}."


def _hair_words(looks: Looks) -> str:
    if looks.hair_length == "bald":
        return "a bald head"
    colour = looks.hair_colour
    if colour == "brown" and looks.hair_srgb:
        red, green, blue = (int(looks.hair_srgb[at : at + 2], 16) for at in (1, 3, 5))
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        colour = "dark brown" if luma < 62 else "light brown" if luma > 105 else "brown"
    kind = "" if looks.hair_kind == "straight" else f"{looks.hair_kind} "
    unsure = looks.confidence["hair_length"] < UNSURE
    return f"{looks.hair_length} {kind}{colour} hair{' (hard to see)' if unsure else ''}"
