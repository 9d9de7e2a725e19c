"""Likeness: how well pictures show the person of an album."""

from collections.abc import Iterable, Sequence
from statistics import mean, mode
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.bases.base import BaseModel
from engine.photos.faces import describe
from engine.toon.judge import IDENTITY, Judge

OWN_DISTANCE, OTHERS_DISTANCE = 0.46, 0.84
"""Distances of dlib's face descriptors. Own: the mean over the 20 photos of one man's album (published for DreamBooth:
AlbertSuarez/dreambooth-stable-diffusion, MIT) of the median distance to the others, 0.40 to 0.52. Others: the mean of
435 pairs of 30 adults (Face Research Lab London Set, DeBruine and Jones 2017), 0.57 at least; the two photos of each of
these, of one session, are 0.23 apart."""


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
    """For photographs: how near the pictures' faces are to the album's, between strangers' photos and the person's own.

    With d the median distance of a picture's face descriptor to those of the album, a picture has
    (OTHERS_DISTANCE - d) / (OTHERS_DISTANCE - own), cut to 0 to 1; one without a face has 0. `own` is the mean of d of
    the album's photos, each left out in turn, so that no picture counts more than the person's own photos do. A share
    of pictures under a fixed distance would be 1 for every good checkpoint, and could not rank two of them.
    """

    def __init__(self, album: Iterable[Image.Image]) -> None:
        self._album = [descriptor for picture in album if (descriptor := describe(picture)) is not None]
        self.known = bool(self._album)
        left_out = [
            self._distance(one, self._album[:number] + self._album[number + 1 :])
            for number, one in enumerate(self._album)
            if len(self._album) > 1
        ]
        self.own = min(mean(left_out), OWN_DISTANCE) if left_out else OWN_DISTANCE
        """At most `OWN_DISTANCE`: an album that mixes people must not make strangers alike."""

    def __call__(self, pictures: Iterable[Image.Image]) -> float:
        return mean(self._likeness(describe(picture)) for picture in pictures)

    def _likeness(self, descriptor: NDArray[np.float64] | None) -> float:
        if descriptor is None or not self.known:
            return 0.0
        distance = self._distance(descriptor, self._album)
        return min(1.0, max(0.0, (OTHERS_DISTANCE - distance) / (OTHERS_DISTANCE - self.own)))

    @staticmethod
    def _distance(descriptor: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> float:
        return float(np.median([np.linalg.norm(descriptor - one) for one in others]))


def likeness_of(base: BaseModel, album: Iterable[Image.Image]) -> Likeness:
    """The likeness to `album`, measured as the base's family asks."""
    return JudgedLikeness(album) if base.family.likeness == "judge" else FaceLikeness(album)
