"""The prompts of the evaluation, in wordings of our own, and what a picture of each must show.

Each person has `COUNT` prompts of the same kinds. Values and wordings change from person to person, so forty people
together ask for every colour, garment, face and thing several times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.evaluation.palette import COLOURS


@dataclass(frozen=True)
class Prompt:
    """One prompt."""

    kind: str
    text: str
    """With `{who}` where token and class noun belong."""
    shows: Mapping[str, tuple[str, ...]]
    """What a picture of it must show: for each attribute the values that are right. Colours are names."""
    size: tuple[int, int] = (1, 1)
    """Width and height, as a proportion."""

    def of(self, who: str) -> str:
        """The prompt about somebody."""
        return self.text.replace("{who}", who)


CLOTHES: Mapping[str, tuple[str, ...]] = {
    "suit": ("suit", "elegant suit"), "blazer": ("blazer", "blazer with something knitted under it"),
    "sweater": ("sweater", "knit sweater"), "graphic shirt": ("shirt with a picture on it", "graphic tee"),
    "hoodie": ("hoodie", "comfy hoodie"), "overalls": ("pair of overalls", "pair of dungarees"),
    "t-shirt": ("t-shirt", "simple t-shirt"), "scoop-neck": ("scoop neck tee", "scoop neck top"),
    "v-neck": ("v-neck tee", "v-neck"),
}  # fmt: skip
LIKE: Mapping[str, tuple[str, ...]] = {"suit": ("suit", "blazer"), "blazer": ("blazer", "suit")}
"""Garments that people accept for each other."""

GLASSES: Mapping[str, tuple[str, ...]] = {
    "glasses": ("a pair of glasses", "reading glasses"), "round glasses": ("small round glasses", "round glasses on"),
    "sunglasses": ("cool sunglasses", "sunglasses on"), "eyepatch": ("an eyepatch on", "a black eye patch"),
    "none": ("no glasses on", "glasses taken off"),
}  # fmt: skip
EYES: Mapping[str, tuple[str, ...]] = {
    "closed": ("with both eyes closed", "with the eyes closed"), "winking": ("winking at you", "winking with one eye"),
    "surprised": ("totally surprised", "with very surprised eyes"),
    "in love": ("with hearts for eyes", "with heart eyes"),
    "crying": ("crying a tear", "crying"), "rolling": ("rolling both eyes", "annoyed, rolling eyes"),
    "squinting": ("squinting a bit", "squinting into the sun"),
    "aside": ("glancing to the side", "with eyes looking aside"),
    "happy": ("with happy laughing eyes", "with happy eyes"), "dizzy": ("feeling dizzy", "totally dizzy"),
}  # fmt: skip
MOUTHS: Mapping[str, tuple[str, ...]] = {
    "smiling": ("smiling at the camera", "with a wide smile", "being happy and smiling"),
    "serious": ("with a serious look", "being very serious"), "sad": ("so sad today", "with a sad mouth"),
    "tongue": ("sticking the tongue out", "with the tongue out"),
    "screaming": ("screaming out loud", "screaming with an open mouth"),
    "grimacing": ("making a grimace", "grimacing, teeth showing"),
    "doubtful": ("with a worried look", "looking worried"),
    "eating": ("chewing with full cheeks", "cheeks full of food"),
}  # fmt: skip
HATS: Mapping[str, tuple[str, ...]] = {
    "hat": ("hat",), "winter hat": ("winter hat", "beanie"), "turban": ("turban",), "hijab": ("hijab",)
}  # fmt: skip
POSES: Sequence[tuple[str, str, str]] = (
    ("looking", "left", "looking left"), ("looking", "right", "looking right"),
    ("distance", "close", "close-up"), ("distance", "far", "seen from far away"),
    ("looking", "left", "the face turned to the left"), ("looking", "right", "facing to the right"),
    ("tilted", "left", "the head tilted to the left"), ("tilted", "right", "the head tilted to the right"),
    ("raised", "up", "looking up"), ("raised", "down", "seen from above"),
    ("distance", "close", "a close up of the face"), ("distance", "far", "zoomed out"),
)  # fmt: skip
"""Attribute, value and words."""

PLACES: Mapping[str, tuple[str, ...]] = {
    "moon": ("on the moon", "walking on the moon"), "space": ("drifting through outer space", "in space"),
    "beach": ("at a sunny beach", "on the beach"), "snow": ("in the snow", "out in deep snow"),
    "forest": ("deep in the forest", "in a green forest"), "city": ("in a big city", "in the middle of the city"),
    "desert": ("in a hot desert", "lost in the desert"),
    "mountains": ("high up in the mountains", "in front of some mountains"),
    "kitchen": ("in a kitchen", "standing in my kitchen"), "office": ("sitting in the office", "in a boring office"),
    "underwater": ("deep under water", "swimming underwater"), "stage": ("up on a stage", "on the stage"),
    "library": ("in an old library", "at the library"), "rain": ("out in the rain", "in heavy rain"),
    "classroom": ("in a classroom", "in the classroom at school"),
    "castle": ("near an old castle", "in front of the castle"), "night": ("outside at night", "under the night sky"),
    "sunset": ("at sunset", "watching the sunset"), "paris": ("on a trip to paris", "near the eiffel tower"),
    "jungle": ("in a wild jungle", "in the deep jungle"),
}  # fmt: skip
COSTUMES: Mapping[str, tuple[str, ...]] = {
    "astronaut": ("as an astronaut", "dressed like an astronaut"), "pirate": ("as a pirate", "playing a fierce pirate"),
    "chef": ("as a french chef", "working as a chef"), "doctor": ("as a doctor", "working as a doctor"),
    "police": ("as a police officer on duty", "working for the police"),
    "firefighter": ("as a brave firefighter", "working as a firefighter"),
    "knight": ("as a knight", "as a brave knight in armor"), "king": ("as the king", "dressed like a king"),
    "wizard": ("as an old wizard", "dressed like a wizard"), "witch": ("as a scary witch", "dressed like a witch"),
    "cowboy": ("as a cowboy", "dressed like a cowboy"), "superhero": ("as a superhero", "dressed like a superhero"),
    "ninja": ("as a ninja", "dressed like a ninja"), "santa": ("as santa claus", "dressed like santa claus"),
    "viking": ("as a viking", "playing a wild viking"), "clown": ("as a funny clown", "dressed like a clown"),
    "vampire": ("as a vampire", "playing a scary vampire"), "detective": ("as a detective", "playing a detective"),
    "angel": ("as an angel", "dressed like an angel"), "samurai": ("as a samurai", "dressed like a samurai"),
    "nurse": ("as a nurse", "working as a nurse"), "farmer": ("as a farmer", "working as a farmer"),
}  # fmt: skip
HELD: Mapping[str, tuple[str, ...]] = {
    "pizza": ("eating pizza", "having a slice of pizza"), "ice-cream": ("eating an ice cream cone", "having ice cream"),
    "coffee": ("with a cup of hot coffee", "drinking some coffee"), "flowers": ("with some flowers", "holding flowers"),
    "book": ("reading a good book", "with a book in hand"), "balloon": ("with a balloon", "holding one balloon"),
    "guitar": ("playing guitar", "playing an old guitar"),
    "football": ("with a football", "holding the soccer ball"), "phone": ("with a phone in hand", "on the phone"),
    "microphone": ("singing into the microphone", "with a microphone"),
    "umbrella": ("holding an umbrella", "with an open umbrella"), "sword": ("with a sword", "holding up a sword"),
    "birthday-cake": ("with a birthday cake", "holding a cake with candles"),
    "laptop": ("with a laptop", "typing on a laptop"),
    "burger": ("eating a burger", "having a big burger"), "gift": ("holding a gift", "with a wrapped present"),
    "skateboard": ("with a skateboard", "carrying a skateboard"), "camera": ("with a camera", "holding an old camera"),
    "cat": ("with a cat", "with a cute little cat"), "dog": ("with a dog", "with a cute little dog"),
    "parrot": ("with a parrot", "with a colorful parrot"), "horse": ("with a horse", "standing by a horse"),
    "robot": ("with a robot", "with a friendly robot"), "teddy-bear": ("with a teddy bear", "with an old teddy bear"),
}  # fmt: skip
HEADGEAR: Mapping[str, tuple[str, ...]] = {
    "crown": ("with a crown", "with a crown on the head"), "top-hat": ("with a top hat", "with a fancy top hat"),
    "headphones": ("with headphones", "with headphones on"), "baseball-cap": ("with a baseball cap", "with a cap on"),
    "party-hat": ("with a party hat", "with a funny party hat"),
    "santa-hat": ("with a santa hat", "with a santa hat on"), "scarf": ("with a scarf", "with a warm scarf"),
    "flower-crown": ("with a crown of flowers", "with flowers on the head"),
    "bunny-ears": ("with bunny ears", "with bunny ears on"), "beret": ("with a beret", "with a french beret"),
}  # fmt: skip
THINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "place": PLACES, "worn": {**COSTUMES, **HEADGEAR}, "held": HELD
}  # fmt: skip
"""The things that are asked for, by attribute, with wordings."""

PLAIN = ("{who}", "show me {who}", "{who} please", "one nice picture, {who}", "here is {who}")
DRESSED = (
    "show {who} with {garment} on", "{who}: {garment}", "{garment} on {who}", "i want {who} to have {garment} on",
    "{who} has {garment} on today", "can you put {garment} on {who}?", "{who}, outfit: {garment}",
    "{who} looks great with {garment} on",
)  # fmt: skip
BEHIND = (
    "{who}, everything behind is {colour}", "{who} before a {colour} background", "{who} // {colour} background",
    "make the background {colour}: {who}", "{who}, plain {colour} background please", "{who} + {colour} backdrop",
)  # fmt: skip
BOTH = (
    "{who}, {garment}, {colour} background, nice light", "{who} has {garment} on, before a {colour} background",
    "i need {who} with {garment} on and the background {colour}", "{who} | {garment} | {colour} background",
    "make it {who}, {garment} and a {colour} backdrop",
)  # fmt: skip
FACE = (
    "{who} {face}", "here {who} {face}", "{who}, {face}, soft shadows", "funny: {who} {face}", "{who} {face} please",
    "show {who} {face}", "profile pic: {who} {face}",
)  # fmt: skip
WITH = (
    "{who} with {thing}", "show {who} with {thing}", "{who} & {thing}", "{who} should have {thing}",
    "{who} with {thing}, good mood",
)  # fmt: skip
SCENE = (
    "{who} {thing}", "show me {who} {thing}", "{who} {thing}, colorful", "how about {who} {thing}?",
    "imagine {who} {thing}", "{who} {thing} please", "my friend {who} {thing}", "i would love to see {who} {thing}",
)  # fmt: skip
TWO = ("{who} {thing}, {other}", "{who} {thing} and {other}", "show me {who} {thing} {other}", "{who} {other} {thing}")

CASES = (str, str, str.capitalize, str, str.upper, str.title, str)
ENDS = ("", "", "", ".", "!!", "", " pls")
"""Ways in which people type."""


def article(text: str) -> str:
    """A noun phrase with its indefinite article."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


class _Wheel:
    """Deals out the values of each list in turn, so that people together use all alike."""

    def __init__(self, person: int) -> None:
        self.person = person
        self.dealt: dict[str, int] = {}
        self.random = Random(f"evaluation prompts {person}")

    def deal(self, name: str, values: Sequence[str], each: int) -> str:
        """The next value. `each` is how many of them one person gets."""
        lap, at = divmod(self.person * each + self.dealt.get(name, 0), len(values))
        self.dealt[name] = self.dealt.get(name, 0) + 1
        order = list(values)
        Random(f"order {lap} of {name}").shuffle(order)
        return order[at]

    def word(self, words: Sequence[str]) -> str:
        return self.random.choice(list(words))

    def frame(self, frames: Sequence[str], **slots: str) -> str:
        """One of the frames with its slots filled, in the way that some people type. `{who}` stays as it is."""
        text = self.word(frames)
        for slot, value in slots.items():
            text = text.replace(f"{{{slot}}}", value)
        first, *others = text.split("{who}")
        case = self.random.choice(CASES)
        rest = [part if case is str.capitalize else case(part) for part in others]
        end = self.random.choice(ENDS) if text[-1].isalpha() and not text.endswith("please") else ""
        return "{who}".join((case(first), *rest)) + end

    def garment(self, each: int) -> tuple[str, dict[str, tuple[str, ...]]]:
        """Clothes with a colour, as words, and what they show."""
        name, colour = self.deal("clothes", tuple(CLOTHES), each), self.deal("clothes colour", tuple(COLOURS), each)
        words = self.word(CLOTHES[name])
        words = words.replace("pair of ", f"pair of {colour} ") if "pair of" in words else f"{colour} {words}"
        return article(words), {"clothes": LIKE.get(name, (name,)), "clothes_colour": (colour,)}


PER_PERSON: Mapping[str, int] = {
    "plain": 1, "clothes": 4, "background": 3, "both": 3, "glasses": 3, "eyes": 3, "mouth": 4, "hat": 2, "pose": 4,
    "place": 4, "costume": 4, "held": 4, "headgear": 2, "size": 2, "together": 2,
}  # fmt: skip
"""Prompts of each kind for one person."""

COUNT = sum(PER_PERSON.values())

GARMENTS = PER_PERSON["clothes"] + PER_PERSON["both"] + PER_PERSON["size"]
BACKGROUNDS = PER_PERSON["background"] + PER_PERSON["both"]


def prompts(person: int) -> list[Prompt]:
    """The prompts of the person with this number: always the same, in the order of `PER_PERSON`."""
    wheel = _Wheel(person)
    return [_prompt(kind, number, wheel) for kind, count in PER_PERSON.items() for number in range(count)]


def _prompt(kind: str, number: int, wheel: _Wheel) -> Prompt:
    """One prompt of a kind."""
    many = PER_PERSON[kind]
    if kind == "plain":
        return Prompt(kind, wheel.frame(PLAIN), {})
    if kind in ("clothes", "size"):
        garment, shows = wheel.garment(GARMENTS)
        size = (1, 1) if kind == "clothes" else ((2, 3), (3, 2))[number % 2]
        return Prompt(kind, wheel.frame(DRESSED, garment=garment), shows, size)
    if kind in ("background", "both"):
        colour = wheel.deal("background", tuple(COLOURS), BACKGROUNDS)
        if kind == "background":
            return Prompt(kind, wheel.frame(BEHIND, colour=colour), {"background": (colour,)})
        garment, shows = wheel.garment(GARMENTS)
        return Prompt(kind, wheel.frame(BOTH, garment=garment, colour=colour), {**shows, "background": (colour,)})
    if kind == "glasses":
        name = wheel.deal("glasses", tuple(GLASSES), many)
        return Prompt(kind, wheel.frame(WITH, thing=wheel.word(GLASSES[name])), {"glasses": (name,)})
    if kind in ("eyes", "mouth"):
        faces = EYES if kind == "eyes" else MOUTHS
        name = wheel.deal(kind, tuple(faces), many)
        return Prompt(kind, wheel.frame(FACE, face=wheel.word(faces[name])), {kind: (name,)})
    if kind == "hat":
        name, colour = wheel.deal("hat", tuple(HATS), many), wheel.deal("hat colour", tuple(COLOURS), many)
        words = article(f"{colour} {wheel.word(HATS[name])}")
        return Prompt(kind, wheel.frame(WITH, thing=words), {"hat": (name,), "hat_colour": (colour,)})
    if kind == "pose":
        chosen = wheel.deal("pose", tuple(words for _, _, words in POSES), many)
        attribute, value = next((name, value) for name, value, words in POSES if words == chosen)
        return Prompt(kind, wheel.frame(("{who}, {pose}", "{pose}: {who}", "{who}, {pose} please"), pose=chosen),
                      {attribute: (value,)})  # fmt: skip
    if kind == "together":
        place, other = (wheel.deal(f"together {name}", tuple(values), many)
                        for name, values in (("place", PLACES), ("other", {**COSTUMES, **HELD})))  # fmt: skip
        attribute = "worn" if other in COSTUMES else "held"
        words = wheel.word({**COSTUMES, **HELD}[other])
        text = wheel.frame(TWO, thing=words, other=wheel.word(PLACES[place]))
        return Prompt(kind, text, {"place": (place,), attribute: (other,)})
    things = {"place": PLACES, "costume": COSTUMES, "held": HELD, "headgear": HEADGEAR}[kind]
    name = wheel.deal(kind, tuple(things), many)
    attribute = {"place": "place", "held": "held"}.get(kind, "worn")
    shows = {attribute: (name,), **({"plain": ("no",)} if kind == "place" else {})}
    return Prompt(kind, wheel.frame(SCENE, thing=wheel.word(things[name])), shows)
