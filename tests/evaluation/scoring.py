"""Scores: which of the attributes that prompts and people ask for came out right, for the base and for the avatar."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import mean
from typing import Any, Protocol

import numpy as np
from PIL import Image

from engine.toon import things
from tests.evaluation import pixels
from tests.evaluation.albums import COLOUR_ATTRIBUTES
from tests.evaluation.judging import SAME_COLOUR, Accepted, Ruler, right
from tests.evaluation.prompts import Prompt
from tests.evaluation.recognition import KNOWN_WORDINGS

AVATAR, BASE, CLASS = "avatar", "base", "class"
"""The ways of drawing: prompts about the avatar; the same with the class noun and no avatar; the class noun while the
avatar is applied, which shows what the avatar did to the class."""

WAYS = (AVATAR, BASE, CLASS)

CLASS_KINDS = frozenset({"plain", "clothes", "background"})
"""Kinds of prompts that are drawn in the way `CLASS`."""

NOT_OF_PROMPTS = frozenset({"size", "one head", "plain"})
"""Rows of the table that the share "all that prompts name" leaves out: they are right in many wrong pictures too."""

GOALS: Mapping[str, float] = {
    "identity": 0.92, "prompts": 0.92, "behind the base": 0.03, "least attribute": 0.80, "class variety kept": 0.90,
    "things recognised": 0.80,
}  # fmt: skip
"""What is to be shown; "behind the base" is the most that may be lost, the others the least that must be reached."""

REQUIRED = ("mouth", "glasses", "eyes", "clothes", "clothes_colour", "background")
"""Attributes without which the least one says little."""

Sheets = Mapping[str, Sequence[Sequence[Image.Image] | None]]
"""For each way the pictures of each prompt; None for what could not be drawn, or is not drawn in this way."""


class Recognises(Protocol):
    """See `recognition.Recogniser`."""

    def first(self, pictures: Sequence[Image.Image], kind: str, noun: str) -> list[str]: ...


@dataclass
class Tally:
    """Answers of many checks: for each way and attribute, whether each picture was right."""

    checks: dict[str, dict[str, list[bool]]] = field(default_factory=lambda: {way: defaultdict(list) for way in WAYS})
    identity: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    recognised: dict[str, dict[str, list[bool]]] = field(
        default_factory=lambda: {way: defaultdict(list) for way in WAYS}
    )
    """By kind of thing, and by whether the wording is one of pre-training's."""
    class_variety: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Shares of pairs of pictures of one prompt whose people differ, with and without the avatar."""
    prompt_variety: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Mean difference of the pixels of two pictures of one prompt, 0 to 1."""
    per_person: list[float] = field(default_factory=list)
    """Identity of each person."""


@dataclass(frozen=True)
class Subject:
    """Who is drawn: what all pictures of the person must show, and what was asked."""

    identity: Accepted
    noun: str
    prompts: Sequence[Prompt]


def tally(subject: Subject, sheets: Sheets, ruler: Ruler, recogniser: Recognises | None, into: Tally) -> None:
    """Add the checks of one person's pictures to `into`."""
    of_person = list[bool]()
    for name in subject.identity:
        into.identity[name] += []  # those that nobody can measure are shown as such
    for way in WAYS:
        for at, (prompt, drawn) in enumerate(zip(subject.prompts, sheets[way], strict=True)):
            if drawn is None:
                if way != CLASS:
                    of_person += _refused(subject, prompt, len(sheets[BASE][at] or (0,)), way, ruler, into)
                    _recognise(
                        prompt, [], len(sheets[BASE][at] or (0,)), subject.noun, recogniser, into.recognised[way]
                    )
                continue
            read = ruler.reading(drawn)
            if prompt.kind in CLASS_KINDS:
                into.class_variety[way] += [
                    differing(one, other, tuple(subject.identity)) for one, other in combinations(read, 2)
                ]  # fmt: skip
            if way == CLASS:
                continue
            for picture, found in zip(drawn, read, strict=True):
                _check_prompt(prompt, picture, found, ruler, into.checks[way])
                if way == AVATAR:
                    of_person += _check_identity(subject.identity, prompt, found, ruler, into.identity)
            _recognise(prompt, drawn, 0, subject.noun, recogniser, into.recognised[way])
            into.prompt_variety[way] += [apart(a, b) for a, b in combinations(drawn, 2)]
    if of_person:
        into.per_person.append(mean(of_person))


def _refused(subject: Subject, prompt: Prompt, count: int, way: str, ruler: Ruler, into: Tally) -> list[bool]:
    """Of pictures that were refused nothing is right."""
    for name, accepted in prompt.shows.items():
        if ruler.counts(name, accepted):
            into.checks[way][name] += [False] * count
    if way != AVATAR:
        return []
    names = [name for name, accepted in subject.identity.items() if ruler.counts(name, accepted)]
    for name in names:
        into.identity[name] += [False] * count
    return [False] * count * len(names)


def _check_prompt(
    prompt: Prompt, picture: Image.Image, found: Mapping[str, str], ruler: Ruler, into: dict[str, list[bool]]
) -> None:
    for name, accepted in prompt.shows.items():
        if ruler.counts(name, accepted):
            into[name].append(name in found and right(name, found[name], accepted))
    if prompt.size != (1, 1):
        across, down = prompt.size
        into["size"].append(abs(picture.width * down - picture.height * across) <= 0.06 * picture.width * down)
        if "skin" in found:
            into["one head"].append(pixels.heads(picture, found["skin"]) == 1)


def _check_identity(
    identity: Accepted, prompt: Prompt, found: Mapping[str, str], ruler: Ruler, into: dict[str, list[bool]]
) -> list[bool]:
    answers = []
    worn = [things.THINGS[name] for names in prompt.shows.values() for name in names if name in things.THINGS]
    covered = prompt.shows.get("hat", ("none",)) != ("none",) or any("hair" in one.hides for one in worn)
    for name, accepted in identity.items():
        if (covered and name.startswith("hair")) or not ruler.counts(name, accepted):
            continue
        answers.append(name in found and right(name, found[name], accepted))
        into[name].append(answers[-1])
    return answers


def _recognise(
    prompt: Prompt, drawn: Sequence[Image.Image], refused: int, noun: str, recogniser: Recognises | None,
    into: dict[str, list[bool]],
) -> None:  # fmt: skip
    if recogniser is None:
        return
    for accepted in prompt.shows.values():
        for name in accepted:
            if name in things.THINGS:
                kind = things.THINGS[name].kind
                answers = [first == name for first in recogniser.first(drawn, kind, noun)] + [False] * refused
                into[kind] += answers
                known = any(wording in prompt.text.lower() for wording in KNOWN_WORDINGS[name])
                into["a wording of pre-training" if known else "another wording"] += answers


def apart(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures' pixels at 64 x 64, 0 to 1."""
    a, b = (np.asarray(picture.convert("RGB").resize((64, 64)), np.float64) / 255 for picture in (one, other))
    return float(np.abs(a - b).mean())


def differing(one: Mapping[str, str], other: Mapping[str, str], names: Sequence[str]) -> float:
    """The share of these attributes in which two people differ, of those that can be read."""
    known = [name for name in names if name in one and name in other]
    differ = [
        pixels.distance(one[name], other[name]) > SAME_COLOUR if name in COLOUR_ATTRIBUTES else one[name] != other[name]
        for name in known
    ]
    return mean(map(float, differ)) if differ else 0.0


def share(answers: Sequence[bool]) -> float | None:
    """The share of right answers; None if there are none."""
    return mean(map(float, answers)) if answers else None


def figures(into: Tally) -> dict[str, Any]:
    """All shares, 0 to 1; None for what was not measured."""
    rows = sorted(set(into.checks[AVATAR]) | set(into.checks[BASE]))
    attributes = {
        name: {
            "base": share(into.checks[BASE][name]), "avatar": share(into.checks[AVATAR][name]),
            "pictures": len(into.checks[AVATAR][name]),
        }
        for name in rows
    }  # fmt: skip
    pooled = {
        way: share([one for name, answers in into.checks[way].items() if name not in NOT_OF_PROMPTS for one in answers])
        for way in (BASE, AVATAR)
    }
    named = {name: share(answers) for name, answers in into.identity.items()}
    known = [value for value in named.values() if value is not None]
    variety = {way: mean(into.class_variety[way]) if into.class_variety[way] else None for way in (BASE, CLASS)}
    recognised = {
        way: {name: share(answers) for name, answers in sorted(kinds.items())} for way, kinds in into.recognised.items()
    }
    kinds = {thing.kind for thing in things.THINGS.values()}
    asked = [one for name, answers in into.recognised[AVATAR].items() if name in kinds for one in answers]
    return {
        "identity": mean(known) if known else None,
        "by_identity": named,
        "least_person": min(into.per_person, default=None),
        "prompts": pooled,
        "by_attribute": attributes,
        "class_variety": variety,
        "prompt_variety": {way: mean(values) if values else None for way, values in into.prompt_variety.items()},
        "things_recognised": share(asked),
        "by_kind_of_thing": {way: recognised[way] for way in (BASE, AVATAR)},
    }


def goals(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each of GOALS with its figure, and whether it is met; None where it could not be measured."""
    base, avatar = found["prompts"][BASE], found["prompts"][AVATAR]
    attributes = {name: row["avatar"] for name, row in found["by_attribute"].items() if row["avatar"] is not None}
    # A figure without an attribute that is hard to draw would flatter, so it shows nothing.
    least = min(attributes.values(), default=None) if set(REQUIRED) <= set(attributes) else None
    avatar = avatar if least is not None else None
    identity = found["identity"] if None not in found["by_identity"].values() else None
    kept = found["class_variety"][CLASS], found["class_variety"][BASE]
    kept = kept if identity is not None else (None, None)
    values = {
        "identity": identity,
        "prompts": avatar,
        "behind the base": None if None in (base, avatar) else base - avatar,
        "least attribute": least,
        "class variety kept": None if None in kept or not kept[1] else kept[0] / kept[1],
        "things recognised": found["things_recognised"],
    }
    return {
        name: {
            "figure": values[name], "goal": goal,
            "met": None if values[name] is None
            else values[name] <= goal if name == "behind the base" else values[name] >= goal,
        }
        for name, goal in GOALS.items()
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """The figures as Markdown, in percent, the least attribute first."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.0f}"

    lines = ["| share right, % | base alone, class noun | with the avatar | pictures |", "|---|---|---|---|"]
    lines.append(f"| **identity** | - | {cell(found['identity'])} | |")
    lines += [f"| identity: {name} | - | {cell(value)} | |" for name, value in found["by_identity"].items()]
    lines.append(f"| identity of the worst person | - | {cell(found['least_person'])} | |")
    prompts = found["prompts"]
    lines.append(f"| **all that prompts name** | {cell(prompts[BASE])} | {cell(prompts[AVATAR])} | |")
    rows = found["by_attribute"].items()
    for name, row in sorted(rows, key=lambda one: 2.0 if one[1]["avatar"] is None else one[1]["avatar"]):
        lines.append(f"| {name} | {cell(row['base'])} | {cell(row['avatar'])} | {row['pictures']} |")
    by_kind = found["by_kind_of_thing"]
    for name in by_kind[AVATAR]:
        lines.append(
            f"| {name}, first by the CLIP | {cell(by_kind[BASE].get(name))} | {cell(by_kind[AVATAR][name])} | |"
        )
    variety = found["class_variety"]
    lines.append(f"| variety of the class | {cell(variety[BASE])} | {cell(variety[CLASS])} | |")
    prompt = found["prompt_variety"]
    lines.append(
        f"| difference of two pictures of one prompt | {cell(prompt.get(BASE))} | {cell(prompt.get(AVATAR))} | |"
    )
    lines += ["", "| to be shown | figure, % | goal, % | |", "|---|---|---|---|"]
    words = {True: "met", False: "missed", None: "not measured"}
    for name, one in goals(found).items():
        lines.append(f"| {name} | {cell(one['figure'])} | {cell(one['goal'])} | {words[one['met']]} |")
    return "\n".join(lines)
