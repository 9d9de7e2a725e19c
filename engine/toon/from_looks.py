"""From what a person in photos looks like to drawings of that person: the album that is learned in their place.

This is the only module that knows both words for looks (`storage.looks`) and the drawn world's own.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from random import Random

from engine.toon import captions, world
from engine.toon.world import Look, Person, Scene
from storage import naming
from storage.looks import Looks, choice

GLASSES = "glasses"
"""The world's glasses of a person who wears some."""

_SKINS: Mapping[int, str] = {1: "pale", 2: "light", 3: "light", 4: "olive", 5: "brown", 6: "dark"}
"""The world's tone for each of the six that are read. It has five natural ones: the third is drawn as the nearest in
lightness."""

_HAIR_COLOURS: Mapping[str, str] = {
    "black": "black", "dark-brown": "dark brown", "brown": "brown", "blonde": "blonde", "red": "red", "grey": "gray",
}  # fmt: skip

_FACIAL_HAIRS: Mapping[str, str] = {
    "none": "none", "moustache": "thick moustache", "light-beard": "light beard", "full-beard": "medium beard",
}  # fmt: skip

_HAIR_STYLES: Mapping[str, Mapping[str, str]] = {
    "short": {"straight": "shortRound", "wavy": "shortWaved", "curly": "shortCurly", "coily": "dreads01"},
    "medium": {"straight": "bob", "wavy": "bob", "curly": "curly", "coily": "fro"},
    "long": {"straight": "straight01", "wavy": "curvy", "curly": "curvy", "coily": "dreads"},
}
"""The hair style by length and kind. The artwork's coily short hair is called short dreadlocks there."""

_OF_MEN: Mapping[tuple[str, str], str] = {
    ("short", "straight"): "shortFlat",
    ("medium", "straight"): "shaggyMullet",
    ("medium", "wavy"): "shaggyMullet",
    ("medium", "curly"): "dreads02",
}
"""Styles of men that differ."""

_BALD = "sides"

_MOUTHS = ("neutral", "smiling", "neutral", "serious", "neutral", "smiling", "sad", "neutral")
_RARE_MOUTHS = ("screaming", "grimacing", "doubtful", "tongue")
_EYES = ("open", "open", "closed", "open", "surprised", "open", "aside", "open")
_RARE_EYES = ("winking", "squinting", "happy")


def person_of(looks: Looks, noun: str) -> Person:
    """The drawn person who looks like this.

    Args:
        looks: as `storage.looks` describes them.
        noun: the class noun. A noun for men or women decides which styles of hair fit; with any other noun a person
            with a beard, a moustache, short hair or none is drawn as a man.
    """
    length, kind = choice(looks, "hair_length"), choice(looks, "hair_kind")
    man = figure_of(looks, noun) == "man"
    style = _BALD if length == "bald" else _HAIR_STYLES[length][kind]
    if man:
        style = _OF_MEN.get((length, kind), style)
    colour = choice(looks, "hair_colour")
    if colour not in _HAIR_COLOURS:
        # A bald head: what grows at the sides and in the beard is drawn in the colour that is most frequent with the
        # tone of the skin.
        colour = "black" if looks["skin"] >= 4 else "brown"
    return Person(
        noun="man" if man else "woman",
        hair_style=style,
        hair_colour=_HAIR_COLOURS[colour],
        skin=_SKINS[looks["skin"]],
        facial_hair=_FACIAL_HAIRS[choice(looks, "facial_hair")],
    )


def figure_of(looks: Looks, noun: str) -> str:
    """Whether the person is drawn as a "man" or a "woman"."""
    if noun in naming.MEN:
        return "man"
    if noun in naming.WOMEN:
        return "woman"
    bearded = choice(looks, "facial_hair") != "none"
    return "man" if bearded or choice(looks, "hair_length") in ("bald", "short") else "woman"


def album_of(looks: Looks, noun: str, count: int, seed: int) -> list[Scene]:
    """`count` drawings of one person: other clothes, colours and backgrounds in each, several expressions.

    A person with glasses wears them in six of eight pictures, dark ones in one and none in one; a person without them
    tries some on in two of eight, so that the word keeps its meaning.
    """
    person, random = person_of(looks, noun), Random(f"album {seed}")
    own = GLASSES if looks["glasses"] else "none"
    others = ["none" if own == GLASSES else GLASSES, "sunglasses"]
    worn = _spread(random, count, [*[own] * 6, *others])
    clothes = _spread(random, count, list(world.CLOTHES))
    colours = _spread(random, 2 * count, list(world.COLOURS))
    mouths = _spread(random, count, [*_MOUTHS[:-1], random.choice(_RARE_MOUTHS)])
    eyes = _spread(random, count, [*_EYES[:-1], random.choice(_RARE_EYES)])
    tilts = _spread(random, count, [*["none"] * 6, "left", "right"])
    distances = _spread(random, count, [*["usual"] * 6, "close-up", "afar"])
    scenes = []
    for number in range(count):
        look = Look(
            clothes=clothes[number],
            clothes_colour=colours[number],
            background=colours[count + number],
            glasses=worn[number],
            eyes=eyes[number],
            mouth=mouths[number],
            tilt=tilts[number],
            distance=distances[number],
        )
        if look.background == look.clothes_colour:
            look = replace(look, background="white" if look.clothes_colour != "white" else "blue")
        scenes.append(Scene(person, look, random.getrandbits(32)))
    return scenes


def _spread(random: Random, count: int, values: list[str]) -> list[str]:
    """`count` of the values, each as often as in the list as long as that lasts, in random order."""
    shuffled = random.sample(values, len(values))
    return list(islice(cycle(shuffled), count))


def captions_of(scene: Scene, instance: str, looks: Looks, count: int) -> list[str]:
    """`count` training captions of a drawing of `album_of`: they name what it shows besides the person.

    The glasses of a person who wears some are not named, so that training attributes them to the token.

    Args:
        instance: token and class noun, such as "cr7d man".
    """
    own = GLASSES if looks["glasses"] else "none"
    return [captions.instance_caption(instance, scene.look, Random(number), own) for number in range(count)]
