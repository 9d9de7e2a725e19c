"""What a scene shows, as classes and numbers: what models learn to read from captions and pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engine.cartoon import world
from engine.cartoon.captions import hidden_by
from engine.cartoon.pose import LEVELS, Pose, level
from engine.cartoon.world import Scene, rgb
from engine.toon import things

IDENTITY = ("hair_style", "hair_name", "skin_name", "facial_hair")
"""The attributes of identity, which all pictures of one person share."""


def _levels(name: str) -> tuple[str, ...]:
    most = (len(LEVELS[name]) - 2) // 2
    return tuple(str(number) for number in range(-most, most + 1))


def _things(*kinds: str) -> tuple[str, ...]:
    return ("none", *(name for name, thing in things.THINGS.items() if thing.kind in kinds))


ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "hair_style": tuple(dict.fromkeys((*world.HAIR_STYLES_OF["man"], *world.HAIR_STYLES_OF["woman"]))),
    "hair_name": tuple(world.HAIR_COLOURS),
    "skin_name": (*world.SKINS, *world.FANTASY_SKINS),
    "facial_hair": tuple(world.FACIAL_HAIRS),
    "beard_name": tuple(world.HAIR_COLOURS),
    "clothes": tuple(world.CLOTHES),
    "glasses": tuple(world.GLASSES),
    "hat": tuple(world.HATS),
    "eyes": tuple(world.EYES),
    "mouth": tuple(world.MOUTHS),
    "place": _things("place"),
    "worn": _things("costume", "headgear"),
    "held": _things("held", "companion"),
    **{name: _levels(name) for name in LEVELS},
}
"""Classes: for each attribute its values."""

COLOURS = ("clothes_colour", "background", "hat_colour", "hair", "skin", "beard")
"""Attributes that are colours: three numbers from 0 to 1 (sRGB)."""

POSE = ("yaw", "pitch", "roll", "scale", "x", "y")
"""The numbers of a pose, in the order of `pose_numbers`."""

UNSEEN = -100
"""The class of what a picture does not show; cross-entropy ignores it."""


@dataclass(frozen=True)
class Truth:
    """What one scene shows."""

    classes: Mapping[str, int]
    """Class numbers of ATTRIBUTES, `UNSEEN` for what cannot be seen."""
    colours: Mapping[str, tuple[float, float, float] | None]
    """The values of COLOURS, None for what cannot be seen."""
    pose: tuple[float, ...]
    """The numbers of POSE, scaled to about -1 to 1."""


def pose_numbers(pose: Pose) -> tuple[float, ...]:
    """A pose as six numbers of about -1 to 1; the scale by its logarithm."""
    return (
        pose.yaw / 40,
        pose.pitch / 20,
        pose.roll / 24,
        math.log2(pose.scale),
        pose.x * 4,
        pose.y * 5,
    )


def pose_of(numbers: tuple[float, ...]) -> Pose:
    """The inverse of `pose_numbers`."""
    yaw, pitch, roll, scale, x, y = numbers
    return Pose(yaw * 40, pitch * 20, roll * 24, 2**scale, x / 4, y / 5)


def truth(scene: Scene) -> Truth:
    """What a scene shows."""
    person, look = scene.person, scene.look
    hidden = hidden_by(look)
    shown: dict[str, str] = {**vars(person), **vars(look)}
    shown |= {name: str(level(name, getattr(look.pose, name))) for name in LEVELS}
    shown |= {"place": "none", "worn": "none", "held": "none"}
    for name in look.things:
        kind = things.THINGS[name].kind
        shown["place" if kind == "place" else "worn" if kind in ("costume", "headgear") else "held"] = name
    unseen = set[str]()
    if look.hat != "none" or "hair" in hidden:
        # A beard has the hair's colour too, but may be too small to show which of two similar ones it is.
        unseen |= {"hair_style", "hair_name", "hair"}
    if look.hat == "none":
        unseen.add("hat_colour")
    if person.facial_hair == "none":
        unseen |= {"beard_name", "beard"}
    if look.glasses == "sunglasses":
        unseen.add("eyes")
    if "clothes" in hidden:
        unseen |= {"clothes", "clothes_colour"}
    if "background" in hidden:
        unseen.add("background")
    classes = {
        name: UNSEEN if name in unseen else values.index(shown[name]) for name, values in ATTRIBUTES.items()
    }  # fmt: skip
    colours = {name: None if name in unseen else _unit(shown[name]) for name in COLOURS}
    return Truth(classes, colours, pose_numbers(look.pose))


def _unit(colour: str) -> tuple[float, float, float]:
    red, green, blue = rgb(colour)
    return red / 255, green / 255, blue / 255
