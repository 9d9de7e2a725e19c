"""The automatic recipe: how to learn an album, from the number of photos, the method and the base model's family."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from engine.errors import InputError

Method = Literal["lora", "dreambooth"]

PHOTOS = range(5, 11)
"""The seed's finding: 5 to 10 photos are best for a person. Others are learned too."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how one album is learned."""

    method: Method
    steps: int
    learning_rate: float
    batch: int
    """Instance pictures a step."""
    prior_batch: int
    """Class pictures a step, for prior preservation (arXiv 2208.12242, section 3.2); 0 for none."""
    prior_weight: float
    rank: int = 16
    alpha: int = 16
    prior_pictures: int = 32
    """Class latents drawn once for each base and class noun."""
    weight_decay: float = 0.01
    text_encoder: bool = False
    """Whether the text encoder gets a LoRA too, so that the token can come to mean the person before the U-Net reads it
    (diffusers' train_dreambooth_lora.py: --train_text_encoder)."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Learner(Protocol):
    """A family of base models, as far as recipes go."""

    @property
    def recipes(self) -> Mapping[Method, tuple[int, Recipe]]:
        """Steps for each photo and the other values, by method."""


RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 20_000), "batch": (1, 64), "prior_batch": (0, 64), "rank": (1, 256),
    "learning_rate": (1e-8, 0.1), "prior_weight": (0.0, 100.0),
}  # fmt: skip


def choose(photos: int, method: Method, family: Learner, **overrides: Any) -> Recipe:
    """The recipe for an album of `photos` pictures; any field may be overridden, None leaves it to the rule.

    The number of steps follows the seed's rule, so many for each photo, but as if there were 5 to 20: fewer photos
    do not need less learning, and more than 20 teach little that is new.

    Raises:
        InputError: `out_of_range` for an override outside `RANGES`.
    """
    per_photo, basis = family.recipes[method]
    recipe = replace(basis, steps=per_photo * min(20, max(5, photos)))
    given = {name: value for name, value in overrides.items() if value is not None}
    for name, value in given.items():
        low, high = RANGES.get(name, (float("-inf"), float("inf")))
        if not low <= value <= high:
            raise InputError("out_of_range", what=name.replace("_", " "), low=low, high=high, value=value)
    return replace(recipe, **given)
