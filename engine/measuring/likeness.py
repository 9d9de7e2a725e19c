"""Likeness: how well pictures show the person of an album."""

from collections.abc import Iterable
from statistics import mean, mode
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.bases.base import BaseModel
from engine.photos.faces import describe
from engine.toon.judge import IDENTITY, Judge

SAME_PERSON = 0.6
"""Two face descriptors with a smaller distance are of one person (dlib's face_recognition_model_v1)."""


class Likeness(Protocol):
    """Measures how well pictures show the person of an album.

    Pictures are taken from an iterable one after another. A photograph takes a second or more, so a generator may do
    other work between two of them.
    """

    known: bool
    """Whether a person was recognised in the album; if not, every likeness is 0."""

    def __call__(self, pictures: Iterable[Image.Image]) -> float:
        """The likeness, from 0 to 1."""
        ...


class JudgedLikeness:
    """For drawn people: the share of the album's features (hair style and colour, skin, beard) in the pictures."""

    known = True

    def __init__(self, album: Iterable[Image.Image]) -> None:
        self.judge = Judge.load()
        seen = self.judge.attributes([*album])
        self.features = {name: mode(one[name] for one in seen) for name in IDENTITY}

    def __call__(self, pictures: Iterable[Image.Image]) -> float:
        shown = self.judge.attributes([*pictures])
        return mean(float(one[name] == value) for one in shown for name, value in self.features.items())


class FaceLikeness:
    """For photographs: the share of pictures with the face of the album's person, by face descriptors."""

    def __init__(self, album: Iterable[Image.Image]) -> None:
        self.own = [descriptor for picture in album if (descriptor := describe(picture)) is not None]
        self.known = bool(self.own)

    def __call__(self, pictures: Iterable[Image.Image]) -> float:
        return mean(float(self._same(describe(picture))) for picture in pictures)

    def _same(self, descriptor: NDArray[np.float64] | None) -> bool:
        if descriptor is None or not self.own:
            return False
        return float(np.median([np.linalg.norm(descriptor - one) for one in self.own])) < SAME_PERSON


def likeness_of(base: BaseModel, album: Iterable[Image.Image]) -> Likeness:
    """The likeness to `album`, measured as the base's family asks."""
    return JudgedLikeness(album) if base.family.likeness == "judge" else FaceLikeness(album)
