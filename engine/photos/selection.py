"""Which pictures of an album are learned where a base model draws people instead of learning their photos."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """What becomes of an album's pictures."""

    redrawn: bool
    """Whether the person is read from the chosen pictures and drawn; otherwise those are learned as they are."""
    chosen: tuple[int, ...]
    """Numbers of the chosen pictures, from 0."""
    left_out: int
    """How many pictures are not chosen: drawings among photos, or photos among drawings."""


def select(redraws: bool, drawn: Sequence[bool]) -> Selection:
    """The pictures to use.

    Where a base redraws people, an album with at least as many photos as drawings is read from its photos. Otherwise
    its drawings are learned. The other pictures are left out, since photos and drawings show two different persons.

    Args:
        redraws: whether the base makes drawings of people in photos, and draws what the class noun names.
        drawn: whether each picture is a drawing.
    """
    if not redraws:
        return Selection(False, tuple(range(len(drawn))), 0)
    redrawn = 2 * sum(drawn) <= len(drawn)
    chosen = tuple(number for number, flat in enumerate(drawn) if flat != redrawn)
    return Selection(redrawn, chosen, len(drawn) - len(chosen))
