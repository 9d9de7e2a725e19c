"""What a photo must be to be learned from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from storage.naming import PEOPLE

_REDUCED = MappingProxyType({"JPEG": 120_000_000, "MPO": 120_000_000, "progressive": 64_000_000, "HEIF": 64_000_000})
"""Phones take photos of 48, 50 and 108 megapixels. libjpeg decodes a JPEG at a half or less. A progressive JPEG needs
4 bytes or more for each of its pixels all the same, and HEIC is decoded whole."""


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
    """Most pixels of a photo as it is used. Larger photos of the formats in `reduced` are made smaller."""
    reduced: Mapping[str, int] = field(default_factory=lambda: _REDUCED, hash=False)
    """Most pixels in the file, for formats whose photos may have more than `max_pixels`; "progressive" is for JPEG."""
    max_bytes: int = 20_000_000
    max_aspect: float = 3.0
    """Largest ratio of the longer side to the shorter."""

    def limit(self, format: str | None) -> int:
        """Most pixels in a file of this format, as `reduced` names it."""
        return max(self.max_pixels, self.reduced.get(format or "", 0))

    @classmethod
    def for_noun(cls, noun: str) -> "Rules":
        """The rules for a class noun: photographs of people need one face, things and animals need none."""
        words = noun.lower().split()
        return cls(faces="required" if words and words[-1] in PEOPLE else "ignored")
