"""The settings of one training run: the person, the recipe, and where it reads and writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.adapters.adapters import AdapterKind
from engine.learning.samples import StepSample
from engine.recipe import Recipe


@dataclass(frozen=True)
class Previews:
    """Sample pictures drawn during training: always the same prompts from the same seeds, so that they compare."""

    prompts: tuple[str, ...]
    at: frozenset[int]
    """The steps after which previews are drawn, counted from 1."""
    seed: int = 0
    """Seed of the first prompt; the next ones follow it."""
    steps: int | None = None
    """Denoising steps; the family's if None."""
    side: int | None = None
    """Pixels; the base's own if None."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what one run learns, and what it keeps while it runs."""

    token: str
    """The made-up word for the person, such as cr7d."""
    noun: str
    """The class noun, such as man."""
    recipe: Recipe
    seed: int = 0
    """With the step's number it decides all noise, timesteps and rows."""
    side: int | None = None
    """Pixels of the training pictures' sides; the recipe's or the base's own if None."""
    captions: Sequence[str | Sequence[str]] = ()
    """For a recipe with captions, the text of each picture of the album, or several of which each step takes one."""
    known_captions: Sequence[Sequence[str]] = ()
    """For each picture of the album the captions that say what it shows, where that is known; the family describes the
    pictures of other albums itself."""
    kind: AdapterKind = "avatar"
    """What the adapter says it is."""
    checkpoint: Path | None = None
    """File with everything that the next step depends on. A run that finds its own checkpoint resumes from it."""
    checkpoint_seconds: float = 5.0
    """Least seconds between two checkpoints, more where writing one takes long; 0 writes one after every step."""
    keeps_checkpoint: bool = False
    """Whether a LoRA's checkpoint stays after the last step, so that a longer run can go on from it."""
    must_resume: Path | None = None
    """The adapter of an earlier run, which this one may replace only if it goes on from its checkpoint."""
    prior_folder: Path | None = None
    """Where class pictures are kept for later runs on the same base."""
    previews: Previews | None = None
    owns_base: bool = False
    """Nobody else uses the base, now or afterwards: its encoders may be released after use, and full DreamBooth trains
    the base's own denoiser instead of a copy."""
    sampler: Callable[[int], StepSample] | None = None
    """Replaces `engine.learning.samples.step_sample`, to replay another trainer's run."""

    @property
    def instance(self) -> str:
        """What prompts call the person: token and class noun."""
        return f"{self.token} {self.noun}"
