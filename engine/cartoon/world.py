"""The drawn people, and what changes from one picture of a person to the next.

A `Person` is the identity, the same in all pictures of an album. A `Look` is what differs from picture to picture, and
what a prompt may change. Both together are a `Scene`, which `engine.cartoon.figure` draws. So everything that a picture
shows is known exactly.
"""

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from engine.cartoon.pose import Pose, sample_pose
from engine.toon import colours, things

HAIR_STYLES_OF: Mapping[str, tuple[str, ...]] = {
    "man": (
        "shortFlat", "shortRound", "shortWaved", "shortCurly", "theCaesar", "theCaesarAndSidePart", "sides",
        "frizzle", "dreads01", "dreads02", "shaggy", "shaggyMullet", "dreads", "fro", "bun",
    ),
    "woman": (
        "bigHair", "bob", "bun", "curly", "curvy", "dreads", "frida", "fro", "froBand", "longButNotTooLong",
        "miaWallace", "shavedSides", "straight01", "straight02", "straightAndStrand", "shaggyMullet",
    ),
}  # fmt: skip
"""Names of the artwork's `top` variants that are hair, by class noun."""

HAIR_COLOURS: Mapping[str, tuple[str, ...]] = {
    "black": ("#2c1b18", "#1c1817", "#26222a"), "dark brown": ("#4a312c", "#3d2a20", "#55382b"),
    "brown": ("#724133", "#6b4430", "#7d5238"), "auburn": ("#a55728", "#8f4425", "#9c4a2a"),
    "red": ("#c93305", "#b8451f", "#d2571f"), "golden": ("#b58143", "#a8763a", "#c08f52"),
    "blonde": ("#d6b370", "#dcbf86", "#e0c078"), "platinum": ("#ecdcbf", "#f0e6d0", "#e6d8c4"),
    "gray": ("#b9b4b2", "#9d9b9e", "#8b8a8d"), "white": ("#e8e1e1", "#f1eeec", "#dedbd8"),
    "pink": ("#f59797", "#ee7fa4", "#f2a9c4"), "blue": ("#4f7fd1", "#3a63b0", "#6fa3dd"),
    "green": ("#5aa469", "#3f8f6b", "#86b85c"), "purple": ("#8a5fb0", "#74479c", "#a583c9"),
}  # fmt: skip
"""Colours of hair and beards by name. A person's colour lies between two of a name's, or near one."""

NATURAL = ("black", "dark brown", "brown", "auburn", "red", "golden", "blonde", "platinum", "gray", "white")
"""Names of hair colours that are not dyed."""

SKINS: Mapping[str, tuple[str, ...]] = {
    "very light": ("#ffe0c8", "#fbd9c0", "#ffdbb4"), "light": ("#f5c9a3", "#edb98a", "#f0c29c"),
    "medium": ("#dfa474", "#e0a878", "#d89c6a"), "tan": ("#c98a56", "#d08b5b", "#bf8250"),
    "brown": ("#a0673c", "#ae5d29", "#955c38"), "dark": ("#6b4530", "#614335", "#553627"),
}  # fmt: skip
"""Six tones of skin, from the lightest to the darkest."""

FANTASY_SKINS: Mapping[str, tuple[str, ...]] = {"yellow": ("#f8d25c", "#f5d76e"), "orange": ("#fd9841", "#f7a35c")}
"""Tones that drawn people may have and real ones may not."""

FACIAL_HAIRS: Mapping[str, str | None] = {
    "none": None, "light beard": "beardLight", "medium beard": "beardMedium", "majestic beard": "beardMajestic",
    "fancy moustache": "moustacheFancy", "thick moustache": "moustacheMagnum",
}  # fmt: skip

CLOTHES: Mapping[str, str] = {
    "suit": "blazerAndShirt", "blazer": "blazerAndSweater", "sweater": "collarAndSweater",
    "graphic shirt": "graphicShirt", "hoodie": "hoodie", "overalls": "overall", "t-shirt": "shirtCrewNeck",
    "scoop-neck": "shirtScoopNeck", "v-neck": "shirtVNeck",
}  # fmt: skip

PRINTS = ("bat", "bear", "cumbia", "deer", "diamond", "hola", "pizza", "resist", "skull", "skullOutline")
"""Prints of graphic shirts; captions do not name them."""

GLASSES: Mapping[str, tuple[str, ...]] = {
    "none": (), "glasses": ("prescription01", "prescription02"), "round glasses": ("round",),
    "sunglasses": ("sunglasses", "wayfarers", "kurt"), "eyepatch": ("eyepatch",),
}  # fmt: skip

FRAMES = ("#262e33", "#3b2a20", "#1d1d1f", "#5a1f1f", "#233a5c", "#7a6a4f")
"""Colours of the frames of glasses."""

HATS: Mapping[str, tuple[str, ...]] = {
    "none": (), "hat": ("hat",), "winter hat": ("winterHat1", "winterHat02", "winterHat03", "winterHat04"),
    "turban": ("turban",), "hijab": ("hijab",),
}  # fmt: skip
"""Hats hide the hair in this artwork."""

EYES: Mapping[str, tuple[str, ...]] = {
    "open": ("default",), "closed": ("closed",), "winking": ("wink", "winkWacky"), "aside": ("side",),
    "surprised": ("surprised",), "in love": ("hearts",), "crying": ("cry",), "rolling": ("eyeRoll",),
    "squinting": ("squint",), "dizzy": ("xDizzy",), "happy": ("happy",),
}  # fmt: skip

MOUTHS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("default", "twinkle"), "smiling": ("smile",), "serious": ("serious",), "sad": ("sad",),
    "tongue": ("tongue",), "screaming": ("screamOpen",), "grimacing": ("grimace",),
    "doubtful": ("concerned", "disbelief"), "eating": ("eating",),
}  # fmt: skip

BROWS_OF_MOUTH: Mapping[str, tuple[str, ...]] = {
    "neutral": ("defaultNatural", "default"), "smiling": ("defaultNatural", "raisedExcitedNatural"),
    "serious": ("flatNatural", "defaultNatural", "angryNatural"), "sad": ("sadConcernedNatural", "sadConcerned"),
    "tongue": ("upDownNatural", "upDown"), "screaming": ("raisedExcitedNatural", "raisedExcited"),
    "grimacing": ("frownNatural",), "doubtful": ("upDownNatural",), "eating": ("defaultNatural", "default"),
}  # fmt: skip

COMMON = (
    "white", "black", "gray", "red", "orange", "yellow", "green", "light green", "blue", "light blue", "dark blue",
    "purple", "pink", "brown", "beige", "teal", "navy", "maroon", "gold", "turquoise",
)  # fmt: skip
"""The names that people use most; half of all colours have one of them."""

HELD_OUT_SHARE = 8
"""One in this many people never appears in pre-training."""

RATIOS: Mapping[str, tuple[int, int]] = {"square": (1, 1), "portrait": (2, 3), "landscape": (3, 2)}
"""Shapes of pictures: width and height."""


@dataclass(frozen=True)
class Person:
    """An identity: what every picture of one person shares. Colours are `#rrggbb`."""

    noun: str
    hair_style: str
    hair_name: str
    """The name of the hair's colour, a key of `HAIR_COLOURS`."""
    hair: str
    skin_name: str
    """The name of the skin's tone, a key of `SKINS` or `FANTASY_SKINS`."""
    skin: str
    facial_hair: str
    beard_name: str
    """The name of the beard's colour; the hair's for most people, and for those without a beard."""
    beard: str
    brows: str
    brow_weight: float
    """Height of the brows relative to the artwork's, 0.7 to 1.4."""
    face_width: float
    """Width of the head relative to the artwork's, 0.92 to 1.08."""

    @property
    def held_out(self) -> bool:
        """Whether pre-training must never show this person."""
        digest = hashlib.sha256("|".join((self.hair_style, self.hair_name, self.skin_name, self.facial_hair)).encode())
        return digest.digest()[0] % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Look:
    """What changes from picture to picture of one person. Each colour has the name that captions say and its value."""

    clothes: str
    clothes_name: str
    clothes_colour: str
    background_name: str
    background: str
    glasses: str = "none"
    hat: str = "none"
    hat_name: str = "red"
    hat_colour: str = "#d93636"
    eyes: str = "open"
    mouth: str = "neutral"
    things: tuple[str, ...] = ()
    """Names of `things.THINGS`: at most one place, one costume or piece of headgear, and one thing held or beside."""
    pose: Pose = field(default_factory=Pose)
    ratio: str = "square"


@dataclass(frozen=True)
class Scene:
    """One picture of the world. `grain` is a seed for details without a caption, such as the drawing's variants."""

    person: Person
    look: Look
    grain: int


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def hex_of(channels: Sequence[float]) -> str:
    """Three numbers from 0 to 255 as `#rrggbb`."""
    return "#" + "".join(f"{min(255, max(0, round(value))):02x}" for value in channels)


def between(random: Random, colours: Sequence[str], spread: int = 7) -> str:
    """A colour between two of `colours` (or beyond them by at most `spread` of 255 in each channel)."""
    a, b = rgb(random.choice(colours)), rgb(random.choice(colours))
    share = random.random()
    return hex_of([x + share * (y - x) + random.uniform(-spread, spread) for x, y in zip(a, b, strict=True)])


def darker(colour: str, share: float) -> str:
    """The colour with its lightness multiplied by `share`."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in rgb(colour)))
    return hex_of([255 * value for value in colorsys.hls_to_rgb(hue, lightness * share, saturation)])


def sample_person(random: Random, *, held_out: bool) -> Person:
    """Sample an identity: one that pre-training never shows if `held_out`, else one that it may show."""
    while True:
        noun = random.choice(("man", "woman"))
        bearded = noun == "man" and random.random() < 0.6
        hair_name = random.choice(NATURAL) if random.random() < 0.85 else random.choice(tuple(HAIR_COLOURS))
        hair = between(random, HAIR_COLOURS[hair_name])
        fantasy = random.random() < 0.06
        skin_name = random.choice(tuple(FANTASY_SKINS if fantasy else SKINS))
        beard_name, beard = hair_name, hair
        if bearded and random.random() < 0.2:
            beard_name = random.choice(NATURAL)
            beard = between(random, HAIR_COLOURS[beard_name])
        chance = random.random()
        brows = darker(hair, random.uniform(0.5, 0.9)) if chance < 0.5 else "#1e1512" if chance < 0.85 else beard
        person = Person(
            noun, random.choice(HAIR_STYLES_OF[noun]), hair_name, hair, skin_name,
            between(random, {**SKINS, **FANTASY_SKINS}[skin_name], 5),
            random.choice(tuple(FACIAL_HAIRS)[1:]) if bearded else "none",
            beard_name, beard, brows, round(random.uniform(0.75, 1.35), 2), round(random.uniform(0.92, 1.08), 3),
        )  # fmt: skip
        if person.held_out == held_out:
            return person


def sample_colour(random: Random) -> tuple[str, str]:
    """A colour's name, and a value for which people accept that name."""
    name = random.choice(COMMON if random.random() < 0.45 else tuple(colours.CENTRES))
    return name, hex_of(colours.sample(name, random))


def _mostly(random: Random, usual: str, options: Sequence[str], share: float) -> str:
    return usual if random.random() < share else random.choice([option for option in options if option != usual])


@cache
def _catalog(*kinds: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names of the things of these kinds, with the weights with which they are sampled: what people ask for most comes
    first in the catalog, and is three times as frequent as the rest."""
    names, weights = list[str](), list[float]()
    for kind in kinds:
        found = [thing.name for thing in things.THINGS.values() if thing.kind == kind]
        names += found
        weights += [3.0 if number < len(found) / 2 else 1.0 for number in range(len(found))]
    return tuple(names), tuple(weights)


def sample_things(random: Random) -> tuple[str, ...]:
    """Names of none to three things that fit together."""

    def one(*kinds: str) -> str:
        names, weights = _catalog(*kinds)
        return random.choices(names, weights)[0]

    chosen, worn = list[str](), random.random()
    if random.random() < 0.45:
        chosen.append(one("place"))
    if worn < 0.45:
        chosen.append(one("costume", "headgear"))
    if random.random() < 0.45:
        chosen.append(one("held", "companion"))
    return tuple(chosen)


def sample_look(random: Random, *, hats: bool = True, with_things: float = 0.45, square: float = 0.8) -> Look:
    """Sample everything that is not identity. Albums have no hats, since a hat hides the hair."""
    chosen = sample_things(random) if random.random() < with_things else ()
    hidden = set().union(*(things.THINGS[name].hides for name in chosen)) if chosen else set[str]()
    if not hats:
        chosen = tuple(name for name in chosen if "hair" not in things.THINGS[name].hides)
    hat = "none" if not hats or hidden & {"hair", "hat"} else _mostly(random, "none", tuple(HATS), 0.85)
    clothes_name, clothes_colour = sample_colour(random)
    background_name, background = sample_colour(random)
    hat_name, hat_colour = sample_colour(random)
    return Look(
        random.choice(tuple(CLOTHES)), clothes_name, clothes_colour, background_name, background,
        glasses="none" if "glasses" in hidden else _mostly(random, "none", tuple(GLASSES), 0.6),
        hat=hat, hat_name=hat_name, hat_colour=hat_colour,
        eyes=_mostly(random, "open", tuple(EYES), 0.45),
        mouth=_mostly(random, "neutral", tuple(MOUTHS), 0.3),
        things=chosen, pose=sample_pose(random),
        ratio="square" if random.random() < square else random.choice(("portrait", "landscape")),
    )  # fmt: skip


def sample_scene(random: Random) -> Scene:
    """Sample one scene for pre-training, never of a held-out person."""
    return Scene(sample_person(random, held_out=False), sample_look(random), random.getrandbits(32))


def album(person: Person, count: int, seed: int) -> list[Scene]:
    """`count` different square scenes of one person, like an album sent with `/train`."""
    random = Random(seed)
    return [
        Scene(person, sample_look(random, hats=False, with_things=0.0, square=1.0), random.getrandbits(32))
        for _ in range(count)
    ]
