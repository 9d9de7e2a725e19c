"""The people of the evaluation, and their albums: the artwork of `avataaars` as other people's bots draw it.

Poses, palettes, sizes and files vary more widely than those of pre-training, and the truth of each picture is known.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from PIL import Image

from engine.toon import things
from tests.evaluation import drawing, palette
from tests.evaluation.drawing import Camera, Print

Facts = Mapping[str, str]
"""What a picture shows: each attribute's value. The values of attributes in `COLOUR_ATTRIBUTES` are `#rrggbb`; what the
picture does not show is missing."""

COLOUR_ATTRIBUTES = frozenset({"clothes_colour", "background", "hat_colour", "hair_colour", "skin", "beard_colour"})

IDENTITY = ("hair_style", "hair_colour", "skin", "facial_hair")
"""The attributes that all pictures of one person share."""

HAIR: Mapping[str, Mapping[str, float]] = {
    "man": {
        "shortFlat": 5, "shortRound": 4, "shortWaved": 4, "shortCurly": 3, "theCaesar": 2, "theCaesarAndSidePart": 2,
        "sides": 3, "frizzle": 1, "dreads01": 1, "dreads02": 1, "shaggy": 1, "shaggyMullet": 1, "dreads": 1, "fro": 1,
        "bun": 1,
    },
    "woman": {
        "straight01": 4, "straight02": 3, "longButNotTooLong": 4, "bob": 4, "curly": 3, "curvy": 3, "bun": 3,
        "bigHair": 2, "straightAndStrand": 3, "miaWallace": 2, "shavedSides": 1, "dreads": 1, "fro": 1, "froBand": 1,
        "frida": 1, "shaggyMullet": 1,
    },
}  # fmt: skip
"""Hair styles by the figure's sex, with how often each is seen."""

BEARDS: Mapping[str, tuple[str, float]] = {
    "light beard": ("beardLight", 4), "medium beard": ("beardMedium", 4), "majestic beard": ("beardMajestic", 3),
    "fancy moustache": ("moustacheFancy", 1), "thick moustache": ("moustacheMagnum", 1),
}  # fmt: skip
"""Variants of `facialHair`, with how often each is seen."""

CLOTHES: Mapping[str, str] = {
    "suit": "blazerAndShirt", "blazer": "blazerAndSweater", "sweater": "collarAndSweater", "hoodie": "hoodie",
    "graphic shirt": "graphicShirt", "overalls": "overall", "t-shirt": "shirtCrewNeck", "scoop-neck": "shirtScoopNeck",
    "v-neck": "shirtVNeck",
}  # fmt: skip
GLASSES: Mapping[str, tuple[str, ...]] = {
    "glasses": ("prescription01", "prescription02"), "round glasses": ("round",), "eyepatch": ("eyepatch",),
    "sunglasses": ("sunglasses", "wayfarers", "kurt"),
}  # fmt: skip
HATS: Mapping[str, tuple[str, ...]] = {
    "hat": ("hat",), "winter hat": ("winterHat1", "winterHat02", "winterHat03", "winterHat04"), "turban": ("turban",),
    "hijab": ("hijab",),
}  # fmt: skip
EYES: Mapping[str, tuple[str, ...]] = {
    "open": ("default",), "closed": ("closed",), "winking": ("wink", "winkWacky"), "aside": ("side",),
    "surprised": ("surprised",), "in love": ("hearts",), "crying": ("cry",), "rolling": ("eyeRoll",),
    "squinting": ("squint",), "dizzy": ("xDizzy",), "happy": ("happy",),
}  # fmt: skip
MOUTHS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("default", "twinkle"), "smiling": ("smile",), "serious": ("serious",), "sad": ("sad",),
    "tongue": ("tongue",), "screaming": ("screamOpen",), "grimacing": ("grimace",), "eating": ("eating",),
    "doubtful": ("concerned", "disbelief"),
}  # fmt: skip
BROWS = (
    "default", "defaultNatural", "flatNatural", "raisedExcited", "raisedExcitedNatural", "upDown", "upDownNatural",
    "sadConcernedNatural", "frownNatural",
)  # fmt: skip
"""Any brows go with any mouth here."""

WORN = ("costume", "headgear")
KIND_ATTRIBUTES: Mapping[str, str] = {
    "place": "place", "costume": "worn", "headgear": "worn", "held": "held", "companion": "held"
}  # fmt: skip
"""The attribute that a kind of things is the value of."""


@dataclass(frozen=True)
class Person:
    """One person. Colours are `#rrggbb`."""

    number: int
    sex: str
    """man or woman: which hair styles the artwork gives."""
    noun: str
    """The class noun that the person is learned under."""
    hair_style: str
    hair_name: str
    hair: str
    skin_name: str
    skin: str
    facial_hair: str
    beard_name: str
    beard: str
    spectacles: str
    """The glasses that the person usually wears, or none."""

    def facts(self) -> dict[str, str]:
        """The person's own attributes."""
        shown = {name: getattr(self, name) for name in ("hair_style", "skin", "facial_hair")}
        beard = {} if self.facial_hair == "none" else {"beard_colour": self.beard}
        return {**shown, "hair_colour": self.hair, **beard}


HELD_OUT_SHARE = 8


def never_pretrained(hair_style: str, hair_name: str, skin_name: str, facial_hair: str) -> bool:
    """Whether pre-training keeps away from everybody with these attributes. It leaves out one in eight, by a hash."""
    digest = hashlib.sha256("|".join((hair_style, hair_name, skin_name, facial_hair)).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def person(number: int, seed: int = 0) -> Person:
    """One person that pre-training never showed; the same number and seed give the same."""
    random = Random(f"evaluation person {seed} {number}")
    sex = ("man", "woman")[number % 2]
    # Every second man has a beard: of any forty people, ten.
    bearded = number % 4 == 0
    while True:
        hair_name = palette.weighted(random, palette.HAIR_SHARES)
        skin_name = palette.weighted(random, palette.SKIN_SHARES)
        hair_style = palette.weighted(random, HAIR[sex])
        beard = palette.weighted(random, {name: share for name, (_, share) in BEARDS.items()}) if bearded else "none"
        if never_pretrained(hair_style, hair_name, skin_name, beard):
            break
    hair = palette.between(random, palette.HAIR[hair_name])
    differs = bearded and random.random() < 0.15
    beard_name = palette.weighted(random, palette.HAIR_SHARES) if differs else hair_name
    return Person(
        number, sex, "person" if random.random() < 0.1 else sex, hair_style, hair_name, hair, skin_name,
        palette.between(random, palette.SKIN[skin_name]), beard, beard_name,
        palette.between(random, palette.HAIR[beard_name]) if differs else hair,
        random.choice(("glasses", "round glasses")) if random.random() < 0.3 else "none",
    )  # fmt: skip


def people(count: int, seed: int = 0) -> list[Person]:
    """The first `count` people."""
    return [person(number, seed) for number in range(count)]


@dataclass(frozen=True)
class Look:
    """What one picture shows besides the person."""

    clothes: str
    clothes_colour: str
    background: str
    second: str = ""
    """Where not empty, the background goes over into this colour."""
    glasses: str = "none"
    hat: str = "none"
    hat_colour: str = "#d62828"
    eyes: str = "open"
    mouth: str = "neutral"
    things: tuple[str, ...] = ()
    camera: Camera = field(default_factory=Camera)
    size: tuple[int, int] = (1, 1)
    """Width and height, as a proportion."""


@dataclass(frozen=True)
class Picture:
    """One picture of a person; `seed` decides what has no name, such as the frames of glasses."""

    person: Person
    look: Look
    how: Print
    seed: int

    def hidden(self) -> set[str]:
        """What the things of the picture hide."""
        return set().union(*(things.THINGS[name].hides for name in self.look.things)) if self.look.things else set()

    def options(self) -> dict[str, object]:
        """The options of `dicebear.Avatar`, but for the camera's."""
        person, look, random, hidden = self.person, self.look, Random(self.seed), self.hidden()
        top = random.choice(HATS[look.hat]) if look.hat != "none" else person.hair_style
        worn = look.glasses != "none" and "glasses" not in hidden
        options: dict[str, object] = {
            "seed": str(self.seed), "skinColor": [person.skin], "hairColor": [person.hair],
            "topVariant": [top], "topProbability": 0 if "hair" in hidden else 100, "hatColor": [look.hat_colour],
            "facialHairVariant": [BEARDS[person.facial_hair][0] if person.facial_hair != "none" else "beardLight"],
            "facialHairProbability": 0 if person.facial_hair == "none" else 100, "facialHairColor": [person.beard],
            "accessoriesVariant": [random.choice(GLASSES[look.glasses] if worn else ("round",))],
            "accessoriesProbability": 100 if worn else 0,
            "accessoriesColor": [random.choice(("#262e33", "#3d2b1f", "#1b1b1d", "#25557c", "#5b2333"))],
            "clothesVariant": [CLOTHES[look.clothes]], "clothesColor": [look.clothes_colour],
            "clothesProbability": 0 if "clothes" in hidden else 100,
            "eyesVariant": [random.choice(EYES[look.eyes])], "mouthVariant": [random.choice(MOUTHS[look.mouth])],
            "eyebrowsVariant": [random.choice(BROWS)], "backgroundColor": [look.background],
        }  # fmt: skip
        if look.second:
            options |= {
                "backgroundColor": [look.background, look.second], "backgroundColorFill": "linear",
                "backgroundColorAngle": 0, "backgroundColorOrder": "fixed",
            }  # fmt: skip
        return options

    def image(self, shorter: int | None = None) -> Image.Image:
        """The picture, with `shorter` pixels on its shorter side before it is cropped."""
        across, down = self.look.size
        shorter = shorter or self.how.side
        width, height = (drawing.SIDE * one / min(across, down) for one in (across, down))
        definitions, background, figure = drawing.drawn("avataaars", self.options(), self.look.camera)
        figure = drawing.turned(figure, self.look.camera)
        behind, figure, front = drawing.with_things(figure, self.look.things, self.seed, self.person.skin)
        # The figure stands in the middle of the lower edge, whatever the picture's shape.
        box = ((drawing.SIDE - width) / 2, drawing.SIDE - height, width, height)
        document = drawing.composed((definitions, background, figure), behind, front, box)
        size = (round(shorter * across / min(across, down)), round(shorter * down / min(across, down)))
        return drawing.printed(drawing.rasterised(document, *size), self.how)

    def file(self) -> tuple[str, bytes]:
        """The suffix and the bytes of the picture's file."""
        return drawing.SUFFIX[self.how.format], drawing.encoded(self.image(), self.how)

    def facts(self) -> dict[str, str]:
        """What the picture shows."""
        look, hidden, tinted = self.look, self.hidden(), self.how.tinted
        shown = self.person.facts()
        shown |= {
            name: getattr(look, name) for name in ("clothes", "clothes_colour", "glasses", "hat", "eyes", "mouth")
        }
        shown |= {"background": look.background, "hat_colour": look.hat_colour, **camera_facts(look.camera)}
        shown |= {"plain": "no" if "background" in hidden or look.second or self.how.round else "yes"}
        shown |= {"place": "none", "worn": "none", "held": "none"}
        for name in look.things:
            shown[KIND_ATTRIBUTES[things.THINGS[name].kind]] = name
        unseen = set[str]()
        if look.hat != "none" or "hair" in hidden:
            unseen |= {"hair_style", "hair_colour"}
        if look.hat == "none":
            unseen.add("hat_colour")
        if look.glasses == "sunglasses":
            unseen.add("eyes")
        if "clothes" in hidden:
            unseen |= {"clothes", "clothes_colour"}
        elif shown["held"] != "none" or look.hat == "hijab":
            unseen.add("clothes_colour")  # too little of it is seen
        if shown["plain"] == "no":
            unseen.add("background")
        unseen |= hidden & {"glasses", "hat"}
        return {
            name: tinted(value) if name in COLOUR_ATTRIBUTES else value
            for name, value in shown.items()
            if name not in unseen
        }


def camera_facts(camera: Camera) -> dict[str, str]:
    """The pose in words. What people would argue about, such as a head that is tilted by 7 degrees, is missing."""
    shown = {}
    for name, value, low, high, words in (
        ("looking", camera.yaw, 6, 14, ("left", "ahead", "right")),
        ("raised", camera.pitch, 4, 9, ("up", "level", "down")),
        ("tilted", camera.turn, 5, 9, ("left", "no", "right")),
    ):
        if abs(value) <= low:
            shown[name] = words[1]
        elif abs(value) >= high:
            shown[name] = words[2] if value > 0 else words[0]
    if camera.scale >= 1.3 or camera.scale <= 0.74:
        shown["distance"] = "close" if camera.scale > 1 else "far"
    elif 0.88 <= camera.scale <= 1.12:
        shown["distance"] = "usual"
    return shown


ALBUM_SCALES, ALBUM_SHIFT, ALBUM_TURN = (0.85, 1.2), 8.0, 15.0
"""Least and most scale of an album's figures, largest shift in percent and largest turn in degrees."""


def album_camera(random: Random) -> Camera:
    """The pose of one picture of a lively album."""
    return Camera(
        random.uniform(*ALBUM_SCALES), random.uniform(-ALBUM_SHIFT, ALBUM_SHIFT),
        random.uniform(-ALBUM_SHIFT, ALBUM_SHIFT), random.uniform(-ALBUM_TURN, ALBUM_TURN), random.random() < 0.2,
    )  # fmt: skip


def sample_print(random: Random) -> Print:
    """The way one album's pictures are stored."""
    tint = tuple(round(random.uniform(0.95, 1.0), 3) for _ in range(3)) if random.random() < 0.4 else (1.0, 1.0, 1.0)
    shape = random.random()
    return Print(
        random.choice((256, 300, 400, 512, 640, 800)),
        width=random.uniform(0.8, 0.95) if shape < 0.2 else 1.0,
        height=random.uniform(0.88, 0.96) if 0.2 <= shape < 0.35 else 1.0,
        round=0.35 <= shape < 0.42,
        tint=tint,  # type: ignore[arg-type]
        format=random.choice(("PNG", "JPEG", "JPEG", "WEBP")),
        quality=random.randint(70, 95),
    )


def sample_look(random: Random, spectacles: str = "none") -> Look:
    """What one picture of an album shows. Nobody hides the hair under a hat."""
    worn = random.random()
    glasses = spectacles if spectacles != "none" and worn < 0.75 else "none"
    if spectacles == "none" and worn < 0.12:
        glasses = random.choice(tuple(GLASSES))
    clothes_colour, background, second = (palette.near(random, random.choice(list(palette.COLOURS.values())))
                                          for _ in range(3))  # fmt: skip
    return Look(
        random.choice(tuple(CLOTHES)), clothes_colour, background, second if random.random() < 0.12 else "", glasses,
        eyes="open" if random.random() < 0.55 else random.choice(tuple(EYES)),
        mouth=random.choice(("smiling", "neutral")) if random.random() < 0.55 else random.choice(tuple(MOUTHS)),
    )  # fmt: skip


def album(person: Person, count: int = 8, seed: int = 0) -> list[Picture]:
    """The pictures of one person's album. In three of four albums each picture has its own pose."""
    random = Random(f"evaluation album {seed} {person.number}")
    how, still = sample_print(random), random.random() < 0.25
    camera = album_camera(random)
    pictures = []
    for _ in range(count):
        look = sample_look(random, person.spectacles)
        look = replace(look, camera=camera if still else album_camera(random))
        pictures.append(Picture(person, look, how, random.getrandbits(32)))
    return pictures
