"""Photo albums: what was read is compared with what is drawn, by group."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation import albums, judging, palette, photos
from tests.evaluation.judging import Ruler, Trust
from tests.evaluation.painting import Refused, Request
from tests.evaluation.photos import Compared, agree, looks_of, paint_person, results_of

READ = {"skin": 2, "hair_colour": "brown", "hair_length": "short", "facial_hair": "beard", "glasses": False}


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A labelled person."""
    usual = {
        "person": f"p{number}", "files": ["a.jpg"], "sex": "male", "age": 25, "skin": 2,
        "hair_colour": ["brown", "black"], "hair_length": ["short"], "facial_hair": ["beard"], "glasses": False,
    }  # fmt: skip
    return usual | changes


def trusts(*names: str) -> Ruler:
    return Ruler([], {name: Trust("judge", 1.0, 100, (), 4) for name in names})


ALL = trusts("skin", "hair_colour", "hair_length", "beard_kind", "glasses")


def test_drawings_are_read_in_the_words_of_looks() -> None:
    people = albums.people(40)
    found = [looks_of(judging.widened(dict(person.facts()))) for person in people]
    tones = list(palette.SKIN)
    assert [one["skin"] for one in found] == [1 + tones.index(person.skin_name) for person in people]
    natural = [(one, person) for one, person in zip(found, people, strict=True) if person.hair_name in photos.GROUPS]
    assert all(one["hair_colour"] == photos.GROUPS[person.hair_name] for one, person in natural)
    assert {one["hair_length"] for one in found} >= {"bald", "short", "medium", "long"}
    assert looks_of({"glasses": "round glasses"}) == {"glasses": True}
    assert looks_of({"glasses": "eyepatch"}) == {"glasses": False} and looks_of({}) == {}


@pytest.mark.parametrize(
    ("name", "drawn", "wanted", "expected"),
    [
        ("skin", 3, 2, True), ("skin", 4, 2, False), ("hair_length", "tied", "long", True),
        ("hair_length", "tied", ["short"], False), ("hair_colour", "black", ["brown", "black"], True),
        ("hair_colour", "black", "none", None), ("hair_colour", "black", ["none"], None),
        ("glasses", True, False, False),
        ("facial_hair", "none", ["none"], True), ("facial_hair", "beard", ["none"], False), ("skin", 1, None, None),
        ("facial_hair", "moustache", "beard", False),
    ],
)  # fmt: skip
def test_what_counts_as_drawn_as_read(name: str, drawn: Any, wanted: Any, expected: bool | None) -> None:
    assert agree(name, drawn, wanted) is expected


def test_a_perfect_cartoonist_scores_everything() -> None:
    found = results_of([Compared(row(n), READ, [READ] * 4) for n in range(6)], ALL)
    assert found["drawn_as_read"] == dict.fromkeys((*photos.NAMES, "all"), 1.0) == found["drawn_as_labelled"]
    assert found["met"] is True and found["groups_behind"] == [] and "met" in photos.table(found)
    assert set(found["groups"]) == {"skin 1 and 2", "male", "under 30"}


def test_a_group_that_is_drawn_worse_is_named() -> None:
    dark = READ | {"skin": 6}
    compared = [Compared(row(n), READ, [READ]) for n in range(30)]
    compared += [Compared(row(n, skin=6, sex="female", age=60), dark, [READ]) for n in range(6)]
    found = results_of(compared, ALL)
    assert found["groups"]["skin 5 and 6"]["read"]["skin"] == 0 and found["drawn_as_read"]["all"] > 0.92
    assert found["groups_behind"] == ["50 and over", "female", "skin 5 and 6"] and found["met"] is False


def test_read_wrongly_but_drawn_as_read_is_told_apart() -> None:
    compared = [Compared(row(n, facial_hair=["none"]), READ, [READ]) for n in range(5)]
    found = results_of(compared, ALL)
    assert found["drawn_as_read"]["facial_hair"] == 1 and found["drawn_as_labelled"]["facial_hair"] == 0
    assert found["photos_read_as_labelled"]["facial_hair"] == 0


def test_what_no_reader_is_trusted_with_is_not_claimed() -> None:
    found = results_of([Compared(row(0), READ, [READ])], trusts("skin", "hair_colour"))
    assert found["not_measured"] == ["hair_length", "facial_hair", "glasses"] and found["met"] is None
    assert "Not measured" in photos.table(found)


def test_people_are_drawn_once_and_refused_ones_count(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "in" / "a.jpg")

    class Paints:
        learned = 0

        def learn(self, album: Path, token: str, noun: str, out: Path) -> dict[str, Any]:
            assert noun == "man" and [one.name for one in album.iterdir()] == ["a.jpg"]
            self.learned += 1
            return {}

        def draw(self, requests: Sequence[Request]) -> list[list[Image.Image]]:
            return [[Image.new("RGB", (16, 16), (at, 0, 0)) for at in range(one.count)] for one in requests]

    painter = Paints()

    def paint(read: Any, name: str = "p0") -> Any:
        return paint_person(row(0, person=name), tmp_path / "in", tmp_path / "out", "k", painter, read)

    def refused(files: Sequence[Path], noun: str) -> photos.Looks:
        raise Refused("no face")

    looks, drawn = paint(lambda files, noun: READ)
    assert looks == READ and len(drawn) == 4 * len(photos.ASKED)
    assert paint(refused)[0] == READ and painter.learned == 1
    looks, drawn = paint(refused, "p1")
    assert looks is None and drawn == []
    found = results_of([Compared(row(0), looks, [])], ALL)
    assert found["drawn_as_read"]["all"] == 0 and found["met"] is False


def test_labels_have_what_is_compared() -> None:
    if not photos.LABELS.exists():
        pytest.skip("the labels are not there yet")
    rows = json.loads(photos.LABELS.read_text("utf-8"))
    assert len(rows) >= 60 and all({"person", "files", "sex", *photos.NAMES} <= set(one) for one in rows)
    assert len({one["person"] for one in photos.chosen(rows, 20)}) == 20
