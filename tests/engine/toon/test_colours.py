"""Colour names: what is sampled under a name is called that, and every colour has a name."""

import itertools
import math
from random import Random

import pytest

from engine.toon import world
from engine.toon.colours import ALSO, CENTRES, RADII, hex_of, names_of, oklab, rgb_of, sample


@pytest.mark.parametrize("name", sorted(CENTRES))
def test_a_sample_is_accepted_under_its_name(name: str) -> None:
    random = Random(name)
    colours = [sample(name, random) for _ in range(40)]
    assert all(name in names_of(colour) for colour in colours)
    assert len(set(colours)) > 20, "samples are continuous"
    assert names_of(rgb_of(CENTRES[name]))[0] == name


def test_there_are_enough_names() -> None:
    assert len(CENTRES) >= 66
    assert set(RADII) <= set(CENTRES) and set(ALSO) <= set(CENTRES)
    assert {also for wider in ALSO.values() for also in wider} <= set(CENTRES)
    asked = """red crimson scarlet maroon burgundy coral salmon orange peach gold yellow mustard lemon cream ivory beige
        tan khaki brown chocolate olive lime green mint sage emerald teal turquoise aqua cyan blue navy indigo lavender
        lilac purple violet plum magenta fuchsia pink rose white silver gray charcoal black""".split()
    assert set(asked) <= set(CENTRES)


def test_the_world_s_colours_keep_their_names() -> None:
    assert all(name in names_of(rgb_of(colour)) for name, colour in world.COLOURS.items())


def test_every_colour_has_a_name_that_is_not_far() -> None:
    """Over a grid of sRGB. The corner of pure black and the most vivid violets are the farthest from any centre."""
    centres = [oklab(rgb_of(colour)) for colour in CENTRES.values()]
    for rgb in itertools.product(range(0, 256, 51), repeat=3):
        assert names_of(rgb)
        assert min(math.dist(oklab(rgb), centre) for centre in centres) < (0.28 if max(rgb) < 40 else 0.15)


def test_names_are_those_that_people_give() -> None:
    assert names_of(rgb_of("#000080"))[-1] == "blue" and "navy" in names_of(rgb_of("#000080"))
    assert "teal" in names_of(rgb_of("#008080"))
    assert "gold" in names_of(rgb_of("#d4af37"))
    assert "turquoise" in names_of(rgb_of("#40e0d0"))
    assert names_of((0, 0, 0))[0] == "black" and "white" in names_of((255, 255, 255))
    assert "blue" not in names_of(rgb_of("#d93636")) and "green" not in names_of(rgb_of("#8a4fbf"))


def test_a_wider_name_follows_the_narrow_one() -> None:
    assert set(names_of(rgb_of(CENTRES["navy"]))) >= {"navy", "dark blue", "blue"}
    assert "red" in names_of(rgb_of(CENTRES["crimson"]))


def test_oklab_is_ottosson_s() -> None:
    """The corners of sRGB, as his reference implementation gives them."""
    assert oklab((255, 255, 255)) == pytest.approx((1.0, 0.0, 0.0), abs=1e-4)
    assert oklab((255, 0, 0)) == pytest.approx((0.62796, 0.22486, 0.12585), abs=1e-4)
    assert oklab((0, 0, 255)) == pytest.approx((0.45201, -0.03246, -0.31153), abs=1e-4)


def test_hex_and_numbers_agree() -> None:
    assert hex_of(rgb_of("#0f80ff")) == "#0f80ff"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        sample("octarine", Random(0))
