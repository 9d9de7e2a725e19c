"""What people type is drawn: every thing reads beside a face that stays free, and its files say where they are from."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.toon import things
from engine.toon.things import LAYERS, THINGS, fragments, phrases
from engine.toon.things.drawing import FLUENT, HAT_CLIP, OWN
from tests.engine.toon.drawn import HAIR, SKIN, Pixels, person, rendered

DRAWINGS = Path(things.__file__).parent / "drawings"
LICENSE = Path(__file__).parents[3] / "LICENSE"
FOOD = {"pizza", "ice-cream", "coffee", "burger", "doughnut", "popcorn", "beer", "apple", "birthday-cake", "microphone"}
EYES_AND_BROWS = ((slice(84, 130), slice(98, 128)), (slice(84, 130), slice(152, 182)))
MOUTH = (slice(147, 178), slice(116, 164))
MOUTH_WITHOUT_CORNERS = (slice(147, 178), slice(122, 158))
NAMES = sorted(THINGS)
PLAIN = cache(person)


def like(picture: Pixels, colour: str, tolerance: int = 6) -> int:
    """The number of a picture's pixels that have a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture[..., :3] - rgb).max(axis=-1) <= tolerance).sum())


def test_there_are_enough_of_each_kind() -> None:
    kinds = [thing.kind for thing in THINGS.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)}.keys() == {
        "place", "costume", "headgear", "held", "companion",
    }  # fmt: skip
    assert kinds.count("place") >= 25 and kinds.count("costume") >= 25 and kinds.count("held") >= 20
    assert all(thing.name == name for name, thing in THINGS.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_thing_is_seen_and_leaves_the_face_free(name: str, mirrored: bool) -> None:
    thing, seed = THINGS[name], 11 + mirrored
    plain, drawn = PLAIN(), person(thing, seed)
    changed = np.abs(drawn - plain).max(axis=-1) > 24
    assert changed.mean() >= 0.02, "less than 2 % of the picture shows it"
    assert not any(changed[box].any() for box in EYES_AND_BROWS)
    assert not changed[MOUTH_WITHOUT_CORNERS if name in FOOD else MOUTH].any()
    if len(thing.layers) > 1 and not mirrored:
        for layer in thing.layers:
            rest = person(thing, seed, without=layer)
            assert (np.abs(drawn - rest).max(axis=-1) > 24).any(), f"nothing of {layer} is seen"


@pytest.mark.parametrize("name", NAMES)
def test_the_drawing_is_fixed_by_the_seed_and_varies_with_it(name: str) -> None:
    thing = THINGS[name]
    assert fragments(thing, 3) == fragments(thing, 3)
    assert len({str(fragments(thing, seed)) for seed in range(12)}) > 1
    assert fragments(thing, 3, mirrored=True) != fragments(thing, 3, mirrored=False)


@pytest.mark.parametrize("name", [name for name in NAMES if THINGS[name].kind == "place"])
def test_a_place_fills_wide_and_tall_canvases(name: str) -> None:
    thing = THINGS[name]
    assert "background" in thing.hides
    for seed in range(3):
        behind = fragments(thing, seed)["behind"]
        box = "-120 -120 520 520"
        alpha = rendered(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{behind}</svg>', 130)[..., 3]
        assert alpha.min() == 255


@pytest.mark.parametrize("name", [name for name in NAMES if THINGS[name].hair_clip == HAT_CLIP])
def test_a_hat_covers_the_skull_and_the_hair_above_its_brim(name: str) -> None:
    """With the tallest hair, nothing of the hair or the bald skull is above the hat's brim; hair is below it."""
    drawn = person(THINGS[name], 5, top="fro")
    assert like(drawn[:52], HAIR) == 0
    assert like(drawn[:44, 80:200], SKIN) == 0
    assert like(drawn[80:], HAIR) > 500
    assert "hat" in THINGS[name].hides


@pytest.mark.parametrize("name", [name for name in NAMES if THINGS[name].kind == "costume"])
def test_a_costume_dresses_the_whole_body(name: str) -> None:
    """Where the clothes are hidden, no skin is seen below the collar but that of hands."""
    thing = THINGS[name]
    assert "clothes" in thing.hides
    body = person(thing, 2, without="front")
    assert like(body[242:], SKIN) == 0


def test_wordings_are_whole_phrases_of_one_thing_each() -> None:
    wordings = [wording for thing in THINGS.values() for wording in thing.wordings]
    assert len(wordings) == len(set(wordings))
    assert all(re.fullmatch(r"[a-z][a-z' -]*[a-z]", wording) for wording in wordings)
    assert all(len(thing.wordings) >= 3 for thing in THINGS.values())
    typed = {"on the moon", "as a pirate", "in a kitchen", "eating pizza", "with a cat", "with a crown", "in the snow"}
    assert typed | {"playing guitar", "as an astronaut", "dressed as a pirate", "wearing a crown"} <= set(wordings)


def test_phrases_name_the_slot_of_a_caption() -> None:
    cat, pizza, crown = (dict.fromkeys(phrases(THINGS[name])) for name in ("cat", "pizza", "crown"))
    assert ("with", "a cat") in cat and ("loose", "holding a cat") in cat
    assert ("loose", "eating pizza") in pizza
    assert ("wearing", "a crown") in crown


def test_colours_are_hex_and_used() -> None:
    for thing in THINGS.values():
        drawing = "".join(thing.layers.values())
        for placeholder, options in thing.colours.items():
            assert f"{{{placeholder}" in drawing, (thing.name, placeholder)
            assert all(re.fullmatch("#[0-9a-f]{6}", option) for option in options)


def test_ids_of_two_things_never_clash() -> None:
    for thing in THINGS.values():
        for found in re.findall(r'\bid="([^"]*)"', "".join(thing.layers.values())):
            assert found.startswith(f"{thing.name}-")


def test_sources_are_named() -> None:
    used = set()
    for thing in THINGS.values():
        icons = set(re.findall(r'href="icons/([\w-]+)\.svg"', (DRAWINGS / f"{thing.name}.svg").read_text("utf-8")))
        used |= icons
        assert thing.source == (FLUENT if icons else OWN), thing.name
        assert set(thing.layers) <= set(LAYERS) and thing.layers
    assert used == {path.stem for path in (DRAWINGS / "icons").iterdir()}
    assert {path.stem for path in DRAWINGS.glob("*.svg")} == set(THINGS)
    said = " ".join(LICENSE.read_text("utf-8").split())
    assert "engine/toon/things/drawings/icons" in said and "@iconify-json/fluent-emoji-flat 1.2.6" in said
    assert "Copyright (c) Microsoft Corporation" in said
