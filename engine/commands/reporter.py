"""The command line's reports of a training run: progress bar, numbers for a tracker, sample grids and their scores."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from engine.learning.listener import Listener, Progress, Stopped
from engine.sentences import warning
from storage.atomic import atomic_write

if TYPE_CHECKING:
    from engine.measuring.scoring import PromptScore
    from engine.measuring.trackers import Tracker


def show_progress(progress: Progress) -> None:
    """Draw the progress bar on a terminal. Elsewhere, such as in a log, print a line after each tenth of the steps."""
    step, steps = progress.step, progress.steps
    speed = 1 / progress.step_seconds if progress.step_seconds else 0.0
    pace = f"{speed:.2g} steps/s" if 0 < speed < 10 else f"{speed:.0f} steps/s"
    if 0 < speed < 1:
        pace = f"{progress.step_seconds:.2g} s/step"
    figures = [
        f"step {step} of {steps}",
        f"loss {progress.loss:.4f}",
        f"rate {progress.learning_rate:.1e}",
        pace,
        f"{_span(progress.seconds_left)} left",
    ]
    line = ", ".join(figures)
    if not sys.stderr.isatty():
        if 10 * step // steps > 10 * (step - 1) // steps:
            print(line, file=sys.stderr, flush=True)
        return
    columns = shutil.get_terminal_size().columns
    width = max(0, min(30, columns - len(line) - 4))
    done = width * step // steps
    bar = f"[{'#' * done}{'.' * (width - done)}] " if width >= 5 else ""
    # The rest of an earlier, longer line is erased.
    end = "\n" if step == steps else ""
    print(f"\r{(bar + line)[: columns - 1]}\x1b[K", end=end, file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    """A length of time: "12 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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

    def on_class_pictures(self, drawn: int, of: int) -> None:
        if self.stop_requested:
            raise Stopped

    def on_resume(self, step: int) -> None:
        if self.shows:
            print(f"The training goes on from step {step}.", flush=True)

    def on_warning(self, code: str, **facts: object) -> None:
        if self.shows:
            print(warning(code, facts), file=sys.stderr, flush=True)

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
