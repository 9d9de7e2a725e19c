"""The options that say what the person in photos looks like, for base models that draw people instead of learning
their photos. They import no torch."""

import argparse
from collections.abc import Mapping

from storage.errors import UserError
from storage.looks import BEARD, CHOICES, Looks, corrected, unknown

_HELP: Mapping[str, str] = {
    "hair_length": "length of the hair",
    "hair_colour": "colour of the hair",
    "hair_kind": "kind of hair",
    "facial_hair": "beard or moustache",
    "skin": "tone of the skin, 1 the lightest",
    "glasses": "whether the person wears glasses",
}


def option_of(attribute: str) -> str:
    """The option for an attribute of `CHOICES`."""
    return f"--{attribute.replace('_', '-')}"


def add_looks_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each attribute of a person's looks."""
    for attribute, choices in CHOICES.items():
        parser.add_argument(
            option_of(attribute),
            choices=(*choices, BEARD) if attribute == "facial_hair" else choices,
            help=f"{_HELP[attribute]}, if the base draws people (default: as read)",
        )


def given(asked: argparse.Namespace) -> dict[str, str]:
    """The choices that were given, by attribute."""
    values = {attribute: getattr(asked, attribute) for attribute in CHOICES}
    return {attribute: value for attribute, value in values.items() if value is not None}


def refuse_looks(asked: argparse.Namespace) -> None:
    """Refuse the options where pictures are learned as they are.

    Raises:
        UserError: `looks_unused` {option} if one was given.
    """
    for attribute in given(asked):
        raise UserError("looks_unused", option=option_of(attribute))


def with_given(looks: Looks | None, asked: argparse.Namespace) -> Looks:
    """The looks that were read, with those that were given in their place.

    Args:
        looks: None if no photo shows a face that can be read.
    Raises:
        UserError: `looks_unseen` if nothing was read, and not everything was given.
    """
    choices = given(asked)
    if looks is None:
        if choices.keys() < CHOICES.keys() - {"hair_kind"}:
            raise UserError("looks_unseen")
        looks = unknown()
    for attribute, chosen in choices.items():
        looks = corrected(looks, attribute, chosen)
    return looks
