"""What a person in photos looks like, in a few words: an engine reads it, its owner corrects it, records keep it.

Looks are the JSON of `engine.photos.looks.Looks.to_json`. People answer in choices, one word for each attribute.
"""

from collections.abc import Mapping
from typing import Any

from storage.errors import UserError

Looks = Mapping[str, Any]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "hair_length": ("bald", "short", "medium", "long"),
    "hair_colour": ("black", "dark-brown", "brown", "blonde", "red", "grey"),
    "hair_kind": ("straight", "wavy", "curly", "coily"),
    "facial_hair": ("none", "moustache", "light-beard", "full-beard"),
    "skin": ("1", "2", "3", "4", "5", "6"),
    "glasses": ("no", "yes"),
}
"""The attributes that people can correct, and what they choose from. Skin 1 is the lightest."""

BEARD = "beard"
"""A beard of unsaid length, for which people may say this as well."""

SURE = 0.6
"""Confidence below which an attribute is asked instead of claimed."""

_OF_HAIR = frozenset({"hair_colour", "hair_kind"})
_BROWNS: Mapping[str, str] = {"dark-brown": "#4a312c", "brown": "#724133"}
_DARK = 62.0
"""Luma (ITU-R BT.601, 0 to 255) of brown hair below which people call it dark brown."""


def unknown() -> dict[str, Any]:
    """Looks of which nothing is known: every attribute is a guess with confidence 0."""
    guess: dict[str, Any] = {
        "skin": 3,
        "hair_colour": "brown",
        "hair_length": "short",
        "facial_hair": "none",
        "glasses": False,
        "hair_kind": "straight",
        "hair_tied": False,
        "beard_length": None,
        "skin_srgb": None,
        "hair_srgb": None,
        "photos": 0,
    }
    return guess | {"confidence": dict.fromkeys(CHOICES, 0.0)}


def choice(looks: Looks, attribute: str) -> str:
    """The choice of an attribute that these looks are. The hair colour of a bald head may be "none"."""
    value = looks.get(attribute)
    match attribute:
        case "skin":
            return str(value)
        case "glasses":
            return "yes" if value else "no"
        case "facial_hair" if value == "beard":
            return "light-beard" if looks.get("beard_length") == "light" else "full-beard"
        case "hair_colour" if value == "brown":
            return "dark-brown" if _luma(looks.get("hair_srgb")) < _DARK else "brown"
    return str(value or CHOICES[attribute][0])


def _luma(colour: str | None) -> float:
    if not colour:
        return 255.0
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def corrected(looks: Looks, attribute: str, chosen: str) -> dict[str, Any]:
    """The looks with one attribute as a person chose it. What was measured and contradicts the choice is dropped.

    Raises:
        UserError: `unknown_look` {attribute, chosen, choices} for a choice that does not exist.
    """
    if attribute == "facial_hair" and chosen == BEARD:
        chosen = "full-beard"
    choices = CHOICES.get(attribute, ())
    if chosen not in choices:
        raise UserError("unknown_look", attribute=attribute, chosen=chosen[:32], choices=[*choices])
    changed: dict[str, Any] = {attribute: chosen}
    confidence = {**looks.get("confidence", {}), attribute: 1.0}
    match attribute:
        case "skin":
            changed = {"skin": int(chosen), "skin_srgb": None}
        case "glasses":
            changed = {"glasses": chosen == "yes"}
        case "facial_hair":
            length, _, beard = chosen.rpartition("-")
            changed = {"facial_hair": beard, "beard_length": length or None}
        case "hair_colour":
            colour = "brown" if chosen in _BROWNS else chosen
            changed = {"hair_colour": colour, "hair_srgb": _BROWNS.get(chosen)}
        case "hair_length" if chosen != "bald" and looks.get("hair_colour") == "none":
            # The hair of a head that was taken for a bald one has a colour, which nobody has seen.
            changed |= {"hair_colour": "brown"}
            confidence["hair_colour"] = 0.0
    return {**looks, **changed, "confidence": confidence}


def unsure(looks: Looks) -> list[str]:
    """The attributes to ask about, in the order of CHOICES. A bald head has no hair to ask about."""
    return [attribute for attribute in CHOICES if attribute not in hidden(looks) and not is_sure(looks, attribute)]


def is_sure(looks: Looks, attribute: str) -> bool:
    """Whether the attribute may be claimed. Straight hair is never asked about: it is the usual drawing."""
    if attribute == "hair_kind" and looks.get("hair_kind", "straight") == "straight":
        return True
    return float(looks.get("confidence", {}).get(attribute, 0.0)) >= SURE


def hidden(looks: Looks) -> frozenset[str]:
    """The attributes that these looks do not show."""
    return _OF_HAIR if looks.get("hair_length") == "bald" else frozenset()
