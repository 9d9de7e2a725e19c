"""What the embedded base learns of people it never saw, measured by the judge and not by eye.

For each person: an album is drawn, an adapter is trained with the automatic recipe, and the same prompts are drawn from
the same seeds in five ways, `WAYS`, of which four are there to compare the first with.
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
from engine.bases.base import BaseModel, as_drawn
from engine.bases.families import TOON
from engine.drawing.drawing import Drawing, draw_together, make_plan
from engine.learning.config import TrainingConfig
from engine.learning.training import train
from engine.recipe import Method, Recipe, choose
from engine.toon import SIZE
from engine.toon.captions import described
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
"""The ways each prompt is drawn, and what tables call them."""

PHOTOS = 8
"""Of each person's album."""


@dataclass(frozen=True)
class Score:
    """Shares, 0 to 1, of what came out right."""

    identity: float
    """Mean over the identity's attributes."""
    prompt: float
    """Of all that prompts name."""
    by_attribute: dict[str, float]
    variety: float
    """How likely two of the pictures differ in an attribute of identity: how many people there are to be seen."""


def score(shown: Sequence[Mapping[str, str]], person: Person) -> Score:
    """Compare what the judge saw in one picture for each of PROMPTS, in their order, with what it had to see."""
    found: dict[str, list[bool]] = {}
    for (_, wanted), seen in zip(PROMPTS, shown, strict=True):
        for name in IDENTITY:
            # A hat hides the hair.
            if name.startswith("hair") <= ("hat" not in wanted):
                found.setdefault(name, []).append(seen[name] == seen_as(getattr(person, name)))
        for name, allowed in wanted.items():
            found.setdefault(f"prompt {name}", []).append(seen[name] in allowed)
    shares = {name: mean(answers) for name, answers in found.items()}
    prompted = [answer for name, answers in found.items() if name.startswith("prompt ") for answer in answers]
    bare = [seen for (_, wanted), seen in zip(PROMPTS, shown, strict=True) if "hat" not in wanted]
    differ = [mean(float(one[name] != other[name]) for name in IDENTITY) for one, other in combinations(bare, 2)]
    return Score(mean(shares[name] for name in IDENTITY), mean(prompted), shares, mean(differ))


def drawn(
    base: BaseModel, attached: Attached, who: str, avatars: tuple[Path, ...], seed: int = SEED
) -> list[Image.Image]:
    """One picture for each of PROMPTS, from `seed` on."""
    drawings = [
        Drawing(prompt.format(who=who), seed=seed + n, avatars=avatars) for n, (prompt, _) in enumerate(PROMPTS)
    ]
    plans = [make_plan(drawing, base, attached) for drawing in drawings]
    # Ten at once: more rows are no quicker on a CPU, and ask for more memory.
    return [
        pictures[0].image for at in range(0, len(PROMPTS), 10)
        for pictures in draw_together(base, attached, plans[at : at + 10])
    ]  # fmt: skip


def people(count: int, seed: int = 0) -> list[Person]:
    """Held-out people, whom pre-training has never shown; every second one has a beard or moustache to be learned."""
    random = Random(f"people {seed}")
    chosen = list[Person]()
    while len(chosen) < count:
        person = sample_person(random, held_out=True)
        if (person.facial_hair != "none") == (len(chosen) % 2 == 0):
            chosen.append(person)
    return chosen


@dataclass(frozen=True)
class Learned:
    """What was drawn of one person."""

    seconds: float
    """Of training, wall clock."""
    strips: list[list[Image.Image]]
    """The album, and the pictures of each of WAYS."""

    def scores(self, person: Person, judge: Judge) -> dict[str, Score]:
        """For each of WAYS."""
        return {way: score(judge.attributes(images), person) for way, images in zip(WAYS, self.strips[1:], strict=True)}


def learn(
    person: Person,
    number: int,
    base: BaseModel,
    recipe: Recipe,
    few: Path | None = None,
    prior_folder: Path | None = None,
) -> Learned:
    """Train on one person's album and draw all WAYS.

    Args:
        number: chooses token, album and seeds.
        few: a few-step adapter that everything is drawn with as well.
        prior_folder: where class pictures are kept for the next person, as an engine does.
    """
    pictures = [render(scene) for scene in album(person, PHOTOS, seed=number)]
    token, attached = f"zk{number}p", Attached(base)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        config = TrainingConfig(token, person.noun, recipe, prior_folder=prior_folder)
        trained = train(base, pictures, config, file)
        style = (few,) if few else ()
        ways = {
            "with_adapter": (f"{token} {person.noun}", (file, *style)),
            "without_adapter": (f"{token} {person.noun}", style),
            "in_words": (described(person), style),
            "class_noun": (person.noun, (file, *style)),
            "class_noun_alone": (person.noun, style),
        }
        sets = [drawn(base, attached, *ways[way], seed=SEED + 100 * number) for way in WAYS]
    return Learned(trained.seconds, [pictures, *sets])


def _one(
    numbered: tuple[int, Person], fingerprint: str, recipe: Recipe, few: Path | None, work: Path, threads: int
) -> Learned:
    """`learn` in a process of its own, unless `work` holds what the same recipe drew on the same base before."""
    torch.set_num_threads(threads)
    number, person = numbered
    kept = work / f"person-{number}.json"
    asked = {"base": fingerprint, "recipe": recipe.as_json(), "few": few and str(few), "person": asdict(person)}
    if kept.exists() and (before := json.loads(kept.read_text()))["asked"] == asked:
        return Learned(before["seconds"], _strips(kept.with_suffix(".png")))
    base, priors = BaseModel.load(rests=as_drawn), work / f"priors-{os.getpid()}"
    learned = learn(person, number, base, recipe, few=few, prior_folder=priors)
    # Last of all comes what says that the pictures are there, and what said so of others goes first.
    kept.unlink(missing_ok=True)
    with atomic_write(kept.with_suffix(".png")) as draft:
        _board(learned.strips).save(draft)
    write_text(kept, json.dumps({"asked": asked, "seconds": learned.seconds}) + "\n")
    return learned


def evaluate(
    count: int,
    method: Method = "lora",
    *,
    processes: int = 1,
    few: Path | None = None,
    on_person: Callable[[str], None] = lambda line: None,
    sheet: Path | None = None,
    work: Path | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train on `count` held-out people's albums and score what is then drawn.

    Args:
        processes: so many people at once.
        sheet: where to write all pictures as one.
        work: keeps every person's pictures, so that a stopped evaluation goes on where it was.
        overrides: of the recipe, as `engine.recipe.choose` takes them.
    Returns:
        Mean scores under the names of WAYS, and the cost of training in seconds.
    """
    chosen, judge, recipe = people(count), Judge.load(), choose(PHOTOS, method, TOON, **overrides)
    fingerprint = BaseModel.load().fingerprint
    learned, scores = list[Learned](), list[dict[str, Score]]()
    # One thread for each of several processes: they are quicker than one process with as many threads.
    threads = 1 if processes > 1 else torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        kept = work or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        todo = [pool.submit(_one, numbered, fingerprint, recipe, few, kept, threads) for numbered in enumerate(chosen)]
        for person, done in zip(chosen, todo, strict=True):
            learned.append(done.result())
            scores.append(learned[-1].scores(person, judge))
            line = ", ".join(f"{way} {s.identity:.2f}/{s.prompt:.2f}" for way, s in scores[-1].items())
            on_person(f"{len(learned)} of {count}: identity/prompt {line}; {learned[-1].seconds:.0f} s")
    if sheet:
        with atomic_write(sheet) as draft:
            _board([strip for one in learned for strip in one.strips]).save(draft)
    return {
        "people": count, "photos": PHOTOS, "method": method, "recipe": recipe.as_json(),
        "train_seconds": mean(one.seconds for one in learned),
        **{way: _mean([one[way] for one in scores]) for way in WAYS},
    }  # fmt: skip


def _board(strips: Sequence[Sequence[Image.Image]]) -> Image.Image:
    board = Image.new("RGB", (max(map(len, strips)) * SIZE, len(strips) * SIZE), "white")
    for y, strip in enumerate(strips):
        for x, picture in enumerate(strip):
            board.paste(picture, (x * SIZE, y * SIZE))
    return board


def _strips(board: Path) -> list[list[Image.Image]]:
    """The strips that `_board` put together; a short one comes back with white pictures at its end."""
    with Image.open(board) as whole:
        return [
            [whole.crop((x, y, x + SIZE, y + SIZE)) for x in range(0, whole.width, SIZE)]
            for y in range(0, whole.height, SIZE)
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
