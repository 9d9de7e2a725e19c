"""What a picture shows: readers, and the rule by which a reader is trusted only where it is shown to be right.

A reader is measured on renders of this evaluation (`renders`), never on pre-training's. An attribute counts only if the
best reader of it is right for at least `TRUSTED` of them. Values that it confuses are left out, one after the other;
where more than a third of the values must go, the attribute is not measured at all, and the report says so.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from PIL import Image

from engine.toon import things
from engine.toon.colours import names_of
from tests.evaluation import albums, palette, pixels
from tests.evaluation.albums import COLOUR_ATTRIBUTES, Look, Person, Picture
from tests.evaluation.drawing import Camera, Print
from tests.evaluation.prompts import THINGS, Prompt, prompts
from tests.evaluation.strangers import BEARD_KINDS, LENGTHS

Accepted = Mapping[str, tuple[str, ...]]
"""For each attribute the values that are right: names, or `#rrggbb` for a colour that must look the same."""

TRUSTED = 0.97
"""Least share of renders that a reader must read rightly, for each attribute."""

VALUE_TRUSTED = 0.9
"""Least share for each value, of the renders that show it and of the renders that are read as it; one error is
forgiven where there are few."""

LEAST_RENDERS = 8
"""A value that fewer renders show is not trusted."""

SAME_COLOUR = 0.075
"""Two colours of hair or skin are the same to people if they are nearer than this in OKLab."""

ALIKE: Mapping[str, str] = {"blazer": "suit"}
"""Values that people accept for each other, with the one that counts for both."""


class Reader(Protocol):
    """Reads what pictures show."""

    name: str

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        """For each picture the attributes that it can read, with their values; colours as `#rrggbb`."""
        ...


def right(attribute: str, found: str, accepted: tuple[str, ...]) -> bool:
    """Whether what was read counts as what was asked for."""
    if attribute in COLOUR_ATTRIBUTES:
        names = names_of(palette.rgb(found))
        return any(
            pixels.distance(found, one) <= SAME_COLOUR if one.startswith("#") else one in names for one in accepted
        )
    return ALIKE.get(found, found) in {ALIKE.get(one, one) for one in accepted}


def widened(read: dict[str, str]) -> dict[str, str]:
    """With the attributes that follow from others."""
    if "hair_style" in read:
        read["hair_length"] = LENGTHS[read["hair_style"]]
    if "facial_hair" in read:
        read["beard_kind"] = BEARD_KINDS[read["facial_hair"]]
    return read


def posed(yaw: float, pitch: float, turn: float, scale: float) -> dict[str, str]:
    """A measured pose in the words of `albums.camera_facts`; the edges lie between its intervals."""
    return {
        "looking": "left" if yaw < -10 else "right" if yaw > 10 else "ahead",
        "raised": "up" if pitch < -6.5 else "down" if pitch > 6.5 else "level",
        "tilted": "left" if turn < -7 else "right" if turn > 7 else "no",
        "distance": "close" if scale > 1.21 else "far" if scale < 0.81 else "usual",
    }


class CartoonReader:
    """The judge of `engine.cartoon`."""

    name = "judge"
    VALUES = ("hair_style", "facial_hair", "clothes", "glasses", "hat", "eyes", "mouth", "place", "worn", "held")
    COLOURS: Mapping[str, str] = {
        "clothes_colour": "clothes_colour", "background": "background", "hat_colour": "hat_colour",
        "hair": "hair_colour", "skin": "skin", "beard": "beard_colour",
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        from engine.cartoon.judge import Judge

        self.judge = Judge.load(folder)

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        found = []
        for start in range(0, len(pictures), 64):
            for one in self.judge.read(pictures[start : start + 64]):
                values = {name: one.values[name] for name in self.VALUES}
                values |= {ours: one.colours[theirs] for theirs, ours in self.COLOURS.items()}
                values |= posed(one.pose.yaw, one.pose.pitch, one.pose.roll, one.pose.scale)
                found.append(widened(values))
        return found


class ToonReader:
    """The judge of `engine.toon`, which knows upright faces of one size and colours by name."""

    name = "judge"
    VALUES = ("hair_style", "facial_hair", "clothes", "glasses", "hat", "eyes", "mouth")

    def __init__(self, folder: Path) -> None:
        from engine.toon import world
        from engine.toon.judge import Judge

        self.judge = Judge.load(folder)
        self.colours: Mapping[str, Mapping[str, str]] = {
            "clothes_colour": world.COLOURS, "background": world.COLOURS, "hat_colour": world.COLOURS,
            "hair_colour": world.HAIR_COLOURS, "skin": world.SKINS,
        }  # fmt: skip

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        found = []
        for start in range(0, len(pictures), 64):
            for one in self.judge.attributes([squared(picture) for picture in pictures[start : start + 64]]):
                values = {name: one[name] for name in self.VALUES}
                values |= {name: hexes[one[name]] for name, hexes in self.colours.items()}
                values["tilted"] = {"none": "no"}.get(one["tilt"], one["tilt"])
                values["distance"] = {"close-up": "close", "afar": "far"}.get(one["distance"], one["distance"])
                found.append(widened(values))
        return found


def squared(picture: Image.Image) -> Image.Image:
    """The square in the middle of the lower edge."""
    side = min(picture.size)
    left = (picture.width - side) // 2
    return picture.crop((left, picture.height - side, left + side, picture.height))


class PixelReader:
    """Measurements without a model."""

    name = "pixels"

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        found = []
        for picture in pictures:
            colour, plain = pixels.background(picture)
            values = {"background": colour, "plain": "yes" if plain else "no"}
            if worn := pixels.clothes_colour(picture):
                values["clothes_colour"] = worn
            found.append(values)
        return found


def judge_of(folder: Path) -> Reader:
    """The judge beside a base model's weights, of whichever world it is.

    Raises:
        storage.errors.UserError: `no_judge` if there is none.
    """
    from safetensors import safe_open

    file = folder / "judge" / "judge.safetensors"
    if file.exists():
        with safe_open(file, "pt") as weights:
            if "queries" in weights.keys():  # noqa: SIM118
                return CartoonReader(folder / "judge")
    return ToonReader(folder / "judge")


# Renders: pictures that show what prompts ask for


def look_of(shows: Accepted, random: Random, usual: Look | None = None) -> Look:
    """A look that shows what a prompt asks for. What it leaves open is sampled, or as in `usual`."""
    look = usual or albums.sample_look(random)
    first = {name: values[0] for name, values in shows.items()}
    asked: dict[str, Any] = {
        name: first[name] for name in ("clothes", "glasses", "hat", "eyes", "mouth") if name in first
    }
    for name in ("clothes_colour", "background", "hat_colour"):
        if name in first:
            asked[name] = palette.near(random, palette.COLOURS[first[name]])
    look = dataclasses.replace(look, **asked)
    worn = tuple(first[name] for name in ("place", "worn", "held") if name in first)
    hidden = set().union(*(things.THINGS[name].hides for name in worn)) if worn else set()
    look = dataclasses.replace(
        look, things=worn, second="", hat="none" if hidden & {"hair", "hat"} else look.hat,
        glasses="none" if "glasses" in hidden else look.glasses,
    )  # fmt: skip
    if "eyes" in first and look.glasses == "sunglasses":
        look = dataclasses.replace(look, glasses="none")
    return dataclasses.replace(look, camera=_camera(first, random))


def _camera(first: Mapping[str, str], random: Random) -> Camera:
    """A pose that shows what is asked for, and else differs a little from the usual one."""
    scale = {"close": random.uniform(1.34, 1.5), "far": random.uniform(0.6, 0.7)}.get(
        first.get("distance", ""), random.uniform(0.92, 1.1)
    )
    sides = {"left": -1, "right": 1, "up": -1, "down": 1}
    turn = sides.get(first.get("tilted", ""), 0) * random.uniform(10, 14) or random.uniform(-3, 3)
    yaw = sides.get(first.get("looking", ""), 0) * random.uniform(22, 34) or random.uniform(-4, 4)
    pitch = sides.get(first.get("raised", ""), 0) * random.uniform(12, 18) or random.uniform(-2, 2)
    # A smaller figure still stands on the lower edge; a larger one grows about the face.
    down = 50 * (1 - scale) if scale < 1 else 12 * (scale - 1)
    return Camera(scale, random.uniform(-2, 2), down + random.uniform(0, 1.5), turn, False, yaw, pitch)


@dataclass(frozen=True)
class Render:
    """A picture with everything that is known of it."""

    picture: Image.Image
    accepted: Accepted


def rendered(person: Person, prompt: Prompt, random: Random, side: int) -> Render:
    """One person as a prompt asks."""
    look = dataclasses.replace(look_of(prompt.shows, random), size=prompt.size)
    drawn = Picture(person, look, Print(side), random.getrandbits(32))
    facts = {name: (value,) for name, value in widened(drawn.facts()).items()}
    asked = {name: values for name, values in prompt.shows.items() if name in facts}
    return Render(drawn.image(), {**facts, **asked})


SHOWN: Sequence[Mapping[str, Iterable[str]]] = (
    {
        "eyes": albums.EYES, "mouth": albums.MOUTHS, "glasses": albums.GLASSES, "clothes": albums.CLOTHES,
        "hat": albums.HATS,
    },
    {
        "looking": ("left", "right"), "tilted": ("left", "right"), "raised": ("up", "down"),
        "distance": ("close", "far"),
    },
    THINGS,
)  # fmt: skip
"""What renders show, one value after the other."""


def renders(count: int, side: int, seed: int = 0) -> Iterable[Render]:
    """`count` renders that measure a reader. Half show what prompts ask for; half show one value after the other."""
    random = Random(f"evaluation renders {seed}")
    sexes = {style: sex for sex, styles in albums.HAIR.items() for style in styles}
    styles, beards = tuple(sexes), tuple(albums.BEARDS)
    asked = [prompt for number in range(1 + count // 80) for prompt in prompts(1000 + number)]
    cycles = [[(name, value) for name, values in part.items() for value in values] for part in SHOWN]
    for number in range(count):
        person = albums.person(10_000 + number, seed)
        # All hair styles and beards, as often as each other.
        style = styles[number % len(styles)]
        beard = beards[number // 2 % len(beards)] if sexes[style] == "man" and number % 2 else "none"
        person = dataclasses.replace(person, sex=sexes[style], hair_style=style, facial_hair=beard)
        if number % 2:
            prompt = asked[number // 2]
        else:
            values = cycles[number // 2 % 3]
            name, value = values[number // 6 % len(values)]
            prompt = Prompt("render", "{who}", {name: (value,)})
        yield rendered(person, prompt, random, side)


# The rule


@dataclass(frozen=True)
class Trust:
    """How well a reader reads one attribute."""

    reader: str
    right: float
    """Share of the renders, 0 to 1, of the values that are not left out."""
    of: int
    """Renders that were counted."""
    left_out: tuple[str, ...] = ()
    """Values that the reader misjudges."""
    values: int = 0
    """Values in all."""

    @property
    def trusted(self) -> bool:
        """Whether the attribute is measured."""
        few = len(self.left_out) * 3 <= self.values
        return self.right >= TRUSTED and few and self.of >= LEAST_RENDERS


OF_FACES = frozenset({
    "eyes", "mouth", "glasses", "hat", "hat_colour", "clothes", "clothes_colour", "background",
})  # fmt: skip
OF_POSES: Mapping[str, str] = {"looking": "ahead", "raised": "level", "tilted": "no", "distance": "usual"}
"""The attributes of a pose with their usual values."""


def asked_there(attribute: str, accepted: Accepted) -> bool:
    """Whether any prompt would score this attribute in a picture like this one.

    Faces and clothes are asked for in the usual pose and without things, poses without things; hair, skin and beard
    are scored in all pictures.
    """
    bare = all(accepted.get(name, ("none",)) == ("none",) for name in ("place", "worn", "held"))
    still = all(accepted.get(name) == (usual,) for name, usual in OF_POSES.items())
    if attribute == "plain":
        return accepted.get("distance") == ("usual",)
    return (bare and still) if attribute in OF_FACES else bare if attribute in OF_POSES else True


def trust(reader: Reader, shown: Sequence[Render]) -> dict[str, Trust]:
    """How well a reader reads each attribute of renders."""
    found = reader.read([one.picture for one in shown])
    pairs = defaultdict[str, list[tuple[str, str, bool]]](list)
    for one, read in zip(shown, found, strict=True):
        for attribute, accepted in one.accepted.items():
            if attribute in read and asked_there(attribute, one.accepted):
                value = "" if attribute in COLOUR_ATTRIBUTES else ALIKE.get(accepted[0], accepted[0])
                seen = "" if attribute in COLOUR_ATTRIBUTES else ALIKE.get(read[attribute], read[attribute])
                pairs[attribute].append((value, seen, right(attribute, read[attribute], accepted)))
    return {attribute: _trust(reader.name, rows) for attribute, rows in pairs.items()}


def _trust(reader: str, rows: Sequence[tuple[str, str, bool]]) -> Trust:
    """Leave out values, the worst first, until the others are read rightly."""
    values = {value for value, _, _ in rows}
    out = set[str]()

    def share(kept: Sequence[tuple[str, str, bool]]) -> float:
        return sum(good for _, _, good in kept) / len(kept) if kept else 0.0

    def forgiving(kept: Sequence[tuple[str, str, bool]]) -> float:
        errors = sum(not good for _, _, good in kept)
        return 1.0 if kept and errors <= 1 else share(kept)

    while True:
        kept = [row for row in rows if row[0] not in out]
        shares = {}
        for value in values - out:
            shown, read = ([row for row in kept if row[side] == value] for side in (0, 1))
            enough = len(shown) >= LEAST_RENDERS or value == ""
            shares[value] = min(forgiving(shown), forgiving(read)) if enough else 0.0
        worst = min(shares, key=lambda value: (shares[value], value), default=None)
        good = worst is not None and (shares[worst] >= VALUE_TRUSTED or worst == "")
        if worst is None or worst == "" or (good and share(kept) >= TRUSTED):
            return Trust(reader, share(kept), len(kept), tuple(sorted(out)), len(values))
        out.add(worst)


@dataclass(frozen=True)
class Ruler:
    """The readers of an evaluation, each for the attributes that it reads best."""

    readers: Sequence[Reader]
    trusts: Mapping[str, Trust]

    def reading(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        """What pictures show, of the attributes that are trusted."""
        by_reader = {reader.name: reader.read(pictures) for reader in self.readers} if pictures else {}
        return [
            {
                attribute: by_reader[one.reader][number][attribute]
                for attribute, one in self.trusts.items()
                if one.trusted and attribute in by_reader[one.reader][number]
            }
            for number in range(len(pictures))
        ]

    def counts(self, attribute: str, accepted: tuple[str, ...]) -> bool:
        """Whether a picture that should show one of `accepted` is scored."""
        one = self.trusts.get(attribute)
        if one is None or not one.trusted:
            return False
        return not {ALIKE.get(value, value) for value in accepted} & set(one.left_out)

    def lines(self) -> list[str]:
        """What is measured and what is not, for the report."""
        texts = []
        for name, one in sorted(self.trusts.items()):
            state = "measured" if one.trusted else "NOT measured"
            without = f", without {', '.join(one.left_out)}" if one.left_out else ""
            texts.append(
                f"{name}: {state} by {one.reader}, right for {100 * one.right:.1f} % of {one.of} renders{without}"
            )
        return texts


def ruler(readers: Sequence[Reader], shown: Sequence[Render]) -> Ruler:
    """The ruler of these readers: for each attribute the reader that is right most often."""
    best = dict[str, Trust]()
    for reader in readers:
        for attribute, one in trust(reader, shown).items():
            known = best.get(attribute)
            key = (one.trusted, -len(one.left_out), one.right)
            if known is None or key > (known.trusted, -len(known.left_out), known.right):
                best[attribute] = one
    return Ruler(readers, best)


def kept_ruler(readers: Sequence[Reader], file: Path, key: str, count: int, side: int) -> Ruler:
    """The ruler, measured once: `file` keeps it for `key`, which names the readers' weights."""
    asked: dict[str, Any] = {"key": key, "count": count, "side": side}
    if file.exists() and (before := json.loads(file.read_text()))["asked"] == asked:
        trusts = {name: Trust(**{**one, "left_out": tuple(one["left_out"])}) for name, one in before["trusts"].items()}
        return Ruler(readers, trusts)
    found = ruler(readers, list(renders(count, side)))
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: dataclasses.asdict(one) for name, one in found.trusts.items()}
    file.write_text(json.dumps({"asked": asked, "trusts": rows}, indent=1) + "\n")
    return found
