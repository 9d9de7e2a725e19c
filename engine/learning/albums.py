"""From photos to the pictures that are learned: the photos themselves, or drawings of the person in them.

A base that draws people of its own world cannot show a photographed face (`Family.drawings`). There the person is read
from the photos, drawn, and the drawings are learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from engine.bases.families import Family
from engine.photos import looks as reader
from engine.photos.faces import is_drawing
from engine.photos.selection import Selection, select
from storage.errors import UserError
from storage.looks import Looks


@dataclass(frozen=True)
class Album:
    """What a training learns."""

    pictures: Sequence[Image.Image]
    """RGB, of any size."""
    drawn: Sequence[bool] | None = None
    """Whether each picture is a drawing; None if nobody has looked."""
    captions: Sequence[Sequence[str]] = ()
    """What each picture is known to show; empty where nothing is known."""
    looks: Looks | None = None
    """What the person looks like, if the pictures were drawn from that."""


def read_looks(photos: Sequence[Image.Image]) -> Looks:
    """What the person in the photos looks like.

    Raises:
        UserError: `looks_unseen` if no photo shows a face.
    """
    found = reader.read_album(photos)
    if found is None:
        raise UserError("looks_unseen")
    return found.to_json()


def knows(family: Family, noun: str) -> bool:
    """Whether the base can draw this class noun."""
    return family.nouns is None or noun in family.nouns


def selection(family: Family, noun: str, drawn: Sequence[bool]) -> Selection:
    """Which pictures are used, and how, by whether each is a drawing."""
    return select(bool(family.drawings) and knows(family, noun), drawn)


def picture_count(family: Family, noun: str, drawn: Sequence[bool]) -> int:
    """How many pictures are learned, which the recipe depends on."""
    found = selection(family, noun, drawn)
    return family.drawings if found.redrawn else len(found.chosen)


def open_album(
    photos: Sequence[Image.Image],
    family: Family,
    token: str,
    noun: str,
    *,
    read: Callable[[Sequence[Image.Image]], Looks] = read_looks,
    drawn: Sequence[bool] | None = None,
    seed: int = 0,
) -> Album:
    """The pictures to learn from an album.

    Args:
        photos: RGB.
        read: what the person in photos looks like, where that matters.
        drawn: whether each picture is a drawing, if that is known.
        seed: of the drawings' clothes, backgrounds and expressions.
    Raises:
        UserError: as `read`.
    """
    if not family.drawings:
        return Album(photos, drawn)
    drawn = [is_drawing(photo) for photo in photos] if drawn is None else drawn
    found = selection(family, noun, drawn)
    chosen = [photos[number] for number in found.chosen]
    if not found.redrawn:
        return Album(chosen, [drawn[number] for number in found.chosen])
    looks = read(chosen)
    pictures, captions = family.draw_person(looks, noun, f"{token} {noun}", seed)
    return Album(pictures, [True] * len(pictures), captions, looks)
