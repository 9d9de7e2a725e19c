"""How many steps for each photo are best: likeness and overfitting of one person during training.

The seed says that below 50 steps for each photo the person is not learned well enough, and above 100 the face gets
noise. Here each number of steps is measured with the same prompts and seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engine.bases.base import BaseModel
from engine.learning.config import Previews, TrainingConfig
from engine.learning.listener import Listener, Progress
from engine.learning.team import SINGLE_PROCESS, Team
from engine.learning.training import train
from engine.measuring.chart import Curve, line_chart
from engine.measuring.likeness import JudgedLikeness, Likeness, likeness_of
from engine.recipe import Recipe
from engine.toon.prompts import PROMPTS, SEED


@dataclass(frozen=True)
class Point:
    """Measurements after a number of steps. Shares are 0 to 1."""

    steps: int
    per_photo: float
    likeness: float
    """Likeness of pictures with the token in the prompt."""
    bleeding: float
    """Likeness of pictures with the class noun alone in the prompt: how far the class itself became this person."""
    prompt: float | None
    """Share of the attributes in the prompts that pictures show; None where there is no judge."""
    copying: float
    """Mean correlation of each picture with the most similar photo; near 1, training photos are reproduced."""
    noise: float
    """Grain of the pictures relative to the photos': the seed's "noise on the avatar's face"."""


def copying(pictures: Sequence[Image.Image], album: Sequence[Image.Image]) -> float:
    """The mean over `pictures` of the largest correlation with a picture of `album`, between 16 x 16 thumbnails."""
    drawn, photos = (_thumbnails(several) for several in (pictures, album))
    return float((drawn @ photos.T).max(axis=1).mean())


def _thumbnails(pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Thumbnails as rows (n, 768) of mean 0 and length 1."""
    small = [picture.convert("RGB").resize((16, 16), Image.Resampling.BOX) for picture in pictures]
    rows = np.stack([np.asarray(picture, float).ravel() for picture in small])
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return rows


def grain(picture: Image.Image) -> float:
    """Mean difference in gray levels from the median of the 3 x 3 neighbourhood, which has edges but no noise."""
    gray = picture.convert("L")
    middle = gray.filter(ImageFilter.MedianFilter(3))
    return float(np.abs(np.asarray(gray, float) - np.asarray(middle, float)).mean())


def study(
    base: BaseModel,
    album: Sequence[Image.Image],
    token: str,
    noun: str,
    recipe: Recipe,
    multiples: Sequence[int],
    out: Path,
    *,
    seed: int = 0,
    likeness: Likeness | None = None,
    team: Team = SINGLE_PROCESS,
    on_point: Callable[[Point], None] = lambda point: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> list[Point]:
    """Train for the largest of `multiples` (steps for each photo), and measure at each of them.

    With a constant learning rate, the first k steps of a run equal a run of k steps, so one run is enough. The recipe's
    learning rate is therefore made constant. The last adapter is written to `out`.
    """
    steps = {multiple * len(album): multiple for multiple in sorted(multiples)}
    recipe = replace(recipe, steps=max(steps), schedule="constant", warmup=0)
    likeness = likeness or likeness_of(base, album)
    who = f"{token} {noun}"
    person_prompts = [prompt.format(who=who) for prompt, _ in PROMPTS]
    class_prompts = [prompt.format(who=noun) for prompt, _ in PROMPTS[:4]]
    own_grain = mean(grain(picture) for picture in album)
    points: list[Point] = []

    class Measuring(Listener):
        def on_step(self, progress: Progress) -> None:
            on_step(progress)

        def on_previews(self, step: int, pictures: list[Image.Image]) -> None:
            measure(step, pictures)

    def measure(step: int, pictures: list[Image.Image]) -> None:
        of_person, of_class = pictures[: len(person_prompts)], pictures[len(person_prompts) :]
        prompt_share = None
        if isinstance(likeness, JudgedLikeness):
            prompt_share = mean(
                float(shown[name] in allowed)
                for (_, expected), shown in zip(PROMPTS, likeness.judge.attributes(of_person), strict=True)
                for name, allowed in expected.items()
            )
        points.append(
            Point(
                steps=step,
                per_photo=steps[step],
                likeness=likeness(of_person),
                bleeding=likeness(of_class),
                prompt=prompt_share,
                copying=copying(of_person, album),
                noise=mean(grain(picture) for picture in of_person) / max(own_grain, 1e-9),
            )
        )
        on_point(points[-1])

    previews = Previews((*person_prompts, *class_prompts), frozenset(steps), SEED)
    config = TrainingConfig(token, noun, recipe, seed=seed, previews=previews, **options)
    train(base, album, config, out, listener=Measuring(), team=team)
    return points


COLOURS: Mapping[str, str] = {
    "likeness": "#1b7f4d", "prompt": "#2563a8", "bleeding": "#b4472e", "copying": "#8a5a00", "noise": "#6b4fa0",
}  # fmt: skip


def chart(points: Sequence[Point], title: str) -> str:
    """The points as an SVG picture: shares over steps for each photo."""
    rows = [asdict(point) for point in points]
    curves = [
        Curve(name, colour, [(row["per_photo"], row[name]) for row in rows if row[name] is not None])
        for name, colour in COLOURS.items()
    ]
    return line_chart(curves, title, "steps for each photo", [point.per_photo for point in points])


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| steps a photo | steps | likeness | prompt | bleeding | copying | noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in points:
        prompt = "-" if point.prompt is None else f"{point.prompt:.2f}"
        lines.append(
            f"| {point.per_photo:g} | {point.steps} | {point.likeness:.2f} | {prompt} | {point.bleeding:.2f} "
            f"| {point.copying:.2f} | {point.noise:.2f} |"
        )
    return "\n".join(lines)
