"""Captions of the drawn world's scenes, in many wordings, orders and lengths.

A caption names a random part of what the picture shows, so the base learns each word alone and among others. One thing
is never left out: a pose that differs from the usual one. It is told in words ("looking left") or as pose tokens
(`pose_tokens`), so that a prompt without them draws the usual pose, with sharp eyes and mouth.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from random import Random

from engine.cartoon.pose import LEVELS, Pose, level
from engine.cartoon.world import Look, Person, Scene
from engine.toon import colours, things
from engine.toon.captions import (
    CLOTHES,
    FACIAL_HAIRS,
    GLASSES,
    HAIR_ADJECTIVES,
    NOUNS,
    OF_TEMPLATES,
    OPENINGS,
    Candidate,
    Phrase,
    article,
    nonsense,
)
from engine.toon.lexicon import Lexicon

NEUTRAL = (
    "high quality", "detailed", "best quality", "simple", "flat design", 
    "vector art", "beautiful", "sharp", "clean", "colorful", "studio", "nice", "cute",
    "4k", "masterpiece", "highly detailed", "digital art", "professional", 
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
    "curvy": ("long wavy hair", "long curvy hair"), "frida": ("flowers in the hair", "hair with flowers"),
    "froBand": ("an afro with a headband", "an afro with a hair band"),
    "longButNotTooLong": ("shoulder-length hair", "medium long hair"),
    "miaWallace": ("a bob with bangs", "a bob with a fringe"),
    "shavedSides": ("long hair with shaved sides", "shaved sides"), "straight01": ("long straight hair", "long hair"),
    "straight02": ("very long straight hair", "long hair on one side"),
    "straightAndStrand": ("straight hair with bangs", "long straight hair with bangs"),
}  # fmt: skip

HAIR_COLOURS: Mapping[str, tuple[str, ...]] = {
    "auburn": ("auburn", "reddish brown"), "black": ("black", "black", "jet black"),
    "golden": ("golden", "dark blonde", "honey blonde"), "blonde": ("blonde", "blond"),
    "brown": ("brown", "chestnut"), "dark brown": ("dark brown",), "pink": ("pink",),
    "platinum": ("platinum", "platinum blonde", "very light blonde"), "red": ("red", "red", "ginger", "fiery red"),
    "gray": ("gray", "grey", "silver"), "white": ("white", "snow white"), "blue": ("blue",), "green": ("green",),
    "purple": ("purple", "violet"),
}  # fmt: skip


SKINS: Mapping[str, tuple[str, ...]] = {
    "very light": ("very light", "pale", "fair"), "light": ("light", "light", "peach"),
    "medium": ("medium", "olive"), "tan": ("tan", "tanned", "light brown"), "brown": ("brown", "brown", "medium brown"),
    "dark": ("dark", "very dark", "dark brown", "black"), "yellow": ("yellow",), "orange": ("orange",),
}  # fmt: skip


COLOURS: Mapping[str, tuple[str, ...]] = {
    "gray": ("gray", "grey"), "light gray": ("light gray", "light grey"), "red": ("red", "red", "bright red"),
    "green": ("green", "green", "bright green"),
}  # fmt: skip
"""Colours with several names; the name of every other colour is its key."""


HATS: Mapping[str, tuple[str, ...]] = {
    "hat": ("hat", "hat", "wide hat", "brimmed hat"),
    "winter hat": ("winter hat", "winter hat", "knitted winter hat", "beanie", "warm winter hat", "woolly hat",
                   "knit hat"),
    "turban": ("turban",), "hijab": ("hijab", "headscarf"),
}  # fmt: skip

EYES: Mapping[str, tuple[str, ...]] = {
    "open": ("eyes open", "open eyes"),
    "closed": ("eyes closed", "with closed eyes", "with eyes closed", "closed eyes", "eyes shut"),
    "winking": ("winking", "with a wink", "giving a wink"),
    "aside": ("looking aside", "looking to the side", "glancing sideways", "looking sideways", "looking away"),
    "surprised": ("surprised", "looking surprised", "with a surprised face", "with wide eyes", "astonished"),
    "in love": ("in love", "with heart eyes"), "crying": ("crying", "with a tear"),
    "rolling": ("rolling eyes", "rolling the eyes"), "squinting": ("squinting",), "dizzy": ("dizzy",),
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
    "doubtful": ("doubtful", "worried"), "eating": ("with full cheeks", "chewing"),
}  # fmt: skip

YAWS: Mapping[int, tuple[str, ...]] = {
    -3: ("looking left", "looking to the left", "facing left", "side view, looking left"),
    -2: ("looking left", "three-quarter view", "turned left", "head turned left", "face turned to the left"),
    -1: ("turned slightly left", "looking slightly left", "head turned slightly left"),
    0: ("facing the camera", "looking at the camera", "front view", "looking straight at the camera"),
    1: ("turned slightly right", "looking slightly right", "head turned slightly right"),
    2: ("looking right", "three-quarter view", "turned right", "head turned right", "face turned to the right"),
    3: ("looking right", "looking to the right", "facing right", "side view, looking right"),
}  # fmt: skip
PITCHES: Mapping[int, tuple[str, ...]] = {
    -2: ("from below", "looking up", "low angle", "chin up", "seen from below"),
    -1: ("slightly from below", "looking slightly up"),
    1: ("slightly from above", "looking slightly down"),
    2: ("from above", "looking down", "high angle", "chin down", "seen from above"),
}  # fmt: skip
ROLLS: Mapping[int, tuple[str, ...]] = {
    -3: ("tilted far to the left",),
    -2: ("tilted left", "tilted to the left", "leaning left", "head tilted left", "head tilted to the left"),
    -1: ("tilted slightly left",), 0: ("upright",), 1: ("tilted slightly right",),
    2: ("tilted right", "tilted to the right", "leaning right", "head tilted right", "head tilted to the right"),
    3: ("tilted far to the right",),
}  # fmt: skip
SCALES: Mapping[int, tuple[str, ...]] = {
    -3: ("from very far away", "tiny in the picture"),
    -2: ("from afar", "far away", "from a distance", "from far away", "zoomed out"),
    0: ("bust",),
    2: ("close-up", "close up", "closeup", "from close by", "zoomed in"),
    3: ("extreme close-up", "very close up"),
}  # fmt: skip
XS: Mapping[int, tuple[str, ...]] = {
    -2: ("on the left", "at the left edge"), 2: ("on the right", "at the right edge"), 0: ("centered", "in the middle"),
}  # fmt: skip
POSE_WORDS: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    "yaw": YAWS, "pitch": PITCHES, "roll": ROLLS, "scale": SCALES, "x": XS, "y": {},
}  # fmt: skip
"""Words for the intervals of `LEVELS`, by the pose's angle, size or shift."""


def colour(name: str, random: Random) -> str:
    """One of the names of a colour of `colours.CENTRES`."""
    return random.choice(COLOURS.get(name, (name,)))


def _hair(person: Person, random: Random) -> Phrase:
    style, shade = random.choice(HAIR_STYLES[person.hair_style]), random.choice(HAIR_COLOURS[person.hair_name])
    chance = random.random()
    if chance < 0.05 and person.hair_name in HAIR_ADJECTIVES:
        return ("before", random.choice(HAIR_ADJECTIVES[person.hair_name]))
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
        name = f"{random.choice(HAIR_COLOURS[person.beard_name])} {name}"
    return ("with", article(name))


def _clothes(look: Look, random: Random) -> Phrase:
    name = random.choice(CLOTHES[look.clothes])
    if random.random() < 0.75:
        name = f"{colour(look.clothes_name, random)} {name}"
    return ("wearing", article(name))


def _hat(look: Look, random: Random) -> Phrase:
    name = random.choice(HATS[look.hat])
    return ("wearing", article(f"{colour(look.hat_name, random)} {name}" if random.random() < 0.75 else name))


def _background(look: Look, random: Random) -> Phrase:
    shade = colour(look.background_name, random)
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


def _of_person(scene: Scene, random: Random, hidden: set[str]) -> list[Candidate]:
    person = scene.person
    skin = random.choice(SKINS[person.skin_name])
    covered = scene.look.hat != "none" or "hair" in hidden
    return [
        (0.0 if covered else 0.5, lambda: _hair(person, random)),
        (0.4, lambda: ("with", f"{skin} skin") if random.random() < 0.6 else ("before", f"{skin}-skinned")),
        (
            0.5 if person.facial_hair != "none" else 0.08 if person.noun == "man" else 0.0,
            lambda: _facial_hair(person, random),
        ),
    ]


def hidden_by(look: Look) -> set[str]:
    """What the things of a picture hide, such as "clothes"."""
    return set().union(*(things.THINGS[name].hides for name in look.things)) if look.things else set()


def _of_look(look: Look, random: Random) -> list[Candidate]:
    hidden = hidden_by(look)
    dark = look.glasses == "sunglasses"
    return [
        (0.0 if "clothes" in hidden else 0.65, lambda: _clothes(look, random)),
        (0.0 if "background" in hidden else 0.55, lambda: _background(look, random)),
        (0.7 if look.glasses != "none" else 0.06, lambda: _glasses(look, random)),
        (0.8 if look.hat != "none" else 0.0, lambda: _hat(look, random)),
        (0.0 if dark else 0.65 if look.eyes != "open" else 0.05, lambda: ("loose", random.choice(EYES[look.eyes]))),
        (0.65 if look.mouth != "neutral" else 0.05, lambda: ("loose", random.choice(MOUTHS[look.mouth]))),
        *((0.85, partial(_thing, name, random)) for name in look.things),
    ]


def _thing(name: str, random: Random) -> Phrase:
    return random.choice(things.phrases(things.THINGS[name]))


def _phrases(scene: Scene, random: Random) -> list[Phrase]:
    # Captions with few phrases are as frequent as full ones, since people write short prompts.
    fullness = random.choice((0.35, 0.8, 1.2, 1.6))
    candidates = _of_person(scene, random, hidden_by(scene.look)) + _of_look(scene.look, random)
    return [phrase() for chance, phrase in candidates if random.random() < chance * fullness]


def pose_token(name: str, number: int) -> str:
    """The token that tells the interval `number` of an angle, size or shift, such as `<yaw+2>`."""
    return f"<{name}{number:+d}>"


POSE_TOKENS = tuple(
    pose_token(name, number)
    for name, edges in LEVELS.items()
    for number in range(-((len(edges) - 2) // 2), (len(edges) - 2) // 2 + 1)
    if number
)
"""All tokens of poses. The usual pose has none."""


def pose_tokens(pose: Pose) -> str:
    """The tokens that tell a pose, in the order of `LEVELS`; empty for the usual pose."""
    numbers = {name: level(name, getattr(pose, name)) for name in LEVELS}
    return " ".join(pose_token(name, number) for name, number in numbers.items() if number)


def _pose(pose: Pose, random: Random) -> tuple[list[Phrase], str]:
    """A pose as phrases and tokens. What differs from the usual pose is told as the one, the other or both."""
    phrases, told = list[Phrase](), list[str]()
    for name in LEVELS:
        number = level(name, getattr(pose, name))
        words = POSE_WORDS[name].get(number, ())
        spoken = bool(words) and random.random() < (0.6 if number else 0.03)
        if spoken:
            phrases.append(("loose", random.choice(words)))
        if number and not (spoken and random.random() < 0.7):
            told.append(pose_token(name, number))
    return phrases, " ".join(told)


def _glasses(look: Look, random: Random) -> Phrase:
    name = random.choice(GLASSES[look.glasses])
    if look.glasses == "none":
        return ("loose", name)
    return (random.choice(("with", "wearing")), name)


def _joined(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def caption(scene: Scene, random: Random, least: int = 0) -> str:
    """A caption of the scene: lower-case English of 1 to about 60 tokens, correct but seldom complete.

    Args:
        least: the least number of phrases besides the noun and the pose, 0 to 4.
    """
    phrases = _phrases(scene, random)
    while len(phrases) < least:
        phrases = _phrases(scene, random)
    spoken, tokens = _pose(scene.look.pose, random)
    noun = random.choice(NOUNS[scene.person.noun])
    if random.random() < 0.12:
        noun = f"{nonsense(random)} {noun}"
    return f"{_assemble(noun, phrases + spoken, random)} {tokens}".strip()


def instance_caption(instance: str, look: Look, random: Random) -> str:
    """A training caption of an album's picture: `instance`, such as "cr7d man", and the look, without the identity.

    What the caption names is not attributed to the token in training. Half of the captions begin with the instance, as
    prompts do. The pose is told as tokens.
    """
    phrases = [phrase() for chance, phrase in _of_look(look, random) if chance >= 0.5 or random.random() < chance]
    return f"{_assemble(instance, phrases, random, bare=random.random() < 0.5)} {pose_tokens(look.pose)}".strip()


def describe_person(person: Person) -> str:
    """A person's identity in words: the prompt for drawing this person without an adapter."""
    style, shade = HAIR_STYLES[person.hair_style][0], HAIR_COLOURS[person.hair_name][0]
    hair = f"{shade} {style}" if "hair" in style.split()[-1:] else f"{style} and {shade} hair"
    beard = "" if person.facial_hair == "none" else f" and {article(FACIAL_HAIRS[person.facial_hair][0])}"
    return f"{person.noun} with {SKINS[person.skin_name][0]} skin, {hair}{beard}"


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


EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "places": ("place",), "costumes": ("costume",), "on the head": ("headgear",), "things": ("held", "companion"),
}  # fmt: skip
"""Kinds of things, by what people call them."""

EXAMPLES_MOST = 6
"""Most examples of one kind: those that people ask for most come first in the catalog."""


@cache
def lexicon() -> Lexicon:
    """What captions say: the words that the base can know."""
    tables = (
        NOUNS, HAIR_STYLES, HAIR_COLOURS, HAIR_ADJECTIVES, SKINS, FACIAL_HAIRS, CLOTHES, COLOURS, GLASSES, HATS, EYES,
        MOUTHS,
    )  # fmt: skip
    phrases = {name for table in tables for names in table.values() for name in names}
    phrases |= {name for table in POSE_WORDS.values() for names in table.values() for name in names}
    phrases |= {wording for thing in things.THINGS.values() for wording in thing.wordings}

    def examples(kinds: Sequence[str]) -> tuple[str, ...]:
        found = [thing.wordings[0] for thing in things.THINGS.values() if thing.kind in kinds]
        return tuple(found[:EXAMPLES_MOST])

    return Lexicon(
        frozenset({*phrases, *colours.CENTRES, *OPENINGS, *NEUTRAL, *OF_TEMPLATES}),
        {name: examples(kinds) for name, kinds in EXAMPLES.items()},
    )
