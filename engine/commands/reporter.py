"""The command line's reports of a training run: progress bar, numbers for a tracker, sample grids and their scores."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from engine.learning.listener import Listener, Progress
from storage.atomic import atomic_write

if TYPE_CHECKING:
    from engine.measuring.scoring import PromptScore
    from engine.measuring.trackers import Tracker


def show_progress(progress: Progress) -> None:
    """Draw the progress bar on a terminal; nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        done = 30 * progress.step // progress.steps
        bar = "#" * done + "." * (30 - done)
        line = f"\r[{bar}] step {progress.step} of {progress.steps}, {progress.seconds_left:.0f} s left "
        print(line, end="\n" if progress.step == progress.steps else "", file=sys.stderr, flush=True)


@dataclass
class Reporter(Listener):
    """Reports one training run."""

    previews: Path
    """Folder of the sample grids."""
    shows: bool
    """Whether this process draws the progress bar; only a team's main process does."""
    tracker: "Tracker | None" = None
    likeness: "Callable[[Sequence[Image.Image]], float] | None" = None
    score: "PromptScore | None" = None
    prompts: Sequence[str] = ()
    """The previews' prompts without the token, which the score does not know."""

    def on_step(self, progress: Progress) -> None:
        if self.shows:
            show_progress(progress)
        if self.tracker:
            numbers = {"loss": progress.loss, "learning_rate": progress.learning_rate}
            if progress.prior_loss:
                numbers["prior_loss"] = progress.prior_loss
            self.tracker.numbers(progress.step, numbers)

    def on_previews(self, step: int, pictures: list[Image.Image]) -> None:
        from engine.measuring.trackers import grid

        with atomic_write(self.previews / f"{step}.png") as draft:
            grid(pictures).save(draft)
        if not self.tracker:
            return
        self.tracker.pictures(step, "samples", pictures)
        scores: dict[str, float] = {}
        if self.likeness:
            scores["score/likeness"] = self.likeness(pictures)
        if self.score:
            scores["score/prompt"] = float(self.score(pictures, self.prompts).diagonal().mean())
        if scores:
            self.tracker.numbers(step, scores)

    def on_short_memory(self, rows: int) -> None:
        print(f"Memory is short: training goes on with {rows} pictures at once.", flush=True)
