"""What a photo must be to be learned from."""

from dataclasses import dataclass
from typing import Literal

from storage.naming import PEOPLE


@dataclass(frozen=True, slots=True)
class Rules:
    """What a photo must be. Sides are in pixels."""

    faces: Literal["required", "ignored"] = "required"
    """Whether no face, or more than one, rejects a photograph."""
    min_side: int = 256
    """Least shorter side of a photograph."""
    min_side_drawn: int = 128
    """Least shorter side of a drawing, whose lines are clear where a photographed face is a smudge; the embedded base
    model draws 128."""
    good_side: int = 512
    """Shorter side below which a photograph is accepted with a remark."""
    max_pixels: int = 40_000_000
    max_bytes: int = 20_000_000
    max_aspect: float = 3.0
    """Largest ratio of the longer side to the shorter."""

    @classmethod
    def for_noun(cls, noun: str) -> "Rules":
        """The rules for a class noun: photographs of people need one face, things and animals need none."""
        words = noun.lower().split()
        return cls(faces="required" if words and words[-1] in PEOPLE else "ignored")
