"""Looks: what may be claimed, what is asked, and what a correction changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import UserError
from storage.looks import CHOICES, SURE, choice, corrected, hidden, is_sure, unknown, unsure

ANSWERS = st.sampled_from([(attribute, chosen) for attribute, choices in CHOICES.items() for chosen in choices])


@given(st.lists(ANSWERS, max_size=12))
def test_what_a_person_says_holds_until_they_say_otherwise(answers: list[tuple[str, str]]) -> None:
    looks = unknown()
    for attribute, chosen in answers:
        before = looks
        looks = corrected(looks, attribute, chosen)
        assert before.keys() == looks.keys()
    for attribute, chosen in dict(answers).items():
        assert choice(looks, attribute) == chosen
        assert attribute not in unsure(looks)


def test_everything_is_asked_of_somebody_unseen() -> None:
    assert unsure(unknown()) == ["hair_length", "hair_colour", "facial_hair", "skin", "glasses"]
    # A bald head has no hair to ask about.
    assert unsure(corrected(unknown(), "hair_length", "bald")) == ["facial_hair", "skin", "glasses"]
    assert hidden(corrected(unknown(), "hair_length", "bald")) == {"hair_colour", "hair_kind"}


@pytest.mark.parametrize(("confidence", "sure"), [(SURE, True), (SURE - 0.01, False)])
def test_the_limit_of_a_claim(confidence: float, sure: bool) -> None:
    looks = unknown() | {"confidence": {"skin": confidence}}
    assert is_sure(looks, "skin") is sure


def test_a_correction_drops_what_was_measured_of_something_else() -> None:
    looks = unknown() | {
        "hair_colour": "blonde",
        "hair_srgb": "#c0a060",
        "skin_srgb": "#e0b090",
        "beard_length": "full",
    }
    assert corrected(looks, "hair_colour", "red")["hair_srgb"] is None
    assert corrected(looks, "skin", "6") == {**looks, "skin": 6, "skin_srgb": None, "confidence": {
        **looks["confidence"], "skin": 1.0}}  # fmt: skip
    shaved = corrected(corrected(looks, "facial_hair", "beard"), "facial_hair", "none")
    assert (shaved["facial_hair"], shaved["beard_length"]) == ("none", None)


def test_brown_hair_is_dark_or_not_by_its_measured_colour() -> None:
    brown = unknown() | {"hair_colour": "brown"}
    assert choice(brown | {"hair_srgb": "#3a2a20"}, "hair_colour") == "dark-brown"
    assert choice(brown | {"hair_srgb": "#80604a"}, "hair_colour") == "brown"
    assert choice(brown | {"hair_srgb": None}, "hair_colour") == "brown"


def test_a_head_that_is_not_bald_after_all_has_a_colour_to_ask_about() -> None:
    bald = unknown() | {"hair_length": "bald", "hair_colour": "none", "confidence": {"hair_colour": 0.9, "skin": 0.9}}
    assert "hair_colour" not in unsure(bald)
    hairy = corrected(bald, "hair_length", "short")
    assert hairy["hair_colour"] == "brown" and "hair_colour" in unsure(hairy)


@pytest.mark.parametrize(("attribute", "chosen"), [("skin", "7"), ("glasses", "maybe"), ("age", "30"), ("skin", "")])
def test_a_choice_that_does_not_exist_is_refused(attribute: str, chosen: str) -> None:
    with pytest.raises(UserError, match="unknown_look"):
        corrected(unknown(), attribute, chosen)
