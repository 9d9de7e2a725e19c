"""Captions of the drawn world's scenes, in many wordings, orders and lengths.

A caption names a random part of what the picture shows, so the base learns each word alone and among others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random

from engine.toon import world as drawn
from engine.toon.lexicon import Lexicon
from engine.toon.world import Look, Person, Scene

NOUNS: Mapping[str, tuple[str, ...]] = {
    "man": ("man", "man", "man", "man", "man", "man", "person", "person", "guy", "gentleman", "male"),
    "woman": ("woman", "woman", "woman", "woman", "woman", "woman", "person", "person", "lady", "female"),
}

OPENINGS = (
    "a photo of", "a photo of", "a photo of", "photo of", "a portrait of", "portrait of", "a picture of", "picture of",
    "an avatar of", "avatar of", "a drawing of", "a cartoon of", "an illustration of", "a cartoon portrait of", "", "",
    "an image of", "image of", "a headshot of", "a profile picture of", "a vector portrait of", "a cartoon avatar of",
    "a painting of", "a picture showing", "draw", "a nice photo of",
)  # fmt: skip

NEUTRAL = (
    "high quality", "facing the camera", "detailed", "best quality", "simple", "flat design", "looking at the camera",
    "vector art", "beautiful", "sharp", "clean", "colorful", "close view of the face", "studio", "nice", "cute",
    "4k", "masterpiece", "highly detailed", "digital art", "professional", "centered", "looking straight at the camera",
    "soft light", "illustration", "handsome", "lovely", "neat", "portrait", "avatar", "cartoon style",
)  # fmt: skip
"""Phrases that people add to prompts and that mean nothing here: the base learns to ignore them."""

HAIR_STYLES: Mapping[str, tuple[str, ...]] = {
    "shortFlat": ("short hair", "short flat hair"), "shortRound": ("short round hair", "short rounded hair"),
    "shortWaved": ("short wavy hair",), "shortCurly": ("short curly hair",),
    "theCaesar": ("a caesar cut", "cropped hair", "a buzz cut"),
    "theCaesarAndSidePart": ("a caesar cut with a side part", "cropped hair with a side part"),
    "sides": ("a bald head", "hair only on the sides", "balding hair"), "frizzle": ("a quiff", "a frizzle"),
    "dreads01": ("short dreadlocks", "short dreads"), "dreads02": ("spiky hair", "wild spiky hair"),
    "shaggy": ("shaggy hair",), "shaggyMullet": ("a mullet", "a shaggy mullet"),
    "dreads": ("long dreadlocks", "long dreads"), "fro": ("an afro", "afro hair"), "bun": ("a bun", "hair in a bun"),
    "bigHair": ("big hair", "big wavy hair"), "bob": ("a bob", "bob hair"), "curly": ("curly hair", "big curly hair"),
    "curvy": ("long wavy hair", "long curvy hair"), "frida": ("flowers in the hair", "a flower crown"),
    "froBand": ("an afro with a headband", "an afro with a hair band"),
    "longButNotTooLong": ("shoulder-length hair", "medium long hair"),
    "miaWallace": ("a bob with bangs", "a bob with a fringe"),
    "shavedSides": ("long hair with shaved sides", "shaved sides"), "straight01": ("long straight hair", "long hair"),
    "straight02": ("very long straight hair", "long hair on one side"),
    "straightAndStrand": ("straight hair with bangs", "long straight hair with bangs"),
}  # fmt: skip

HAIR_COLOURS: Mapping[str, tuple[str, ...]] = {
    "auburn": ("auburn", "reddish brown"), "black": ("black", "black", "jet black"),
    "golden": ("golden", "dark blonde", "honey blonde"),
    "blonde": ("blonde", "blond"), "brown": ("brown", "chestnut"), "dark brown": ("dark brown",), "pink": ("pink",),
    "platinum": ("platinum", "platinum blonde", "very light blonde"), "red": ("red", "red", "ginger", "fiery red"),
    "gray": ("gray", "grey", "silver"),
}  # fmt: skip

HAIR_ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "blonde": ("blonde", "blond"), "red": ("ginger", "red-headed"), "brown": ("brunette",),
    "platinum": ("platinum blonde",),
}  # fmt: skip
"""Adjectives for people by the colour of their hair."""

SKINS: Mapping[str, tuple[str, ...]] = {
    "pale": ("pale", "pale", "fair", "very light"), "light": ("light", "light", "peach"),
    "tanned": ("tanned", "orange", "tan"), "olive": ("olive", "light brown"),
    "brown": ("brown",), "dark": ("dark", "very dark", "black"), "yellow": ("yellow",),
}  # fmt: skip

FACIAL_HAIRS: Mapping[str, tuple[str, ...]] = {
    "none": ("no beard", "clean-shaven", "without a beard", "shaved"),
    "light beard": ("light beard", "short beard", "goatee", "stubble", "beard"),
    "medium beard": ("medium beard", "beard", "full beard", "trimmed beard"),
    "majestic beard": ("majestic beard", "big beard", "long beard", "huge beard", "bushy beard", "beard"),
    "fancy moustache": ("fancy moustache", "thin moustache", "curled moustache", "moustache", "mustache"),
    "thick moustache": ("thick moustache", "bushy moustache", "big mustache", "moustache", "mustache"),
}  # fmt: skip

CLOTHES: Mapping[str, tuple[str, ...]] = {
    "suit": ("suit", "suit", "suit", "suit with a shirt", "suit jacket and shirt", "neat suit", "business suit",
             "formal suit"),
    "blazer": ("blazer", "blazer", "blazer over a sweater", "blazer and sweater"),
    "sweater": ("sweater", "sweater", "sweater with a collar", "pullover", "jumper", "knitted sweater"),
    "graphic shirt": ("graphic shirt", "graphic shirt", "shirt with a print", "graphic t-shirt", "printed t-shirt"),
    "hoodie": ("hoodie", "hoodie", "hooded sweater", "hooded sweatshirt", "hoody"),
    "overalls": ("overalls", "overalls", "dungarees", "bib overalls"),
    "t-shirt": ("t-shirt", "t-shirt", "tshirt", "crew neck shirt", "t shirt", "tee", "plain t-shirt"),
    "scoop-neck": ("scoop neck shirt", "scoop-neck", "scoop neck top", "scoop neck t-shirt"),
    "v-neck": ("v-neck", "v-neck shirt", "v neck", "v-neck t-shirt"),
}  # fmt: skip

COLOURS: Mapping[str, tuple[str, ...]] = {
    "gray": ("gray", "grey"), "light blue": ("light blue", "sky blue", "pale blue"),
    "dark blue": ("dark blue", "navy", "navy blue", "deep blue"),
    "light green": ("light green", "mint", "pale green"), "red": ("red", "red", "red", "bright red"),
    "green": ("green", "green", "green", "bright green"), "beige": ("beige", "cream"), "purple": ("purple", "violet"),
}  # fmt: skip
"""Colours with several names; the name of every other colour is its key."""

GLASSES: Mapping[str, tuple[str, ...]] = {
    "none": ("without glasses", "no glasses"),
    "glasses": ("glasses", "glasses", "black glasses", "square glasses", "spectacles", "eyeglasses"),
    "round glasses": ("round glasses", "round glasses", "thin round glasses", "circular glasses"),
    "sunglasses": ("sunglasses", "sunglasses", "dark sunglasses", "dark glasses", "shades"),
    "eyepatch": ("an eyepatch", "an eye patch", "an eyepatch over one eye"),
}  # fmt: skip

HATS: Mapping[str, tuple[str, ...]] = {
    "hat": ("hat", "hat", "wide hat", "brimmed hat"),
    "winter hat": ("winter hat", "winter hat", "knitted winter hat", "beanie", "warm winter hat", "woolly hat",
                   "knit hat"),
    "turban": ("turban",),
}  # fmt: skip

EYES: Mapping[str, tuple[str, ...]] = {
    "open": ("eyes open", "open eyes"),
    "closed": ("eyes closed", "with closed eyes", "with eyes closed", "closed eyes", "eyes shut"),
    "winking": ("winking", "with a wink", "giving a wink"),
    "aside": ("looking aside", "looking to the side", "glancing sideways", "looking sideways", "looking away"),
    "surprised": ("surprised", "looking surprised", "with a surprised face", "with wide eyes", "astonished"),
    "in love": ("in love", "with heart eyes"), "crying": ("crying", "with a tear"),
    "rolling": ("rolling eyes", "looking up"), "squinting": ("squinting",), "dizzy": ("dizzy",),
    "happy": ("with happy eyes", "with laughing eyes"),
}  # fmt: skip

MOUTHS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("with a neutral face",),
    "smiling": (
        "smiling", "smiling", "with a smile", "with a big smile", "happy", "grinning", "cheerful", "smiles",
    ),
    "serious": ("serious", "serious", "looking serious", "with a serious face", "not smiling", "stern"),
    "sad": ("sad", "sad", "looking sad", "with a sad face", "unhappy", "frowning"),
    "tongue": ("tongue out", "with tongue out", "sticking out the tongue", "tongue sticking out"),
    "screaming": ("screaming", "shouting", "mouth wide open", "yelling"), "grimacing": ("grimacing", "showing teeth"),
    "doubtful": ("doubtful", "worried"),
}  # fmt: skip

TILTS: Mapping[str, tuple[str, ...]] = {
    "none": ("upright",),
    "left": ("tilted left", "tilted to the left", "leaning left", "head tilted left", "head tilted to the left"),
    "right": ("tilted right", "tilted to the right", "leaning right", "head tilted right", "head tilted to the right"),
}  # fmt: skip

DISTANCES: Mapping[str, tuple[str, ...]] = {
    "usual": ("bust",), "close-up": ("close-up", "close up", "closeup", "from close by", "zoomed in"),
    "afar": ("from afar", "far away", "from a distance", "from far away", "zoomed out"),
}  # fmt: skip

Phrase = tuple[str, str]
"""A phrase's slot in the caption ("before" the noun, after "with", after "wearing", or "loose" after a comma) and its
text."""


NO_ARTICLE = ("overalls", "dungarees", "hair", "glasses", "sunglasses")
"""Nouns without an indefinite article."""


def colour(name: str, random: Random) -> str:
    """One of the names of a colour of `world.COLOURS`."""
    return random.choice(COLOURS.get(name, (name,)))


def article(text: str) -> str:
    """A noun phrase with its indefinite article, unless it starts with one or is plural."""
    first, last = text.split()[0], text.split()[-1]
    if first in ("a", "an", "no", "without", "stubble") or last in NO_ARTICLE:
        return text
    return f"{'an' if first[0] in 'aeiou' else 'a'} {text}"


def _hair(person: Person, random: Random) -> Phrase:
    style, shade = random.choice(HAIR_STYLES[person.hair_style]), random.choice(HAIR_COLOURS[person.hair_colour])
    chance = random.random()
    if chance < 0.05 and person.hair_colour in HAIR_ADJECTIVES:
        return ("before", random.choice(HAIR_ADJECTIVES[person.hair_colour]))
    if chance < 0.2:
        return ("with", style)
    if chance < 0.4 or "hair" not in style.split()[-1:]:
        return ("with", f"{style} and {shade} hair" if random.random() < 0.5 else f"{shade} hair, {style}")
    if chance < 0.5:
        return ("before", f"{shade}-haired")
    if chance < 0.65:
        return ("with", f"{shade} hair")
    words = style.split()
    words.insert(random.choice((0, len(words) - 1)), shade)
    return ("with", " ".join(words))


def _facial_hair(person: Person, random: Random) -> Phrase:
    name = random.choice(FACIAL_HAIRS[person.facial_hair])
    if person.facial_hair == "none":
        return ({"no": "with", "without": "loose"}.get(name.split()[0], "before"), name)
    if "beard" in name and random.random() < 0.15:
        return ("before", "bearded")
    if random.random() < 0.4:
        name = f"{random.choice(HAIR_COLOURS[person.hair_colour])} {name}"
    return ("with", article(name))


def _clothes(look: Look, random: Random) -> Phrase:
    name = random.choice(CLOTHES[look.clothes])
    if random.random() < 0.75:
        name = f"{colour(look.clothes_colour, random)} {name}"
    return ("wearing", article(name))


def _hat(look: Look, random: Random) -> Phrase:
    name = random.choice(HATS[look.hat])
    return ("wearing", article(f"{colour(look.hat_colour, random)} {name}" if random.random() < 0.75 else name))


def _background(look: Look, random: Random) -> Phrase:
    shade = colour(look.background, random)
    wordings = (
        f"{shade} background",
        f"{shade} background",
        f"on {article(shade)} background",
        f"{shade} backdrop",
        f"in front of {article(shade)} wall",
        f"with {article(shade)} background",
        f"background {shade}",
        f"against {article(shade)} background",
        f"{shade} wall behind",
    )
    return ("loose", random.choice(wordings))


Candidate = tuple[float, Callable[[], Phrase]]
"""The probability that a full caption has a phrase, and the function that makes the phrase."""


def _of_person(scene: Scene, random: Random) -> list[Candidate]:
    person = scene.person
    skin = random.choice(SKINS[person.skin])
    return [
        (0.5 if scene.look.hat == "none" else 0.0, lambda: _hair(person, random)),
        (0.4, lambda: ("with", f"{skin} skin") if random.random() < 0.6 else ("before", f"{skin}-skinned")),
        (0.5 if person.facial_hair != "none" else 0.06, lambda: _facial_hair(person, random)),
    ]


def _of_look(look: Look, random: Random, own_glasses: str = "none") -> list[Candidate]:
    dark = look.glasses == "sunglasses"
    glasses = 0.7 if look.glasses != own_glasses else 0.06 if own_glasses == "none" else 0.0
    return [
        (0.65, lambda: _clothes(look, random)),
        (0.55, lambda: _background(look, random)),
        (glasses, lambda: _glasses(look, random)),
        (0.8 if look.hat != "none" else 0.0, lambda: _hat(look, random)),
        (0.0 if dark else 0.65 if look.eyes != "open" else 0.05, lambda: ("loose", random.choice(EYES[look.eyes]))),
        (0.65 if look.mouth != "neutral" else 0.05, lambda: ("loose", random.choice(MOUTHS[look.mouth]))),
        (0.7 if look.tilt != "none" else 0.04, lambda: ("loose", random.choice(TILTS[look.tilt]))),
        (0.7 if look.distance != "usual" else 0.04, lambda: ("loose", random.choice(DISTANCES[look.distance]))),
    ]


def _phrases(scene: Scene, random: Random) -> list[Phrase]:
    # Captions with few phrases are as frequent as full ones, since people write short prompts.
    fullness = random.choice((0.35, 0.8, 1.2, 1.6))
    candidates = _of_person(scene, random) + _of_look(scene.look, random)
    return [phrase() for chance, phrase in candidates if random.random() < chance * fullness]


def _glasses(look: Look, random: Random) -> Phrase:
    name = random.choice(GLASSES[look.glasses])
    if look.glasses == "none":
        return ("loose", name)
    return (random.choice(("with", "wearing")), name)


def _joined(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def nonsense(random: Random) -> str:
    """A meaningless token such as `cr7d`. The base learns to ignore tokens, so that a LoRA can give one a meaning."""
    letters = "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(2, 5)))
    digit = str(random.randint(0, 9)) if random.random() < 0.7 else ""
    at = random.randint(1, len(letters))
    return letters[:at] + digit + letters[at:]


def caption(scene: Scene, random: Random, least: int = 0) -> str:
    """A caption of the scene: lower-case English of 1 to about 45 tokens, correct but seldom complete.

    Args:
        least: the least number of phrases besides the noun, 0 to 4.
    """
    phrases = _phrases(scene, random)
    while len(phrases) < least:
        phrases = _phrases(scene, random)
    noun = random.choice(NOUNS[scene.person.noun])
    if random.random() < 0.12:
        noun = f"{nonsense(random)} {noun}"
    return _assemble(noun, phrases, random)


def instance_caption(instance: str, look: Look, random: Random, own_glasses: str = "none") -> str:
    """A training caption of an album's picture: `instance`, such as "cr7d man", and the look, without the identity.

    What the caption names is not attributed to the token in training. Half of the captions begin with the instance, as
    prompts do.

    Args:
        own_glasses: the glasses that belong to the person: they are not named, but their absence is.
    """
    looks = _of_look(look, random, own_glasses)
    phrases = [phrase() for chance, phrase in looks if chance >= 0.5 or random.random() < chance]
    return _assemble(instance, phrases, random, bare=random.random() < 0.5)


def describe_person(person: Person) -> str:
    """A person's identity in words: the prompt for drawing this person without an adapter."""
    style, shade = HAIR_STYLES[person.hair_style][0], HAIR_COLOURS[person.hair_colour][0]
    hair = f"{shade} {style}" if "hair" in style.split()[-1:] else f"{style} and {shade} hair"
    beard = "" if person.facial_hair == "none" else f" and {article(FACIAL_HAIRS[person.facial_hair][0])}"
    return f"{person.noun} with {SKINS[person.skin][0]} skin, {hair}{beard}"


def _assemble(noun: str, phrases: list[Phrase], random: Random, bare: bool = False) -> str:
    """The caption: opening, noun phrase with its clauses, and loose phrases, in random order.

    Args:
        bare: without opening and article.
    """
    random.shuffle(phrases)
    texts: dict[str, list[str]] = {"before": [], "with": [], "wearing": [], "loose": []}
    for slot, text in phrases:
        texts[slot].append(text)
    loose = texts["loose"]
    noun = " ".join((*texts["before"], noun))
    noun_phrase = noun if bare or random.random() < 0.35 else article(noun)
    clauses = []
    if texts["with"]:
        clauses.append(random.choice((" with ", " with ", " with ", ", ", " who has ")) + _joined(texts["with"]))
    if texts["wearing"]:
        clauses.append(
            random.choice((" wearing ", ", wearing ", " in ", " in ", ", ", " dressed in ", " who wears "))
            + _joined(texts["wearing"])
        )
    if random.random() < 0.3:
        clauses.reverse()
    if random.random() < 0.25:
        loose.append(random.choice(NEUTRAL))
    random.shuffle(loose)
    front = loose.pop() + ", " if loose and random.random() < 0.12 else ""
    text = f"{'' if bare else random.choice(OPENINGS)} {noun_phrase}{''.join(clauses)}".strip()
    return (front + ", ".join((text, *loose))).lower()


OF_TEMPLATES = ("skin", "skinned", "haired", "bearded", "background", "backdrop", "wall behind", "in front of a wall")
"""What captions say around the words of the tables."""


@cache
def lexicon() -> Lexicon:
    """What captions say: the words that the base can know."""
    tables = (
        NOUNS, HAIR_STYLES, HAIR_COLOURS, HAIR_ADJECTIVES, SKINS, FACIAL_HAIRS, CLOTHES, COLOURS, GLASSES, HATS, EYES,
        MOUTHS, TILTS, DISTANCES,
    )  # fmt: skip
    phrases = {name for table in tables for names in table.values() for name in names}
    return Lexicon(
        frozenset({*phrases, *drawn.COLOURS, *OPENINGS, *NEUTRAL, *OF_TEMPLATES}),
        {
            "clothes": ("in a red hoodie", "in a suit", "in overalls", "in a sweater", "in a t-shirt"),
            "on the head": ("with sunglasses", "with round glasses", "with a winter hat", "with an eyepatch"),
            "expressions": ("tongue out", "smiling", "winking", "surprised", "sad"),
            "backgrounds": ("blue background", "pink background", "white background"),
        },
    )
