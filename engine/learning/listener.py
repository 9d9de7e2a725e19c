"""The events of a training run, and who receives them."""

from dataclasses import dataclass

from PIL import Image

from engine.learning.learner import Learner


class Stopped(Exception):
    """Raised by a listener to end the run; the last checkpoint remains."""

    def __init__(self, kept: int = 0) -> None:
        """
        Args:
            kept: the number of steps in the checkpoint that was written for this stop; 0 for none.
        """
        super().__init__(kept)
        self.kept = kept


@dataclass(frozen=True)
class Progress:
    """How far a training run is, sent after every step."""

    step: int
    """Steps done, from 1."""
    steps: int
    seconds_left: float
    """Estimate, from the median of the last 50 steps."""
    loss: float
    """The instance rows' part of what is minimised, over all rows of the step."""
    learning_rate: float = 0.0
    prior_loss: float = 0.0
    """The class rows' part of what is minimised."""
    step_seconds: float = 0.0
    """The median of the last 50 steps."""


class Listener:
    """Receives the events of a training run. Override the methods that matter; by default they do nothing.

    Between two steps, and between two denoising steps of a class picture, a listener may draw on the same base with
    other adapters. It may raise `Stopped` there to end the run.
    """

    stop_requested: bool = False
    """Set it to end the run after the step under way, with a checkpoint. In a team, one process is enough."""

    def on_class_pictures(self, drawn: int, of: int) -> None:
        """Between two denoising steps of class pictures: `drawn` of them are done."""

    def on_start(self, learner: Learner) -> None:
        """Before the first step, and before a checkpoint is read: this is what learns."""

    def on_resume(self, step: int) -> None:
        """Before the first step of a run that goes on: `step` of them are done."""

    def on_warning(self, code: str, **facts: object) -> None:
        """Something went wrong, and the run goes on. `engine.sentences.WARNINGS` has the words for each code."""

    def on_step(self, progress: Progress) -> None:
        """After every step."""

    def on_checkpoint(self, step: int) -> None:
        """A checkpoint was written after `step` steps."""

    def on_previews(self, step: int, pictures: list[Image.Image]) -> None:
        """Previews were drawn after `step` steps, one picture for each prompt."""

    def on_short_memory(self, rows: int) -> None:
        """Memory was too short; from now on `rows` rows go through the denoiser at once."""


SILENT = Listener()
