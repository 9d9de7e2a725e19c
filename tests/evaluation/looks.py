"""How well looks are read from photos of people whom nothing was trained on: `python -m tests.evaluation.looks`.

The labels in `looks_labels.json` were made by eye before there was a model. The first of several labels is the one
that counts; "or near" also counts the others, which a second look might give (dark brown hair as black, clear stubble
as none, hair tied back as medium or long). Hair that a scarf or a hat hides is not counted.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engine.photos.decoding import load_photo
from engine.photos.looks import Looks, read_album

LABELS = Path(__file__).with_name("looks_labels.json")
PORTRAITS = Path(__file__).parents[3] / "shared" / "data" / "portraits"

TARGETS = {"skin": 90, "hair_colour": 80, "hair_length": 85, "facial_hair": 90, "glasses": 95}
"""Least share of people, in percent, for whom each must be right; for skin, right or one tone off."""


@dataclass(frozen=True)
class Read:
    """A labelled person and what was read of the photos; None if no face was found."""

    row: Mapping[str, Any]
    looks: Looks | None

    def right(self, name: str, *, near: bool = False) -> bool | None:
        """Whether an attribute was read as labelled; None if the labels do not tell."""
        label = self.row[name]
        if label is None:
            return None
        if self.looks is None:
            return False
        value = getattr(self.looks, name)
        if name == "skin":
            return bool(abs(value - label) <= 1)
        if isinstance(label, list):
            return value in (label if near else label[:1])
        return bool(value == label)


def people() -> list[dict[str, Any]]:
    """The labelled people, in the order of the file."""
    rows: list[dict[str, Any]] = json.loads(LABELS.read_text("utf-8"))
    return rows


def read_people(
    rows: Sequence[Mapping[str, Any]],
    folder: Path = PORTRAITS,
    change: Callable[[Image.Image], Image.Image] = lambda photo: photo,
) -> list[Read]:
    """Read the looks of each person from all photos of the person, each changed by `change` first."""
    return [
        Read(row, read_album([change(load_photo((folder / name).read_bytes())) for name in row["files"]]))
        for row in rows
    ]


def share(read: Sequence[Read], name: str, *, near: bool = False) -> tuple[float, int]:
    """The percentage of people for whom an attribute is right, and the number of people it was labelled for."""
    known = [right for one in read if (right := one.right(name, near=near)) is not None]
    return (100 * sum(known) / len(known) if known else 0.0), len(known)


def groups(read: Sequence[Read]) -> dict[str, list[Read]]:
    """The people by skin tone, sex, age and source."""
    found = defaultdict[str, list[Read]](list)
    for one in read:
        skin, age = one.row["skin"], one.row["age"]
        found[f"skin {(skin + 1) // 2 * 2 - 1} or {(skin + 1) // 2 * 2}"].append(one)
        found[one.row["sex"]].append(one)
        if age:
            found["under 30" if age < 30 else "30 to 49" if age < 50 else "50 and over"].append(one)
        found[one.row["source"]].append(one)
    return {name: found[name] for name in sorted(found)}


def table(read: Sequence[Read]) -> list[str]:
    """Lines with the percentages by attribute and group."""
    lines = [f"{'':14}" + "".join(f"{name:>14}" for name in TARGETS) + f"{'people':>9}"]

    def line(title: str, some: Sequence[Read], near: bool) -> str:
        cells = [share(some, name, near=near) for name in TARGETS]
        return f"{title:14}" + "".join(f"{f'{right:.0f}' if n else '-':>14}" for right, n in cells) + f"{len(some):9}"

    lines += [line("all", read, False), line("all, or near", read, True)]
    lines += [f"{'target':14}" + "".join(f"{least:14}" for least in TARGETS.values())]
    return lines + [line(name, some, False) for name, some in groups(read).items()]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation.looks", description=__doc__)
    parser.add_argument("--photos", type=Path, default=PORTRAITS, help=f"folder of the photos (default: {PORTRAITS})")
    parser.add_argument("--wrong", action="store_true", help="also print what was read wrongly")
    asked = parser.parse_args()
    read = read_people(people(), asked.photos)
    print("\n".join(table(read)))
    for one in read if asked.wrong else ():
        for name in TARGETS:
            if one.right(name) is False:
                value = one.looks and getattr(one.looks, name)
                sure = one.looks.confidence[name] if one.looks else 0.0
                print(f"{one.row['person']}: {name} is {one.row[name]}, read {value} ({sure:.2f})")


if __name__ == "__main__":
    main()
