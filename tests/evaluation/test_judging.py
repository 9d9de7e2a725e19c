"""Readers are trusted only where they are shown to be right, on this evaluation's renders."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.evaluation import albums, judging, pixels
from tests.evaluation.drawing import Print
from tests.evaluation.judging import (
    CartoonReader,
    PixelReader,
    Render,
    ToonReader,
    judge_of,
    kept_ruler,
    renders,
    right,
    ruler,
)
from tests.evaluation.prompts import Prompt


@pytest.fixture(scope="module")
def shown() -> list[Render]:
    return list(renders(1000, 48))


class Told:
    """A reader that knows the truth of renders, and errs as `wrong` says."""

    name = "told"

    def __init__(self, shown: Sequence[Render], **wrong: dict[str, str]) -> None:
        self.truth = {one.picture.tobytes(): one.accepted for one in shown}
        self.wrong = wrong

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        found = []
        for picture in pictures:
            values = {name: accepted[0] for name, accepted in self.truth[picture.tobytes()].items()}
            values = {name: value for name, value in values.items() if name not in albums.COLOUR_ATTRIBUTES}
            found.append({name: self.wrong.get(name, {}).get(value, value) for name, value in values.items()})
        return found


def test_a_reader_that_is_always_right_is_trusted_with_all_that_enough_renders_show(shown: list[Render]) -> None:
    found = ruler([Told(shown)], shown)
    for name in ("eyes", "mouth", "glasses", "clothes", "facial_hair"):
        assert found.trusts[name].trusted and found.trusts[name].right == 1, name
        assert not found.trusts[name].left_out
    assert found.counts("mouth", ("sad",)) and not found.counts("no such attribute", ("sad",))
    assert found.reading([shown[0].picture])[0]["clothes"] == shown[0].accepted["clothes"][0]


def test_values_that_a_reader_confuses_are_left_out_and_named(shown: list[Render]) -> None:
    found = ruler([Told(shown, mouth={"serious": "sad"})], shown)
    # A picture that is read as sad may be a serious one, so sad is no longer measured either until serious is gone.
    assert found.trusts["mouth"].trusted and found.trusts["mouth"].left_out == ("serious",)
    assert not found.counts("mouth", ("serious",)) and found.counts("mouth", ("sad",))
    assert any("without serious" in line for line in found.lines())


def test_a_reader_that_says_one_thing_of_all_pictures_is_not_trusted(shown: list[Render]) -> None:
    always = {value: "none" for value in (*albums.GLASSES, "none")}
    found = ruler([Told(shown, glasses=always)], shown)
    assert not found.trusts["glasses"].trusted and not found.counts("glasses", ("none",))
    assert "glasses" not in found.reading([shown[0].picture])[0]
    assert any(line.startswith("glasses: NOT measured") for line in found.lines())


def test_an_attribute_is_measured_where_prompts_ask_for_it(shown: list[Render]) -> None:
    class Blinded(Told):
        """Reads no eyes of people in costume, nor of turned heads."""

        def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
            found = super().read(pictures)
            for one in found:
                if one["worn"] != "none" or one.get("looking") != "ahead":
                    one["eyes"], one["facial_hair"] = "dizzy", "none"
            return found

    found = ruler([Blinded(shown)], shown)
    assert found.trusts["eyes"].trusted and not found.trusts["eyes"].left_out
    # Beards are scored in every picture of a person, so they must be read in every picture.
    assert not found.trusts["facial_hair"].trusted


def test_the_better_of_two_readers_is_asked(shown: list[Render]) -> None:
    bad = Told(shown, eyes={value: "open" for value in albums.EYES})
    bad.name = "bad"
    assert ruler([bad, Told(shown)], shown).trusts["eyes"].reader == "told"
    assert ruler([Told(shown), bad], shown).trusts["eyes"].reader == "told"


def test_colours_and_backgrounds_are_measured_without_a_model() -> None:
    found = ruler([PixelReader()], list(renders(300, 128, seed=5)))
    for name in ("background", "clothes_colour", "plain"):
        assert found.trusts[name].trusted, found.lines()


def test_renders_show_what_is_asked() -> None:
    random = Random(1)
    for shows in (
        {"clothes": ("hoodie",), "clothes_colour": ("teal",), "background": ("gold",)}, {"looking": ("left",)},
        {"distance": ("far",)}, {"distance": ("close",)}, {"tilted": ("right",)}, {"raised": ("up",)},
        {"place": ("moon",), "worn": ("astronaut",)}, {"eyes": ("crying",)}, {"hat": ("hijab",)},
    ):  # fmt: skip
        for number in range(4):
            prompt = Prompt("x", "{who}", shows)
            accepted = judging.rendered(albums.person(number), prompt, random, 64).accepted
            for name, values in shows.items():
                assert accepted[name] == values
            facts = albums.Picture(albums.person(number), judging.look_of(shows, random), Print(64), 1).facts()
            assert all(right(name, facts[name], values) for name, values in shows.items())


def test_colours_count_by_name_or_by_looks() -> None:
    assert right("clothes_colour", "#16817f", ("teal",)) and not right("clothes_colour", "#d62828", ("teal",))
    assert right("clothes_colour", "#1d2c5a", ("dark blue",))  # navy is a dark blue
    assert right("skin", "#f2c8a4", ("#f4c8a2",)) and not right("skin", "#97603c", ("#f4c8a2",))
    assert right("clothes", "blazer", ("suit",)) and not right("clothes", "hoodie", ("suit",))


def test_heads_are_counted() -> None:
    person = dataclasses.replace(albums.person(2), hair_style="shortFlat")
    for size in ((1, 1), (2, 3), (3, 2)):
        look = judging.look_of({"clothes": ("sweater",), "background": ("teal",)}, Random(0))
        look = dataclasses.replace(look, size=size, glasses="none")
        picture = albums.Picture(person, look, Print(128), 3).image()
        assert pixels.heads(picture, person.skin) == 1
        double = Image.new("RGB", (2 * picture.width, picture.height))
        double.paste(picture, (0, 0))
        double.paste(picture, (picture.width, 0))
        assert pixels.heads(double, person.skin) == 2
    # Eleven small heads are not one head.
    crowd = Image.new("RGB", (512, 768), "white")
    for number in range(11):
        crowd.paste(picture.resize((120, 80)), (number % 4 * 128, number // 4 * 190))
    assert pixels.heads(crowd, person.skin) != 1


def test_measuring_is_done_once_for_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "readers.json"
    first = kept_ruler([PixelReader()], file, "a", 40, 64)
    monkeypatch.setattr(judging, "renders", lambda count, side: [])
    assert kept_ruler([PixelReader()], file, "a", 40, 64).trusts == first.trusts
    assert kept_ruler([PixelReader()], file, "b", 40, 64).trusts == {}


def test_the_judge_of_either_world_reads_in_the_same_words(tmp_path: Path) -> None:
    from engine.cartoon.judge import Judge

    (tmp_path / "judge").mkdir()
    save_file(
        {name: one.contiguous() for name, one in Judge().state_dict().items()}, tmp_path / "judge" / "judge.safetensors"
    )
    new, old = judge_of(tmp_path), judge_of(Path(__file__).parents[2] / "engine" / "toon" / "weights")
    assert isinstance(new, CartoonReader)
    picture = albums.album(albums.person(0))[0].image(128)
    [read] = new.read([picture])
    assert {"hair_style", "hair_colour", "skin", "beard_kind", "hair_length", "looking", "place", "worn"} <= set(read)
    assert all(read[name].startswith("#") for name in albums.COLOUR_ATTRIBUTES)
    if isinstance(old, ToonReader):  # until the new weights are there
        assert {"hair_style", "hair_colour", "skin", "tilted"} <= set(old.read([picture])[0])
