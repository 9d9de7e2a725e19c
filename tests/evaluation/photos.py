"""Whether the cartoon of a photographed person is what was read from the photos: `python -m tests.evaluation.photos`.

The people were labelled by eye (`looks_labels.json`; see `looks.py` for its words), and nothing was trained on them.
For each, the looks are read by `engine inspect`, the photos are learned by `engine train`, and pictures are drawn. A
picture is compared with what was read, which the drawing has to show, and with the labels, which people see. Only what
a reader is trusted with on this evaluation's renders is compared.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from tests.evaluation import palette, pixels
from tests.evaluation.judging import PixelReader, Ruler, judge_of, kept_ruler
from tests.evaluation.painting import EnginePainter, Painter, Refused, Request, home
from tests.evaluation.run import MEASURED, fingerprint, strip, weights_of

LABELS = Path(__file__).with_name("looks_labels.json")
PORTRAITS = Path(__file__).parents[3] / "shared" / "data" / "portraits"

Looks = Mapping[str, Any]
"""`skin` 1 (lightest) to 6, `hair_colour`, `hair_length`, `facial_hair`, `glasses`, as `engine inspect --json` says."""

NAMES = ("skin", "hair_colour", "hair_length", "facial_hair", "glasses")

BEHIND: Mapping[str, str] = {
    "skin": "skin", "hair_colour": "hair_colour", "hair_length": "hair_length", "facial_hair": "beard_kind",
    "glasses": "glasses",
}  # fmt: skip
"""The attribute of a drawing from which each follows."""

GROUPS: Mapping[str, str] = {
    "black": "black", "dark brown": "brown", "brown": "brown", "auburn": "brown", "red": "red", "golden": "blonde",
    "blonde": "blonde", "platinum": "blonde", "gray": "grey", "white": "grey",
}  # fmt: skip
"""The word of `hair_colour` for each of the palette's colours."""

ASKED = ("{who}", "{who} in a blue t-shirt", "{who}, plain white background", "show me {who} with a green sweater on")
"""Prompts that name nothing of the person."""

GOAL = 0.92
"""Least share of what was read that must be drawn."""

BEHIND_MEAN = 0.10
"""Most that a group may be under the mean."""

SMALLEST_GROUP = 5
"""Groups of fewer people are shown, but prove nothing."""


def looks_of(facts: Mapping[str, str]) -> dict[str, Any]:
    """What a drawing shows, in the words of looks."""
    found: dict[str, Any] = {}
    if "skin" in facts:
        tones = [min(pixels.distance(facts["skin"], one) for one in pair) for pair in palette.SKIN.values()]
        found["skin"] = 1 + tones.index(min(tones))
    if "hair_length" in facts:
        found["hair_length"] = facts["hair_length"]
    if "hair_colour" in facts:
        near = min(
            GROUPS, key=lambda name: min(pixels.distance(facts["hair_colour"], one) for one in palette.HAIR[name])
        )
        found["hair_colour"] = GROUPS[near]
    if "beard_kind" in facts:
        found["facial_hair"] = facts["beard_kind"]
    if "glasses" in facts:
        found["glasses"] = facts["glasses"] in ("glasses", "round glasses", "sunglasses")
    return found


def agree(name: str, drawn: Any, wanted: Any) -> bool | None:
    """Whether a drawing shows what is wanted: one value or several that are right; None if there is nothing to compare.

    Skin may be one tone off. Hair that is tied back or up is as good as medium or long. A bald head has no hair colour.
    """
    allowed = wanted if isinstance(wanted, list) else [wanted]
    if wanted is None or (name == "hair_colour" and allowed == ["none"]):
        return None
    if name == "skin":
        return bool(abs(drawn - wanted) <= 1)
    if name == "hair_length" and drawn == "tied":
        return bool({"medium", "long"} & set(allowed))
    return drawn in allowed


def inspected(files: Sequence[Path], noun: str) -> Looks:
    """What the product reads from photos.

    Raises:
        RuntimeError: the engine reads no looks.
        Refused: it refused the photos.
    """
    from engine import __main__ as engine

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = engine.main(["inspect", *map(str, files), "--class", noun, "--json"])
    lines = said.getvalue().strip().splitlines()
    if status:
        raise Refused(lines[-1] if lines else "")
    figures = json.loads(lines[-1])
    if "looks" not in figures:
        raise RuntimeError("this engine does not read looks")
    if figures["looks"] is None:
        raise Refused("no face was found")
    looks: Looks = figures["looks"]
    return looks


@dataclass(frozen=True)
class Compared:
    """One person: what was labelled, what was read, and what each picture shows."""

    row: Mapping[str, Any]
    read: Looks | None
    drawn: Sequence[Mapping[str, Any]]

    def right(self, name: str, against: str) -> list[bool]:
        """For each picture whether it shows what was `read` or `labelled`."""
        if self.read is None:
            return [False]
        wanted = self.read.get(name) if against == "read" else self.row.get(name)
        answers = [agree(name, one[name], wanted) for one in self.drawn if name in one]
        return [one for one in answers if one is not None]

    def read_right(self, name: str) -> bool | None:
        """Whether the photos were read as labelled."""
        label = self.row.get(name)
        if label is None:
            return None
        if self.read is None:
            return False
        return agree(name, self.read[name], label)


def groups_of(row: Mapping[str, Any]) -> list[str]:
    """The groups of one person, by skin tone, sex and age."""
    tone = (row["skin"] + 1) // 2
    found = [f"skin {2 * tone - 1} and {2 * tone}", str(row["sex"])]
    age = row.get("age")
    if age:
        found.append("under 30" if age < 30 else "30 to 49" if age < 50 else "50 and over")
    return found


def shares(compared: Sequence[Compared], names: Sequence[str], against: str) -> dict[str, float | None]:
    """The share of pictures that show each attribute as `read` or `labelled`, and under "all" the mean."""
    found: dict[str, float | None] = {}
    for name in names:
        answers = [float(one) for person in compared for one in person.right(name, against)]
        found[name] = mean(answers) if answers else None
    known = [value for value in found.values() if value is not None]
    return {**found, "all": mean(known) if known else None}


def results_of(compared: Sequence[Compared], ruler: Ruler) -> dict[str, Any]:
    """The figures of all people, and of each group."""
    names = [name for name in NAMES if (found := ruler.trusts.get(BEHIND[name])) and found.trusted]
    by_group = defaultdict[str, list[Compared]](list)
    for one in compared:
        for name in groups_of(one.row):
            by_group[name].append(one)
    read = {name: [answer for one in compared if (answer := one.read_right(name)) is not None] for name in NAMES}
    whole = shares(compared, names, "read")
    groups: dict[str, dict[str, Any]] = {
        name: {"people": len(some), "read": shares(some, names, "read"), "labelled": shares(some, names, "labelled")}
        for name, some in sorted(by_group.items())
    }
    all_ = whole["all"]
    behind = [
        name for name, one in groups.items()
        if one["people"] >= SMALLEST_GROUP and all_ is not None and (one["read"]["all"] or 0.0) < all_ - BEHIND_MEAN
    ]  # fmt: skip
    return {
        "people": len(compared),
        "not_measured": [name for name in NAMES if name not in names],
        "photos_read_as_labelled": {name: mean(map(float, one)) if one else None for name, one in read.items()},
        "labels": {name: Counter(str(one.row.get(name)) for one in compared) for name in ("glasses", "facial_hair")},
        "drawn_as_read": whole,
        "drawn_as_labelled": shares(compared, names, "labelled"),
        "groups": groups,
        "groups_behind": behind,
        "met": None if all_ is None or len(names) < len(NAMES) else all_ >= GOAL and not behind,
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown, in percent."""

    def line(title: str, values: Mapping[str, float | None], people: int) -> str:
        cells = [
            "-" if values.get(name) is None else f"{100 * float(values[name] or 0):.0f}" for name in (*NAMES, "all")
        ]
        return f"| {title} | {' | '.join(cells)} | {people} |"

    lines = [f"| % | {' | '.join(NAMES)} | all | people |", "|---" * (len(NAMES) + 3) + "|"]
    lines.append(line("read as labelled", found["photos_read_as_labelled"], found["people"]))
    lines.append(line("**drawn as read**", found["drawn_as_read"], found["people"]))
    lines.append(line("drawn as labelled", found["drawn_as_labelled"], found["people"]))
    for name, one in found["groups"].items():
        lines.append(line(f"drawn as read: {name}", one["read"], one["people"]))
    if found["not_measured"]:
        lines.append(f"\nNot measured, since no reader is trusted with it: {', '.join(found['not_measured'])}.")
    behind = f" Groups more than {100 * BEHIND_MEAN:.0f} points behind: {', '.join(found['groups_behind']) or 'none'}."
    words = {True: "met", False: "missed", None: "not measured"}
    lines.append(f"\nGoal of {100 * GOAL:.0f} % drawn as read: {words[found['met']]}.{behind}")
    return "\n".join(lines)


def paint_person(
    row: Mapping[str, Any], photos: Path, out: Path, key: str, painter: Painter,
    read: Callable[[Sequence[Path], str], Looks] = inspected, pictures: int = 4,
) -> tuple[Looks | None, list[Image.Image]]:  # fmt: skip
    """Read, learn and draw one person, unless an equal run did. No looks and no pictures if the album is refused."""
    folder, noun = out / str(row["person"]), {"male": "man", "female": "woman"}[row["sex"]]
    done = folder / "done.json"
    if not done.exists() or (before := json.loads(done.read_text()))["key"] != [key, pictures]:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "photos").mkdir(parents=True)
        files = [Path(shutil.copy(photos / name, folder / "photos")) for name in row["files"]]
        looks: Looks | None = None
        try:
            looks = read(files, noun)
            painter.learn(folder / "photos", "qv7t", noun, folder / "avatar")
            asked = [
                Request(text.replace("{who}", f"qv7t {noun}"), 900 + pictures * at, pictures, (1, 1), folder / "avatar")
                for at, text in enumerate(ASKED)
            ]
            for at, drawn in enumerate(painter.draw(asked)):
                strip(drawn).save(folder / f"{at}.png")
        except Refused:
            looks = None
        before = {"key": [key, pictures], "looks": looks}
        done.write_text(json.dumps(before) + "\n")
    drawn = []
    for file in sorted(folder.glob("[0-9].png")):
        with Image.open(file) as board:
            width = board.width // pictures
            drawn += [board.crop((n * width, 0, (n + 1) * width, board.height)) for n in range(pictures)]
    return before["looks"], drawn


def chosen(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` of the people, evenly spread over the file, which is sorted by source."""
    return list(rows) if count >= len(rows) else [rows[n * len(rows) // count] for n in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation.photos", description=__doc__)
    parser.add_argument("--base", default="embedded", help="base model: a diffusers folder (default: embedded)")
    parser.add_argument("--out", type=Path, required=True, help="folder for avatars, pictures and results")
    parser.add_argument("--people", type=int, default=60, help="number of people (default: 60)")
    parser.add_argument("--labels", type=Path, default=LABELS, help="labels by eye (default: those beside this module)")
    parser.add_argument("--photos", type=Path, default=PORTRAITS, help=f"folder of the photos (default: {PORTRAITS})")
    parser.add_argument("--renders", type=int, default=MEASURED, help=f"to measure readers on (default: {MEASURED})")
    parser.add_argument(
        "--train", action="append", default=[], metavar="OPTION=VALUE", help="further option of `engine train`"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    asked = parser.parse_args(arguments)
    from engine.bases.base import BaseModel

    weights = weights_of(asked.base)
    options = tuple(f"--{option}" for option in asked.train)
    key, painter = " ".join((fingerprint(weights), *options)), EnginePainter(asked.base, options)
    asked.out.mkdir(parents=True, exist_ok=True)
    side = BaseModel.load(asked.base).side
    ruler = kept_ruler([judge_of(weights), PixelReader()], asked.out / "readers.json", key, asked.renders, side)
    compared = []
    for row in chosen(json.loads(asked.labels.read_text("utf-8")), asked.people):
        with home(asked.out / f"home-{os.getpid()}"):
            read, drawn = paint_person(row, asked.photos, asked.out, key, painter)
        compared.append(Compared(row, read, [looks_of(one) for one in ruler.reading(drawn)]))
        if not asked.json:
            print(f"{row['person']}: {'refused' if read is None else 'drawn'}", flush=True)
    shutil.rmtree(asked.out / f"home-{os.getpid()}", ignore_errors=True)
    found = results_of(compared, ruler)
    (asked.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found) if asked.json else table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
