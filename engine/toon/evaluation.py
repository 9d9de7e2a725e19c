"""What the embedded base learns of people it never saw, measured by the judge and not by eye.

For each person: an album is drawn, an adapter is trained with the automatic recipe, the same prompts are drawn with
the same seeds with and without it, and once more under the class noun alone to see what the adapter does to others.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from PIL import Image

from engine.adapters import FILE, Attached
from engine.base import BaseModel
from engine.generation import Drawing, draw
from engine.recipe import Method, choose
from engine.toon.judge import IDENTITY, Judge
from engine.toon.world import Person, album, render, sample_person
from engine.training import train

PROMPTS: tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...] = (
    ("a photo of {who}", {}),
    ("a photo of {who} in a suit", {"clothes": ("suit", "blazer")}),
    ("portrait of {who}, wearing a red hoodie, smiling, blue background",
     {"clothes": ("hoodie",), "clothes_colour": ("red",), "mouth": ("smiling",), "background": ("blue",)}),
    ("{who} with sunglasses, green background", {"glasses": ("sunglasses",), "background": ("green",)}),
    ("a picture of {who} in black overalls, white background",
     {"clothes": ("overalls",), "clothes_colour": ("black",), "background": ("white",)}),
    ("a photo of {who} wearing a yellow t-shirt, purple background, tongue out",
     {"clothes": ("t-shirt",), "clothes_colour": ("yellow",), "background": ("purple",), "mouth": ("tongue",)}),
    ("{who} in a white sweater, round glasses, orange background",
     {"clothes": ("sweater",), "clothes_colour": ("white",), "glasses": ("round glasses",), "background": ("orange",)}),
    ("a portrait of {who}, eyes closed, pink background", {"eyes": ("closed",), "background": ("pink",)}),
    ("a photo of {who}, wearing a purple v-neck, serious, gray background",
     {"clothes": ("v-neck",), "clothes_colour": ("purple",), "mouth": ("serious",), "background": ("gray",)}),
    ("a photo of {who} with glasses in a green graphic shirt",
     {"clothes": ("graphic shirt",), "clothes_colour": ("green",), "glasses": ("glasses",)}),
)  # fmt: skip
"""What is drawn of each person, and what of it the judge must find."""

SEED = 1000


@dataclass(frozen=True)
class Score:
    """Shares of attributes that came out right, 0 to 1."""

    identity: float
    prompt: float
    by_attribute: dict[str, float]


def score(judge: Judge, pictures: Sequence[Image.Image], person: Person) -> Score:
    """Judge one picture for each of PROMPTS, in their order."""
    found: dict[str, list[bool]] = {}
    for (_, wanted), shown in zip(PROMPTS, judge.attributes(pictures), strict=True):
        for name in IDENTITY:
            found.setdefault(name, []).append(shown[name] == getattr(person, name))
        for name, allowed in wanted.items():
            found.setdefault(f"prompt {name}", []).append(shown[name] in allowed)
    shares = {name: mean(answers) for name, answers in found.items()}
    prompted = [answer for name, answers in found.items() if name.startswith("prompt ") for answer in answers]
    return Score(mean(shares[name] for name in IDENTITY), mean(prompted), shares)


def drawn(base: BaseModel, attached: Attached, who: str, avatars: tuple[Path, ...]) -> list[Image.Image]:
    """One picture for each of PROMPTS."""
    drawings = [
        Drawing(prompt.format(who=who), seed=SEED + n, avatars=avatars) for n, (prompt, _) in enumerate(PROMPTS)
    ]
    return [draw(base, attached, drawing)[0].image for drawing in drawings]


def people(count: int, seed: int = 0) -> list[Person]:
    """Held-out people, whom pre-training has never shown; every second one has a beard or moustache to be learned."""
    random = Random(f"people {seed}")
    chosen = list[Person]()
    while len(chosen) < count:
        person = sample_person(random, held_out=True)
        if (person.facial_hair != "none") == (len(chosen) % 2 == 0):
            chosen.append(person)
    return chosen


def evaluate(
    count: int,
    method: Method = "lora",
    *,
    base: BaseModel | None = None,
    photos: int = 8,
    on_person: Callable[[str], None] = lambda line: None,
    sheet: Path | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train on `count` held-out people's albums and score with, without, and beside the adapter.

    Returns:
        Mean scores as `with_adapter`, `without_adapter` (same prompts, no adapter) and `class_noun` (the class noun
        alone, adapter on: its identity score tells how far the person bleeds into others), and the cost.
    """
    base, judge = base or BaseModel.load(), Judge.load()
    attached = Attached(base)
    rows: dict[str, list[Score]] = {"without_adapter": [], "with_adapter": [], "class_noun": []}
    seconds, strips = [], []
    for number, person in enumerate(people(count)):
        pictures = [render(scene) for scene in album(person, photos, seed=number)]
        recipe = choose(photos, method, base.family, **overrides)
        who = f"zk{number}p {person.noun}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / FILE
            trained = train(base, pictures, f"zk{number}p", person.noun, recipe, file)
            seconds.append(trained.seconds)
            sets = {
                "without_adapter": drawn(base, attached, who, ()),
                "with_adapter": drawn(base, attached, who, (file,)),
                "class_noun": drawn(base, attached, person.noun, (file,)),
            }
        for name, images in sets.items():
            rows[name].append(score(judge, images, person))
        strips += [pictures[:10], *sets.values()]
        line = ", ".join(f"{name} {scores[-1].identity:.2f}/{scores[-1].prompt:.2f}" for name, scores in rows.items())
        on_person(f"{number + 1} of {count}: identity/prompt {line}; {trained.seconds:.0f} s")
    if sheet:
        side = base.side
        board = Image.new("RGB", (max(map(len, strips)) * side, len(strips) * side), "white")
        for y, strip in enumerate(strips):
            for x, picture in enumerate(strip):
                board.paste(picture, (x * side, y * side))
        board.save(sheet)
    return {
        "people": count, "photos": photos, "method": method, "recipe": recipe.as_json(),
        "train_seconds": mean(seconds), **{name: _mean(scores) for name, scores in rows.items()},
    }  # fmt: skip


def _mean(scores: Sequence[Score]) -> dict[str, Any]:
    names = scores[0].by_attribute
    return {
        "identity": mean(score.identity for score in scores),
        "prompt": mean(score.prompt for score in scores),
        "by_attribute": {name: mean(score.by_attribute[name] for score in scores) for name in names},
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, in percent."""
    columns = {"with_adapter": "with adapter", "without_adapter": "without", "class_noun": "class noun, adapter on"}
    lines = [f"| attribute | {' | '.join(columns.values())} |", "|---|" + "---|" * len(columns)]
    rows = {
        "**identity**": "identity", "**prompt**": "prompt",
    } | {name: name for name in figures["with_adapter"]["by_attribute"]}  # fmt: skip
    for label, name in rows.items():
        cells = [
            figures[c][name] if name in ("identity", "prompt") else figures[c]["by_attribute"][name] for c in columns
        ]
        lines.append(f"| {label} | {' | '.join(f'{100 * cell:.0f}' for cell in cells)} |")
    return "\n".join(lines)
