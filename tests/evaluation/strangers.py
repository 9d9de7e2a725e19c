"""Albums in other artworks: what a stranger draws with another program. They are reported apart.

The artworks come with `dicebear-styles`: "Open Peeps" by Pablo Stanley (CC0 1.0), "Micah" by Micah Lanier (CC BY 4.0)
and "ToonHead" by Johan Melin (CC BY 4.0). Only attributes that they share with the base's own world are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from PIL import Image

from tests.evaluation import drawing, palette
from tests.evaluation.albums import COLOUR_ATTRIBUTES, album_camera, sample_print
from tests.evaluation.drawing import Camera, Print

IDENTITY = ("hair_length", "hair_colour", "skin", "beard_kind")
"""The attributes that these artworks share with the base's own."""

LENGTHS: Mapping[str, str] = {
    "sides": "bald", "shortFlat": "short", "shortRound": "short", "shortWaved": "short", "shortCurly": "short",
    "theCaesar": "short", "theCaesarAndSidePart": "short", "frizzle": "short", "dreads01": "short",
    "dreads02": "short", "fro": "short", "froBand": "short", "shaggy": "short", "shaggyMullet": "medium",
    "bob": "medium", "miaWallace": "medium", "curly": "medium", "longButNotTooLong": "medium", "bigHair": "long",
    "curvy": "long", "dreads": "long", "shavedSides": "long", "straight01": "long", "straight02": "long",
    "straightAndStrand": "long", "bun": "tied", "frida": "tied",
}  # fmt: skip
"""The length of each hair style of the base's world."""

BEARD_KINDS: Mapping[str, str] = {
    "none": "none", "light beard": "beard", "medium beard": "beard", "majestic beard": "beard",
    "fancy moustache": "moustache", "thick moustache": "moustache",
}  # fmt: skip

INK = "#000000"
"""Hair without a colour is drawn in ink."""


@dataclass(frozen=True)
class Artwork:
    """What one artwork offers: names of its components and variants."""

    style: str
    hair: Mapping[str, Mapping[str, tuple[str, ...]]]
    """By sex: variants of hair, with the lengths that people would call them."""
    coloured: frozenset[str]
    """Variants of hair that have a colour."""
    beards: Mapping[str, str]
    """Variants of facial hair, with the kind."""
    beards_of_ink: bool
    glasses: Mapping[str, str]
    """Variants of glasses, with our name for them."""
    components: Mapping[str, str]
    """The artwork's names of `hair`, `beard`, `glasses` and `mouth`, and of the colours of skin, hair and clothes."""
    mouths: tuple[str, ...]
    fixed: Mapping[str, object]
    """Options of every picture."""


SHORT, MEDIUM, LONG, BALD = ("short",), ("medium", "short"), ("long", "medium"), ("bald",)

ARTWORKS: Mapping[str, Artwork] = {
    "open-peeps": Artwork(
        "open-peeps",
        {
            "man": {
                "short1": SHORT, "short2": SHORT, "grayShort": SHORT, "short4": SHORT, "pomp": SHORT, "noHair3": BALD,
                "flatTop": SHORT, "short5": SHORT,
            },
            "woman": {
                "bangs": MEDIUM, "mediumStraight": LONG, "long": LONG, "longCurly": LONG, "grayMedium": MEDIUM,
                "mediumBangs2": MEDIUM, "medium3": MEDIUM, "bangs2": MEDIUM,
            },
        },
        frozenset({"grayShort", "short4", "noHair3", "bangs", "grayMedium", "mediumBangs2"}),
        {"full2": "beard", "full3": "beard", "full": "beard", "moustache5": "moustache", "moustache3": "moustache"},
        True,
        {"glasses2": "round glasses", "glasses3": "glasses", "glasses5": "glasses", "sunglasses": "sunglasses"},
        {
            "hair": "head", "beard": "facialHair", "glasses": "accessories", "mouth": "expression", "skin": "skin",
            "hair colour": "headContrast", "clothes": "clothing",
        },
        ("smile", "calm", "serious", "smileBig", "cute", "explaining"),
        {"maskProbability": 0},
    ),
    "micah": Artwork(
        "micah",
        {
            "man": {"fonze": SHORT, "mrT": SHORT, "mrClean": BALD, "dannyPhantom": ("short", "medium")},
            "woman": {"full": LONG, "pixie": MEDIUM},
        },
        frozenset({"fonze", "mrT", "dannyPhantom", "full", "pixie"}),
        {"beard": "beard"},
        False,
        {"round": "round glasses", "square": "glasses"},
        {
            "hair": "hair", "beard": "facialHair", "glasses": "glasses", "mouth": "mouth", "skin": "base",
            "hair colour": "hair", "clothes": "shirt",
        },
        ("smile", "laughing", "smirk", "sad", "frown", "surprised"),
        {"earringsProbability": 0},
    ),
    "toon-head": Artwork(
        "toon-head",
        {
            "man": {"sideComed": SHORT, "spiky": SHORT, "undercut": SHORT},
            "woman": {"longStraight": LONG, "longWavy": LONG, "neckHigh": MEDIUM, "shoulderHigh": LONG},
        },
        frozenset({"sideComed", "spiky", "undercut", "longStraight", "longWavy", "neckHigh", "shoulderHigh"}),
        {"fullBeard": "beard", "longBeard": "beard", "moustacheTwirl": "moustache"},
        False,
        {},
        {
            "hair": "hair", "beard": "beard", "glasses": "", "mouth": "mouth", "skin": "skin", "hair colour": "hair",
            "clothes": "clothes",
        },
        ("smile", "laugh", "sad", "agape", "angry"),
        {},
    ),
}  # fmt: skip

REAR = frozenset({"longStraight", "longWavy", "neckHigh", "shoulderHigh"})
"""Hair of ToonHead that hangs behind the head; the hair in front is combed to a side."""


@dataclass(frozen=True)
class Stranger:
    """A person in another artwork."""

    number: int
    artwork: str
    sex: str
    noun: str
    hair_style: str
    """A variant of the artwork."""
    hair: str
    skin: str
    beard: str
    """A variant of the artwork, or none."""
    beard_colour: str
    spectacles: str
    """A variant of the artwork, or none."""

    def accepted(self) -> dict[str, tuple[str, ...]]:
        """What every picture of the person must show: for each attribute the values that are right."""
        own = ARTWORKS[self.artwork]
        lengths = own.hair[self.sex][self.hair_style]
        shown = {"hair_length": lengths, "skin": (self.skin,)}
        shown["beard_kind"] = (own.beards.get(self.beard, "none"),)
        return shown if lengths == BALD else {**shown, "hair_colour": (self.hair,)}


def stranger(artwork: str, number: int, seed: int = 0) -> Stranger:
    """One person of an artwork."""
    own, random = ARTWORKS[artwork], Random(f"stranger {artwork} {seed} {number}")
    sex = ("man", "woman")[number % 2]
    style = random.choice(tuple(own.hair[sex]))
    hair = palette.between(random, palette.HAIR[palette.weighted(random, palette.HAIR_SHARES)])
    hair = hair if style in own.coloured else INK
    beard = random.choice(tuple(own.beards)) if number % 4 == 0 else "none"
    beard_colour = INK if own.beards_of_ink else hair
    skin = palette.between(random, palette.SKIN[palette.weighted(random, palette.SKIN_SHARES)])
    spectacles = random.choice(tuple(own.glasses)) if own.glasses and random.random() < 0.3 else "none"
    return Stranger(number, artwork, sex, sex, style, hair, skin, beard, beard_colour, spectacles)


@dataclass(frozen=True)
class StrangerPicture:
    """One picture of a stranger."""

    person: Stranger
    mouth: str
    clothes_colour: str
    background: str
    glasses: str
    camera: Camera
    how: Print
    seed: int

    def options(self) -> dict[str, object]:
        """The options of `dicebear.Avatar`, but for the camera's."""
        person, own = self.person, ARTWORKS[self.person.artwork]
        names = own.components
        style = person.hair_style
        options: dict[str, object] = {
            **own.fixed, "seed": str(self.seed), f"{names['skin']}Color": [person.skin],
            f"{names['hair']}Variant": ["sideComed" if style in REAR else style],
            f"{names['hair colour']}Color": [person.hair], f"{names['clothes']}Color": [self.clothes_colour],
            f"{names['mouth']}Variant": [self.mouth], "backgroundColor": [self.background],
            f"{names['beard']}Probability": 0 if person.beard == "none" else 100,
        }  # fmt: skip
        if self.person.artwork == "toon-head":
            options["rearHairProbability"] = 100 if style in REAR else 0
            options["rearHairVariant"] = [style if style in REAR else "neckHigh"]
        if person.beard != "none":
            options[f"{names['beard']}Variant"] = [person.beard]
        if self.person.artwork == "micah":
            options["facialHairColor"] = [person.beard_colour]
            options["eyebrowsColor"] = [person.hair]
        if names["glasses"]:
            options[f"{names['glasses']}Probability"] = 0 if self.glasses == "none" else 100
            if self.glasses != "none":
                options[f"{names['glasses']}Variant"] = [self.glasses]
        return options

    def image(self, shorter: int | None = None) -> Image.Image:
        """The picture, with `shorter` pixels on its sides before it is cropped."""
        canvas = drawing.artwork(self.person.artwork).canvas()
        parts = drawing.drawn(self.person.artwork, self.options(), self.camera)
        document = drawing.composed(parts, "", "", (0, 0, canvas.width(), canvas.height()))
        side = shorter or self.how.side
        return drawing.printed(drawing.rasterised(document, side, side), self.how)

    def file(self) -> tuple[str, bytes]:
        """The suffix and the bytes of the picture's file."""
        return drawing.SUFFIX[self.how.format], drawing.encoded(self.image(), self.how)

    def facts(self) -> dict[str, str]:
        """What the picture shows, of what the artworks share with the base's world."""
        person, own = self.person, ARTWORKS[self.person.artwork]
        shown = {name: values[0] for name, values in person.accepted().items()}
        shown |= {"glasses": own.glasses.get(self.glasses, "none"), "hat": "none", "background": self.background}
        shown["plain"] = "no" if self.how.round else "yes"
        if self.how.round:
            del shown["background"]
        return {
            name: self.how.tinted(value) if name in COLOUR_ATTRIBUTES else value for name, value in shown.items()
        }  # fmt: skip


def album(person: Stranger, count: int = 8, seed: int = 0) -> list[StrangerPicture]:
    """The pictures of one stranger's album."""
    own, random = ARTWORKS[person.artwork], Random(f"stranger's album {person.artwork} {seed} {person.number}")
    how, still = sample_print(random), random.random() < 0.25
    camera = album_camera(random)
    pictures = []
    for _ in range(count):
        colours = [palette.near(random, random.choice(list(palette.COLOURS.values()))) for _ in range(2)]
        glasses = person.spectacles if random.random() < 0.75 else "none"
        pictures.append(
            StrangerPicture(
                person, random.choice(own.mouths), colours[0], colours[1], glasses,
                camera if still else album_camera(random), how, random.getrandbits(32),
            )
        )  # fmt: skip
    return pictures
