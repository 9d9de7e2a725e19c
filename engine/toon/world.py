"""The procedural world of drawn people that the embedded base model knows.

A `Person` is the identity, the same in all pictures of an album. A `Look` is what differs from picture to picture, and
what a prompt may change. Both together are a `Scene`, which `render` draws with DiceBear's `avataaars` artwork (Pablo
Stanley, free for personal and commercial use). So all attributes of a picture are known exactly.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

import resvg_py
from dicebear import Avatar, Style
from PIL import Image

from engine.toon import SIZE

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

HAIR_COLOURS: Mapping[str, str] = {
    "auburn": "#a55728", "black": "#2c1b18", "golden": "#b58143", "blonde": "#d6b370", "brown": "#724133",
    "dark brown": "#4a312c", "pink": "#f59797", "platinum": "#ecdcbf", "red": "#c93305", "gray": "#e8e1e1",
}  # fmt: skip

SKINS: Mapping[str, str] = {
    "pale": "#ffdbb4", "light": "#edb98a", "tanned": "#fd9841", "olive": "#d08b5b", "brown": "#ae5d29",
    "dark": "#614335", "yellow": "#f8d25c",
}  # fmt: skip

FACIAL_HAIRS: Mapping[str, str | None] = {
    "none": None, "light beard": "beardLight", "medium beard": "beardMedium", "majestic beard": "beardMajestic",
    "fancy moustache": "moustacheFancy", "thick moustache": "moustacheMagnum",
}  # fmt: skip

CLOTHES: Mapping[str, str] = {
    "suit": "blazerAndShirt", "blazer": "blazerAndSweater", "sweater": "collarAndSweater",
    "graphic shirt": "graphicShirt", "hoodie": "hoodie", "overalls": "overall", "t-shirt": "shirtCrewNeck",
    "scoop-neck": "shirtScoopNeck", "v-neck": "shirtVNeck",
}  # fmt: skip

COLOURS: Mapping[str, str] = {
    "white": "#f6f6f6", "black": "#23272b", "gray": "#929598", "red": "#d93636", "orange": "#f28c28",
    "yellow": "#f7d038", "green": "#3c9d4e", "light green": "#a7e8a0", "blue": "#3a6fd8",
    "light blue": "#8fcdf5", "dark blue": "#25406e", "purple": "#8a4fbf", "pink": "#ff8fb3",
    "brown": "#7b4a2b", "beige": "#e8d5b0",
}  # fmt: skip
"""Colours of clothes, hats and backgrounds. `render` adds the scene's small jitter to them."""

GLASSES: Mapping[str, tuple[str, ...]] = {
    "none": (), "glasses": ("prescription01", "prescription02"), "round glasses": ("round",),
    "sunglasses": ("sunglasses", "wayfarers", "kurt"), "eyepatch": ("eyepatch",),
}  # fmt: skip

HATS: Mapping[str, tuple[str, ...]] = {
    "none": (), "hat": ("hat",), "winter hat": ("winterHat1", "winterHat02", "winterHat03", "winterHat04"),
    "turban": ("turban",),
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
    "doubtful": ("concerned", "disbelief"),
}  # fmt: skip

BROWS_OF_MOUTH: Mapping[str, tuple[str, ...]] = {
    "neutral": ("defaultNatural", "default"), "smiling": ("defaultNatural", "raisedExcitedNatural"),
    "serious": ("flatNatural", "defaultNatural"), "sad": ("sadConcernedNatural",), "tongue": ("upDownNatural",),
    "screaming": ("raisedExcitedNatural",), "grimacing": ("frownNatural",), "doubtful": ("upDownNatural",),
}  # fmt: skip

TILTS: Mapping[str, tuple[float, float]] = {"none": (0.0, 0.0), "left": (-13.0, -11.0), "right": (11.0, 13.0)}
"""Degrees of rotation, clockwise; left and right are the viewer's."""

DISTANCES: Mapping[str, tuple[float, float]] = {"usual": (0.99, 1.01), "close-up": (1.36, 1.42), "afar": (0.69, 0.71)}
"""Scale of the figure; 1.0 fills the picture from shoulders to hair.

Faces of one distance and tilt coincide almost exactly. With wide ranges of poses, a base of this size spent its
training on the position of a face rather than on its features, and drew eyes and mouths as mixtures.
"""

HELD_OUT_SHARE = 8
"""One in this many people never appears in pre-training."""


@dataclass(frozen=True)
class Person:
    """An identity: the attributes that every picture of one person shares."""

    noun: str
    hair_style: str
    hair_colour: str
    skin: str
    facial_hair: str

    @property
    def held_out(self) -> bool:
        """Whether pre-training must never show this person."""
        digest = hashlib.sha256("|".join((self.hair_style, self.hair_colour, self.skin, self.facial_hair)).encode())
        return digest.digest()[0] % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Look:
    """What changes from picture to picture of one person."""

    clothes: str
    clothes_colour: str
    background: str
    glasses: str = "none"
    hat: str = "none"
    hat_colour: str = "red"
    eyes: str = "open"
    mouth: str = "neutral"
    tilt: str = "none"
    distance: str = "usual"


@dataclass(frozen=True)
class Scene:
    """One picture of the world. `grain` is a seed for details without a caption: shades, angles, drawing variants."""

    person: Person
    look: Look
    grain: int


def sample_person(random: Random, *, held_out: bool) -> Person:
    """Sample an identity: one that pre-training never shows if `held_out`, else one that it may show."""
    while True:
        noun = random.choice(("man", "woman"))
        bearded = noun == "man" and random.random() < 0.6
        person = Person(
            noun=noun,
            hair_style=random.choice(HAIR_STYLES_OF[noun]),
            hair_colour=random.choice(tuple(HAIR_COLOURS)),
            skin=random.choice(tuple(SKINS)),
            facial_hair=random.choice(tuple(FACIAL_HAIRS)[1:]) if bearded else "none",
        )
        if person.held_out == held_out:
            return person


def _mostly(random: Random, usual: str, options: Sequence[str], share: float) -> str:
    return usual if random.random() < share else random.choice([option for option in options if option != usual])


def sample_look(random: Random, *, hats: bool = True) -> Look:
    """Sample everything that is not identity. Albums have no hats, since a hat hides the hair."""
    return Look(
        clothes=random.choice(tuple(CLOTHES)),
        clothes_colour=random.choice(tuple(COLOURS)),
        background=random.choice(tuple(COLOURS)),
        glasses=_mostly(random, "none", tuple(GLASSES), 0.6),
        hat=_mostly(random, "none", tuple(HATS), 0.82) if hats else "none",
        hat_colour=random.choice(tuple(COLOURS)),
        eyes=_mostly(random, "open", tuple(EYES), 0.45),
        mouth=_mostly(random, "neutral", tuple(MOUTHS), 0.3),
        tilt=_mostly(random, "none", tuple(TILTS), 0.7),
        distance=_mostly(random, "usual", tuple(DISTANCES), 0.7),
    )


def sample_scene(random: Random) -> Scene:
    """Sample one scene for pre-training, never of a held-out person."""
    return Scene(sample_person(random, held_out=False), sample_look(random), random.getrandbits(32))


def album(person: Person, count: int, seed: int) -> list[Scene]:
    """`count` different scenes of one person, like an album sent with `/train`."""
    random = Random(seed)
    return [Scene(person, sample_look(random, hats=False), random.getrandbits(32)) for _ in range(count)]


@cache
def artwork(name: str) -> Style:
    """One of DiceBear's artwork styles, by its file's name."""
    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")))


def _shade(random: Random, colour: str) -> str:
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{min(255, max(0, c + random.randint(-4, 4))):02x}" for c in channels)


def svg(scene: Scene, size: int = SIZE) -> str:
    """The scene as SVG text, `size` pixels wide and high."""
    person, look, random = scene.person, scene.look, Random(scene.grain)
    scale = random.uniform(*DISTANCES[look.distance])
    hair = HAIR_COLOURS[person.hair_colour]
    head = HATS[look.hat] or (person.hair_style,)
    accessory = GLASSES[look.glasses]
    facial_hair = FACIAL_HAIRS[person.facial_hair]
    options: dict[str, object] = {
        "seed": str(scene.grain),
        "size": size,
        "backgroundColor": [_shade(random, COLOURS[look.background])],
        "topVariant": [random.choice(head)],
        "hairColor": [hair],
        "hatColor": [_shade(random, COLOURS[look.hat_colour])],
        "skinColor": [SKINS[person.skin]],
        "accessoriesVariant": [random.choice(accessory)] if accessory else ["round"],
        "accessoriesProbability": 100 if accessory else 0,
        "accessoriesColor": ["#262e33"],
        "facialHairVariant": [facial_hair or "beardLight"],
        "facialHairProbability": 100 if facial_hair else 0,
        "facialHairColor": [hair],
        "clothesVariant": [CLOTHES[look.clothes]],
        "clothesColor": [_shade(random, COLOURS[look.clothes_colour])],
        "eyesVariant": [random.choice(EYES[look.eyes])],
        "eyebrowsVariant": [random.choice(BROWS_OF_MOUTH[look.mouth])],
        "mouthVariant": [random.choice(MOUTHS[look.mouth])],
        "scale": round(scale, 3),
        "rotate": round(random.uniform(*TILTS[look.tilt]), 1),
        "translateX": round(random.uniform(-0.5, 0.5), 1),
        # The shoulders stay at the lower edge, whatever the distance.
        "translateY": round((1 - scale) * 50 if scale < 1 else (scale - 1) * 12 + 1, 1),
    }
    return str(Avatar(artwork("avataaars"), options).to_string())


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Draw the scene as an RGB picture of `size` x `size` pixels."""
    return rasterised(svg(scene, size), size)


def rasterised(svg: str, size: int = SIZE) -> Image.Image:
    """SVG text as an RGB picture of `size` x `size` pixels."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
