"""Evaluation: how well the embedded base learns held-out people, measured by the judge.

For each person an album is rendered and an adapter is trained with the automatic recipe. Then the same prompts are
drawn with the same seeds in five ways (`WAYS`): with the adapter, and in four ways for comparison.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from PIL import Image

from engine.adapters.adapters import FILE, Attached
from engine.bases.base import BaseModel, drawing_dtype
from engine.bases.families import TOON
from engine.drawing.drawing import Drawing, Plan, draw_together, make_plan
from engine.learning.config import TrainingConfig
from engine.learning.training import train
from engine.recipe import Method, Recipe, choose
from engine.toon import SIZE
from engine.toon.captions import describe_person
from engine.toon.judge import IDENTITY, Judge, seen_as
from engine.toon.prompts import PROMPTS, SEED
from engine.toon.world import Person, album, render, sample_person
from storage.atomic import atomic_write, write_text

WAYS: Mapping[str, str] = {
    "with_adapter": "with adapter",
    "without_adapter": "same prompts, no adapter",
    "in_words": "described in words, no adapter",
    "class_noun": "class noun, adapter on",
    "class_noun_alone": "class noun, no adapter",
}
"""The ways in which each prompt is drawn, with their names in tables."""

PHOTOS = 8
"""Pictures in each person's album."""

BATCH = 10
"""Prompts drawn at once: more are no faster on a CPU, and need more memory."""


@dataclass(frozen=True)
class Score:
    """Shares, 0 to 1, of attributes that came out right."""

    identity: float
    """Mean over the attributes of identity."""
    prompt: float
    """Share of the attributes that prompts name."""
    by_attribute: dict[str, float]
    variety: float
    """Probability that two of the pictures differ in an attribute of identity: near 0, all show one person."""


def score(shown: Sequence[Mapping[str, str]], person: Person) -> Score:
    """Score pictures of `person`.

    Args:
        shown: the attributes that the judge found in the picture of each of PROMPTS, in their order.
    """
    correct: dict[str, list[bool]] = {}
    for (_, expected), found in zip(PROMPTS, shown, strict=True):
        for name in IDENTITY:
            # A hat hides the hair.
            if not name.startswith("hair") or "hat" not in expected:
                correct.setdefault(name, []).append(found[name] == seen_as(getattr(person, name)))
        for name, allowed in expected.items():
            correct.setdefault(f"prompt {name}", []).append(found[name] in allowed)
    shares = {name: mean(answers) for name, answers in correct.items()}
    prompted = [answer for name, answers in correct.items() if name.startswith("prompt ") for answer in answers]
    hatless = [found for (_, expected), found in zip(PROMPTS, shown, strict=True) if "hat" not in expected]
    differ = [mean(float(one[name] != other[name]) for name in IDENTITY) for one, other in combinations(hatless, 2)]
    return Score(mean(shares[name] for name in IDENTITY), mean(prompted), shares, mean(differ))


def drawn(
    base: BaseModel, attached: Attached, who: str, avatars: tuple[Path, ...], seed: int = SEED
) -> list[Image.Image]:
    """One picture for each of PROMPTS, with the seeds from `seed` on."""
    drawings = [
        Drawing(prompt.format(who=who), seed=seed + n, avatars=avatars) for n, (prompt, _) in enumerate(PROMPTS)
    ]
    return [pictures[0] for pictures in draw_in_batches(base, attached, drawings)]


def draw_in_batches(base: BaseModel, attached: Attached, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
    """The pictures of each drawing. Drawings of one size share batches of about `BATCH` pictures."""
    groups = dict[tuple[object, ...], list[tuple[int, Plan]]]()
    for number, drawing in enumerate(drawings):
        plan = make_plan(drawing, base, attached)
        groups.setdefault(plan.batch_key, []).append((number, plan))
    drawn = dict[int, list[Image.Image]]()
    for group in groups.values():
        several = max(1, BATCH // max(plan.drawing.count for _, plan in group))
        for start in range(0, len(group), several):
            part = group[start : start + several]
            sets = draw_together(base, attached, [plan for _, plan in part])
            drawn |= {number: [one.image for one in pictures] for (number, _), pictures in zip(part, sets, strict=True)}
    return [drawn[number] for number in range(len(drawings))]


def people(count: int, seed: int = 0) -> list[Person]:
    """Held-out people, who were not in the pre-training data. Every second one has a beard or moustache."""
    random = Random(f"people {seed}")
    chosen = list[Person]()
    while len(chosen) < count:
        person = sample_person(random, held_out=True)
        if (person.facial_hair != "none") == (len(chosen) % 2 == 0):
            chosen.append(person)
    return chosen


@dataclass(frozen=True)
class Learned:
    """The pictures of one person."""

    seconds: float
    """Wall-clock seconds of training."""
    strips: list[list[Image.Image]]
    """The album, then the pictures of each of WAYS."""

    def scores(self, person: Person, judge: Judge) -> dict[str, Score]:
        """The score of each of WAYS."""
        return {way: score(judge.attributes(images), person) for way, images in zip(WAYS, self.strips[1:], strict=True)}


def learn(
    person: Person,
    number: int,
    base: BaseModel,
    recipe: Recipe,
    few_step_adapter: Path | None = None,
    prior_folder: Path | None = None,
) -> Learned:
    """Train on one person's album and draw all WAYS.

    Args:
        number: chooses token, album and seeds.
        few_step_adapter: also applied to every drawing.
        prior_folder: class pictures are kept there for the next person, as in an engine.
    """
    pictures = [render(scene) for scene in album(person, PHOTOS, seed=number)]
    token, attached = f"zk{number}p", Attached(base)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        config = TrainingConfig(token, person.noun, recipe, prior_folder=prior_folder)
        trained = train(base, pictures, config, file)
        style = (few_step_adapter,) if few_step_adapter else ()
        ways = {
            "with_adapter": (f"{token} {person.noun}", (file, *style)),
            "without_adapter": (f"{token} {person.noun}", style),
            "in_words": (describe_person(person), style),
            "class_noun": (person.noun, (file, *style)),
            "class_noun_alone": (person.noun, style),
        }
        sets = [drawn(base, attached, *ways[way], seed=SEED + 100 * number) for way in WAYS]
    return Learned(trained.seconds, [pictures, *sets])


def evaluate_person(
    number: int,
    person: Person,
    recipe: Recipe,
    few_step_adapter: Path | None,
    work: Path,
    *,
    fingerprint: str | None,
    threads: int,
) -> Learned:
    """`learn` in a worker process, unless `work` has the pictures of an equal run on the same base.

    Args:
        fingerprint: the base's, compared with that of kept pictures; None if there are none.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    kept = work / f"person-{number}.json"

    def run(fingerprint: str) -> dict[str, Any]:
        adapter = few_step_adapter and str(few_step_adapter)
        return {"base": fingerprint, "recipe": recipe.as_json(), "few": adapter, "person": asdict(person)}

    if fingerprint and kept.exists() and (before := json.loads(kept.read_text()))["asked"] == run(fingerprint):
        return Learned(before["seconds"], _strips(kept.with_suffix(".png")))
    base = BaseModel.load(denoiser_dtype=drawing_dtype)
    learned = learn(person, number, base, recipe, few_step_adapter, prior_folder=work / f"priors-{os.getpid()}")
    # The JSON file says that the pictures are complete: it is deleted before they change, and written after them.
    kept.unlink(missing_ok=True)
    with atomic_write(kept.with_suffix(".png")) as draft:
        _board(learned.strips).save(draft)
    write_text(kept, json.dumps({"asked": run(base.fingerprint), "seconds": learned.seconds}) + "\n")
    return learned


def evaluate(
    count: int,
    method: Method = "lora",
    *,
    processes: int = 1,
    few_step_adapter: Path | None = None,
    on_person: Callable[[str], None] = lambda line: None,
    sheet: Path | None = None,
    work: Path | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train on the albums of `count` held-out people, and score drawings of them.

    Args:
        processes: how many people are evaluated in parallel.
        few_step_adapter: also applied to every drawing.
        on_person: called with a line of text after each person.
        sheet: a PNG file for all drawings.
        work: a folder that keeps each person's pictures, so that a stopped evaluation resumes.
        overrides: of the recipe, as in `engine.recipe.choose`.
    Returns:
        Mean scores under the names of WAYS, and the mean seconds of training.
    """
    chosen, judge, recipe = people(count), Judge.load(), choose(PHOTOS, method, TOON, **overrides)
    learned, scores = list[Learned](), list[dict[str, Score]]()
    # Several processes of one thread are faster than one process of several threads.
    threads = 1 if processes > 1 else torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        kept = work or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        fingerprint = BaseModel.load().fingerprint if any(kept.glob("person-*.json")) else None
        futures = [
            pool.submit(
                evaluate_person,
                number,
                person,
                recipe,
                few_step_adapter,
                kept,
                fingerprint=fingerprint,
                threads=threads,
            )
            for number, person in enumerate(chosen)
        ]
        for person, done in zip(chosen, futures, strict=True):
            learned.append(done.result())
            scores.append(learned[-1].scores(person, judge))
            line = ", ".join(f"{way} {s.identity:.2f}/{s.prompt:.2f}" for way, s in scores[-1].items())
            on_person(f"{len(learned)} of {count}: identity/prompt {line}; {learned[-1].seconds:.0f} s")
    if sheet:
        with atomic_write(sheet) as draft:
            _board([strip for one in learned for strip in one.strips]).save(draft)
    return {
        "people": count,
        "photos": PHOTOS,
        "method": method,
        "recipe": recipe.as_json(),
        "train_seconds": mean(one.seconds for one in learned),
        **{way: _mean([one[way] for one in scores]) for way in WAYS},
    }


def _board(strips: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All strips as one picture, one strip below the other."""
    board = Image.new("RGB", (max(map(len, strips)) * SIZE, len(strips) * SIZE), "white")
    for y, strip in enumerate(strips):
        for x, picture in enumerate(strip):
            board.paste(picture, (x * SIZE, y * SIZE))
    return board


def _strips(board: Path) -> list[list[Image.Image]]:
    """The strips of a picture that `_board` made; short strips are filled up with white pictures."""
    with Image.open(board) as sheet:
        return [
            [sheet.crop((x, y, x + SIZE, y + SIZE)) for x in range(0, sheet.width, SIZE)]
            for y in range(0, sheet.height, SIZE)
        ]


def _mean(scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "identity": mean(score.identity for score in scores),
        "prompt": mean(score.prompt for score in scores),
        "variety": mean(score.variety for score in scores),
        "by_attribute": {name: mean(score.by_attribute[name] for score in scores) for name in scores[0].by_attribute},
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, in percent."""
    lines = [f"| attribute | {' | '.join(WAYS.values())} |", "|---|" + "---|" * len(WAYS)]
    rows = {f"**{name}**": {way: figures[way][name] for way in WAYS} for name in ("identity", "prompt", "variety")}
    for name in figures["with_adapter"]["by_attribute"]:
        rows[name.replace("_", " ")] = {way: figures[way]["by_attribute"][name] for way in WAYS}
    for label, cells in rows.items():
        lines.append(f"| {label} | {' | '.join(f'{100 * cells[way]:.0f}' for way in WAYS)} |")
    return "\n".join(lines)
