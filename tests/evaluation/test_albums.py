"""The albums of the evaluation: who is in them, that the truth is what is drawn, and that pre-training never saw it."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean

import pytest
from PIL import Image

from engine.cartoon import world
from engine.cartoon.pose import LEVELS, level, sample_pose
from engine.pretraining.pictures import scene_of
from engine.toon.colours import names_of
from tests.evaluation import albums, drawing, palette, strangers
from tests.evaluation.albums import COLOUR_ATTRIBUTES, Picture, album, people
from tests.evaluation.drawing import Print

FORTY = people(40)


def test_forty_people_are_as_mixed_as_the_people_that_bots_meet() -> None:
    men = [one for one in FORTY if one.sex == "man"]
    assert len(men) == 20 and sum(one.facial_hair != "none" for one in men) == 10
    assert all(one.facial_hair == "none" for one in FORTY if one.sex == "woman")
    assert len({one.facial_hair for one in men}) >= 4
    assert len({one.skin_name for one in FORTY}) == 6
    assert 6 <= sum(one.spectacles != "none" for one in FORTY) <= 18
    hair = Counter(one.hair_name for one in FORTY)
    assert len(hair) >= 6 and max(hair.values()) <= 16
    assert {one.noun for one in FORTY} == {"man", "woman", "person"}


def test_people_and_albums_are_the_same_every_time() -> None:
    assert people(3) == FORTY[:3] and people(3, seed=1) != FORTY[:3]
    first, again = album(FORTY[0]), album(FORTY[0])
    assert [one.file() for one in first[:2]] == [one.file() for one in again[:2]]
    assert album(FORTY[0], seed=1) != first


def test_pretraining_never_shows_these_people() -> None:
    def twin(one: albums.Person) -> world.Person:
        names = (one.hair_style, one.hair_name, one.hair, one.skin_name, one.skin, one.facial_hair)
        return world.Person(one.sex, *names, one.beard_name, one.beard, "#000000", 1.0, 1.0)

    assert all(twin(one).held_out for one in FORTY)
    seen = {
        (one.hair_style, one.hair_name, one.skin_name, one.facial_hair)
        for number in range(3000)
        for one in [scene_of(number, "square").person]
    }
    assert len(seen) > 1000
    assert not seen & {(one.hair_style, one.hair_name, one.skin_name, one.facial_hair) for one in FORTY}
    # The rule is the world's own, not a copy that has become another one.
    random = Random(0)
    for _ in range(300):
        one = world.sample_person(random, held_out=random.random() < 0.5)
        assert albums.never_pretrained(one.hair_style, one.hair_name, one.skin_name, one.facial_hair) == one.held_out


def test_albums_vary_in_ways_that_pretraining_does_not() -> None:
    pictures = [one for person in FORTY for one in album(person)]
    cameras = [one.look.camera for one in pictures]
    assert min(one.scale for one in cameras) < 0.87 and max(one.scale for one in cameras) > 1.18
    assert min(one.turn for one in cameras) < -13 and max(one.turn for one in cameras) > 13
    assert max(abs(one.x) for one in cameras) > 7 and max(abs(one.y) for one in cameras) > 7

    def unusual(values: dict[str, float]) -> int:
        return sum(level(name, value) != 0 for name, value in values.items())

    # Pre-training strews single values as widely, but mostly one at a time: here most pictures differ in several.
    here = [unusual({"roll": one.turn, "scale": one.scale, "x": one.x / 100, "y": one.y / 100}) for one in cameras]
    random = Random(0)
    there = [
        unusual({name: getattr(pose, name) for name in ("roll", "scale", "x", "y")})
        for pose in (sample_pose(random) for _ in range(3000))
    ]
    assert set(LEVELS) >= {"roll", "scale", "x", "y"}
    assert mean(here) > 1.5 * mean(there)
    # None of these is in a picture of pre-training at all.
    prints = [album(person)[0].how for person in FORTY]
    assert {one.format for one in prints} == {"PNG", "JPEG", "WEBP"} and len({one.side for one in prints}) >= 5
    assert any(one.round for one in prints) and any(one.tint != (1.0, 1.0, 1.0) for one in prints)
    assert any(one.width < 1 for one in prints) and any(one.height < 1 for one in prints)
    assert any(one.flip for one in cameras) and any(one.look.second for one in pictures)


def test_people_accept_the_names_of_these_colours_and_none_is_pretrainings_own() -> None:
    from engine.toon.colours import CENTRES

    assert len(palette.COLOURS) >= 60
    for name, value in palette.COLOURS.items():
        assert name in names_of(palette.rgb(value)), name
        assert value != CENTRES[name]
    assert set(palette.HAIR) == set(world.HAIR_COLOURS) and list(palette.SKIN) == list(world.SKINS)
    drawn = {value for name, values in world.HAIR_COLOURS.items() for value in values}
    assert not drawn & {value for values in palette.HAIR.values() for value in values}


def test_every_value_is_one_of_the_worlds() -> None:
    pairs = (
        (albums.CLOTHES, world.CLOTHES), (albums.GLASSES, world.GLASSES), (albums.HATS, world.HATS),
        (albums.EYES, world.EYES), (albums.MOUTHS, world.MOUTHS), (albums.BEARDS, world.FACIAL_HAIRS),
    )  # fmt: skip
    for ours, theirs in pairs:
        assert set(ours) <= set(theirs)
    for sex in ("man", "woman"):
        assert set(albums.HAIR[sex]) <= set(world.HAIR_STYLES_OF[sex])
    styles = set(albums.HAIR["man"]) | set(albums.HAIR["woman"])
    assert styles == set(strangers.LENGTHS)


def at(picture: Picture, image: Image.Image, x: float, y: float) -> str | None:
    """The colour at a point of the artwork; None if the picture does not show it."""
    x, y = (value / drawing.SIDE for value in picture.look.camera.place(x, y))
    how = picture.how
    across, down = (x - (1 - how.width) / 2) / how.width, (y - (1 - how.height)) / how.height
    if not (0.01 < across < 0.99 and 0.01 < down < 0.99):
        return None
    colour = image.getpixel((int(across * image.width), int(down * image.height)))
    assert isinstance(colour, tuple)
    return palette.text(tuple(float(value) for value in colour))


def near(one: str, other: str) -> bool:
    return all(abs(a - b) <= 9 for a, b in zip(palette.rgb(one), palette.rgb(other), strict=True))


def test_the_truth_is_what_is_drawn() -> None:
    checked = Counter[str]()
    for picture in (one for person in FORTY[:8] for one in album(person)):
        picture = replace(picture, how=replace(picture.how, round=False, format="PNG", side=200))
        image, facts = Image.open(io.BytesIO(picture.file()[1])), picture.facts()
        for name, x, y in (("skin", 140, 128), ("clothes_colour", 78, 268), ("clothes_colour", 202, 268)):
            colour = at(picture, image, x, y)
            covered = picture.person.hair_style in ("straight02", "dreads", "straight01", "bigHair", "curvy")
            if colour and not (name == "skin" and picture.look.glasses != "none") and not (name != "skin" and covered):
                assert near(colour, facts[name]), (picture, name, colour)
                checked[name] += 1
        if "background" in facts:
            corner = image.getpixel((image.width - 2, 1))
            assert isinstance(corner, tuple)
            assert near(palette.text(tuple(float(value) for value in corner)), facts["background"]) or (
                picture.look.camera.scale > 1.1
            )
            checked["background"] += 1
        document = "".join(drawing.drawn("avataaars", picture.options(), picture.look.camera))
        for component, variants in (
            ("eyes", albums.EYES[facts.get("eyes", picture.look.eyes)]), ("mouth", albums.MOUTHS[facts["mouth"]]),
            ("clothes", (albums.CLOTHES[facts["clothes"]],)), ("top", (facts["hair_style"],)),
            ("accessories", albums.GLASSES.get(facts["glasses"], ())),
        ):  # fmt: skip
            assert any(f'id="{component}-{variant}-' in document for variant in variants) == bool(variants)
            checked[component] += 1
        assert ('id="facialHair-' in document) == (facts["facial_hair"] != "none")
    assert len(checked) == 8 and min(checked.values()) > 25, checked


@pytest.mark.parametrize("flip", [False, True])
def test_places_of_the_artwork_are_found_in_a_moved_picture(flip: bool) -> None:
    camera = drawing.Camera(0.9, 5, -4, 12, flip)
    look = replace(albums.sample_look(Random(0)), glasses="eyepatch", second="", eyes="open", camera=camera)
    person = replace(FORTY[1], hair_style="bob", skin="#f4c8a2")
    picture = Picture(person, look, Print(400), 3)
    image = picture.image()
    patched, bare = (at(picture, image, x, 110) for x in (112, 190))
    assert patched and bare
    assert not near(patched, person.skin) and near(bare, person.skin), (patched, bare)


def test_hidden_things_are_not_said() -> None:
    look = albums.sample_look(Random(0))
    person = FORTY[0]

    def facts(**changes: object) -> dict[str, str]:
        return Picture(person, replace(look, second="", **changes), Print(), 1).facts()  # type: ignore[arg-type]

    assert "hair_style" not in facts(hat="turban") and facts(hat="turban")["hat"] == "turban"
    assert "eyes" not in facts(glasses="sunglasses") and "eyes" in facts(glasses="glasses")
    moon = facts(things=("moon",))
    assert "background" not in moon and moon["plain"] == "no" and moon["place"] == "moon"
    knight = facts(things=("knight",))
    assert not {"clothes", "hair_style", "clothes_colour"} & set(knight) and knight["worn"] == "knight"
    assert facts(things=("pizza",))["held"] == "pizza" and "hat_colour" not in facts()


@pytest.mark.parametrize("artwork", strangers.ARTWORKS)
def test_strangers_are_drawn_as_their_truth_says(artwork: str) -> None:
    from tests.evaluation.pixels import areas, distance, small

    for number in range(4):
        person = strangers.stranger(artwork, number)
        first = strangers.album(person)[0]
        assert first == strangers.album(person)[0]
        picture = replace(first, how=Print(256), camera=drawing.Camera())
        facts, found = picture.facts(), areas(small(picture.image()).reshape(-1, 3))
        for name in ("skin", "background", *(("hair_colour",) if "hair_colour" in facts else ())):
            share = sum(part for colour, part in found if distance(colour, facts[name]) < 0.05)
            assert share > 0.02, (picture, name)
        assert facts["beard_kind"] == ("none" if person.beard == "none" else facts["beard_kind"])
        assert set(facts) & COLOUR_ATTRIBUTES


def test_strangers_artworks_may_be_used_and_are_named() -> None:
    notices = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    for name in strangers.ARTWORKS:
        meta = drawing.artwork(name).meta()
        licence, creator = meta.license().name(), meta.creator().name()
        assert licence in ("CC0 1.0", "CC BY 4.0")
        assert creator in notices, f"LICENSE does not name {creator}"
