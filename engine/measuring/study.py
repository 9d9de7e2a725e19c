"""How many steps a photo wants: likeness and overfitting of one person, drawn as the learning goes on.

The seed says it in words: below 50 steps for each photo the person is not known well enough, above 100 the face gets
noise. Here each number of steps is judged with the same prompts and seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from engine.bases.base import BaseModel
from engine.learning.config import Previews, TrainingConfig
from engine.learning.listener import Listener, Progress
from engine.learning.team import SINGLE_PROCESS, Team
from engine.learning.training import train
from engine.measuring.likeness import JudgedLikeness, Likeness, likeness_of
from engine.recipe import Recipe
from engine.toon.prompts import PROMPTS, SEED


@dataclass(frozen=True)
class Point:
    """What was seen after so many steps. Shares are 0 to 1."""

    steps: int
    per_photo: float
    likeness: float
    """Of pictures under the token."""
    bleeding: float
    """Likeness of pictures under the bare class noun: how far everybody has become this person."""
    prompt: float | None
    """Of what prompts asked for beyond the person, what is shown; None where nobody can judge it."""
    copying: float
    """Correlation of each picture with the photo that it is most like: near 1, training photos come back."""
    noise: float
    """Fine grain in the pictures as a multiple of the photos' own: the seed's "noise on the avatar's face"."""


def copying(pictures: Sequence[Image.Image], album: Sequence[Image.Image]) -> float:
    """The mean over `pictures` of the largest correlation with any of `album`, of their 16 x 16 thumbnails."""
    drawn, photos = (_thumbnails(several) for several in (pictures, album))
    return float((drawn @ photos.T).max(axis=1).mean())


def _thumbnails(pictures: Sequence[Image.Image]) -> Any:
    rows = np.stack([np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), float).ravel()
                     for picture in pictures])  # fmt: skip
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def grain(picture: Image.Image) -> float:
    """The mean difference in gray levels from the median of the 3 x 3 neighbours: edges pass it, noise does not."""
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
    """Learn the album for the largest of `multiples` (steps a photo), and judge it at each of them on the way.

    Under a constant learning rate the first k steps of a run are the run of k steps, so one run shows all of them; the
    recipe's schedule is therefore made constant. The adapter of the last goes to `out`.
    """
    steps = {multiple * len(album): multiple for multiple in sorted(multiples)}
    recipe = replace(recipe, steps=max(steps), schedule="constant", warmup=0)
    likeness = likeness or likeness_of(base, album)
    who = f"{token} {noun}"
    asked = [prompt.format(who=who) for prompt, _ in PROMPTS]
    of_others = [prompt.format(who=noun) for prompt, _ in PROMPTS[:4]]
    own_grain = mean(grain(picture) for picture in album)
    points: list[Point] = []

    class Judging(Listener):
        def on_step(self, progress: Progress) -> None:
            on_step(progress)

        def on_previews(self, step: int, pictures: list[Image.Image]) -> None:
            judge(step, pictures)

    def judge(step: int, pictures: list[Image.Image]) -> None:
        of_person, others = pictures[: len(asked)], pictures[len(asked) :]
        followed = None
        if isinstance(likeness, JudgedLikeness):
            followed = mean(
                float(shown[name] in allowed)
                for (_, wanted), shown in zip(PROMPTS, likeness.judge.attributes(of_person), strict=True)
                for name, allowed in wanted.items()
            )
        points.append(Point(
            step, steps[step], likeness(of_person), likeness(others), followed, copying(of_person, album),
            mean(grain(picture) for picture in of_person) / max(own_grain, 1e-9),
        ))  # fmt: skip
        on_point(points[-1])

    previews = Previews((*asked, *of_others), frozenset(steps), SEED)
    config = TrainingConfig(token, noun, recipe, seed=seed, previews=previews, **options)
    train(base, album, config, out, listener=Judging(), team=team)
    return points


COLOURS: Mapping[str, str] = {
    "likeness": "#1b7f4d", "prompt": "#2563a8", "bleeding": "#b4472e", "copying": "#8a5a00", "noise": "#6b4fa0",
}  # fmt: skip


def chart(points: Sequence[Point], title: str) -> str:
    """The points as an SVG picture: shares over steps a photo."""
    width, height, left, bottom, top = 640, 360, 50, 40, 40
    most = max(point.per_photo for point in points)
    rows = [asdict(point) for point in points]
    lines = {name: [(row["per_photo"], row[name]) for row in rows if row[name] is not None] for name in COLOURS}
    ceiling = max([1.0, *(value for line in lines.values() for _, value in line)])

    def at(x: float, y: float) -> str:
        across, up = x / most * (width - left - 130), y / ceiling * (height - bottom - top)
        return f"{left + across:.1f},{height - bottom - up:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="22" font-size="14">{title}</text>',
        f'<polyline points="{at(0, ceiling)} {at(0, 0)} {at(most, 0)}" fill="none" stroke="#777"/>',
        f'<text x="{(left + width - 130) / 2}" y="{height - 6}">steps for each photo</text>',
    ]
    for row in rows:
        x, y = at(row["per_photo"], 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{row["per_photo"]:g}</text>')
    for share in (0, 0.5, 1):
        x, y = at(0, share).split(",")
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{share:g}</text>')
    for number, (name, line) in enumerate(lines.items()):
        if not line:
            continue
        colour = COLOURS[name]
        path = " ".join(at(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at(x, y).split(",")[0]}" cy="{at(x, y).split(",")[1]}" r="3" fill="{colour}"/>'
                  for x, y in line]  # fmt: skip
        parts.append(f'<text x="{width - 110}" y="{top + 18 * number + 12}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| steps a photo | steps | likeness | prompt | bleeding | copying | noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in points:
        prompt = "-" if point.prompt is None else f"{point.prompt:.2f}"
        lines.append(f"| {point.per_photo:g} | {point.steps} | {point.likeness:.2f} | {prompt} | {point.bleeding:.2f} "
                     f"| {point.copying:.2f} | {point.noise:.2f} |")  # fmt: skip
    return "\n".join(lines)
