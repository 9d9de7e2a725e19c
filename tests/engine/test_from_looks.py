"""From looks to drawings: what was read is what is drawn, and the pictures of an album differ in all else."""

from collections import Counter
from dataclasses import asdict
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.photos.rules import PEOPLE, Rules
from engine.toon import world
from engine.toon.captions import instance_caption
from engine.toon.from_looks import album_of, captions_of, figure_of, person_of
from engine.toon.world import Person
from storage import naming
from storage.looks import CHOICES, corrected, unknown

LOOKS = st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in CHOICES.items()})


def looks_of(**choices: str) -> dict[str, object]:
    looks = unknown()
    for attribute, chosen in choices.items():
        looks = corrected(looks, attribute, chosen)
    return looks


@given(LOOKS, st.sampled_from(sorted(naming.PEOPLE)))
def test_everybody_can_be_drawn(choices: dict[str, str], noun: str) -> None:
    person = person_of(looks_of(**choices), noun)
    assert person.noun in ("man", "woman")
    assert person.hair_style in {*world.HAIR_STYLES_OF["man"], *world.HAIR_STYLES_OF["woman"]}
    assert person.hair_colour in world.HAIR_COLOURS and person.skin in world.SKINS
    assert person.facial_hair in world.FACIAL_HAIRS
    # What was read is drawn.
    assert (person.facial_hair == "none") == (choices["facial_hair"] == "none")
    assert ("beard" in person.facial_hair) == ("beard" in choices["facial_hair"])
    assert (person.hair_style == "sides") == (choices["hair_length"] == "bald")
    hair = {"grey": "gray", "dark-brown": "dark brown"}.get(choices["hair_colour"], choices["hair_colour"])
    assert person.hair_colour == hair
    assert person.skin not in ("yellow", "tanned")


@pytest.mark.parametrize("attribute", ["hair_length", "hair_colour", "facial_hair", "glasses"])
def test_each_choice_is_drawn_differently(attribute: str) -> None:
    for noun in ("man", "woman", "person"):
        drawn = set()
        for chosen in CHOICES[attribute]:
            looks = looks_of(**{attribute: chosen})
            worn = Counter(scene.look.glasses for scene in album_of(looks, noun, 8, 0)).most_common(1)[0][0]
            drawn.add((person_of(looks, noun), worn))
        assert len(drawn) == len(CHOICES[attribute])


def test_skin_never_gets_lighter_with_the_tone() -> None:
    def luma(tone: str) -> float:
        colour = world.SKINS[person_of(looks_of(skin=tone), "man").skin]
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    lightness = [luma(tone) for tone in CHOICES["skin"]]
    assert lightness == sorted(lightness, reverse=True) and len(set(lightness)) >= 5


def test_a_person_of_no_named_sex_is_drawn_by_beard_and_hair() -> None:
    for noun in naming.PEOPLE - naming.MEN - naming.WOMEN:
        assert figure_of(looks_of(facial_hair="full-beard", hair_length="long"), noun) == "man"
        assert figure_of(looks_of(facial_hair="none", hair_length="long"), noun) == "woman"
        assert figure_of(looks_of(facial_hair="none", hair_length="short"), noun) == "man"
    assert all(figure_of(looks_of(hair_length="long"), noun) == "man" for noun in naming.MEN)
    assert all(figure_of(looks_of(facial_hair="full-beard"), noun) == "woman" for noun in naming.WOMEN)


def test_a_bald_head_whose_hair_nobody_saw_is_drawn() -> None:
    for skin, colour in (("2", "brown"), ("6", "black")):
        looks = looks_of(skin=skin) | {"hair_length": "bald", "hair_colour": "none"}
        assert person_of(looks, "man") == Person("man", "sides", colour, {"2": "light", "6": "dark"}[skin], "none")


@settings(max_examples=30)
@given(st.sampled_from(["no", "yes"]), st.integers(0, 10**6))
def test_an_album_shows_one_person_in_many_ways(glasses: str, seed: int) -> None:
    looks = looks_of(glasses=glasses, facial_hair="full-beard")
    scenes = album_of(looks, "man", 8, seed)
    assert {scene.person for scene in scenes} == {person_of(looks, "man")}
    looked = [scene.look for scene in scenes]
    assert all(look.hat == "none" for look in looked)  # a hat hides the hair
    assert len({look.clothes for look in looked}) == 8
    assert len({look.clothes_colour for look in looked}) == 8
    assert len({look.background for look in looked}) >= 7
    assert all(look.background != look.clothes_colour for look in looked)
    assert len({look.mouth for look in looked}) == 5 and len({look.eyes for look in looked}) >= 4
    assert sum(look.eyes == "open" for look in looked) >= 4 and sum(look.tilt == "none" for look in looked) == 6
    worn = Counter(look.glasses for look in looked)
    assert worn == ({"glasses": 6, "none": 1, "sunglasses": 1} if glasses == "yes" else
                    {"none": 6, "glasses": 1, "sunglasses": 1})  # fmt: skip
    assert album_of(looks, "man", 8, seed) == scenes != album_of(looks, "man", 8, seed + 1)
    assert len({str(asdict(scene)) for scene in album_of(looks, "man", 20, seed)}) == 20


def test_captions_name_all_but_the_person() -> None:
    """What a caption names is not attributed to the token: glasses that belong to the person are not named."""
    glasses, without = ("glasses", "spectacles"), ("without glasses", "no glasses")
    for worn, seed in product(("yes", "no"), range(4)):
        looks = looks_of(glasses=worn, facial_hair="full-beard", hair_colour="red")
        for scene in album_of(looks, "man", 8, seed):
            texts = captions_of(scene, "cr7d man", looks, 18)
            assert len(texts) == 18 and all("cr7d man" in text for text in texts)
            assert not any(word in text for text in texts for word in ("beard", "red hair", "skin"))
            named = [any(word in text for word in glasses) for text in texts]
            if worn == "yes" and scene.look.glasses == "glasses":
                assert not any(named)
            elif worn == "yes" and scene.look.glasses == "none":
                assert all(any(word in text for word in without) for text in texts)
            elif worn == "no" and scene.look.glasses == "glasses":
                assert all(named)
            elif scene.look.glasses == "sunglasses":
                assert not any(word in text for text in texts for word in without)


def test_captions_of_other_albums_are_as_they_were() -> None:
    random = Random(3)
    looks = [world.sample_look(random) for _ in range(50)]
    assert [instance_caption("cr7d man", look, Random(1)) for look in looks] == [
        instance_caption("cr7d man", look, Random(1), "none") for look in looks
    ]


def test_photos_of_whoever_can_be_drawn_must_show_a_face() -> None:
    assert PEOPLE == naming.PEOPLE and not naming.MEN & naming.WOMEN
    assert all(Rules.for_noun(noun).faces == "required" for noun in naming.PEOPLE)
    assert Rules.for_noun("dog").faces == "ignored"
