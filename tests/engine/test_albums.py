"""What becomes of photos: learned as they are, or drawn, as the base model's family asks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.__main__ import main
from engine.bases.families import FAMILIES, TOON, Family
from engine.learning.albums import knows, open_album, picture_count
from engine.learning.examples import instance_prompts
from engine.measuring.evaluation import people
from engine.photos.faces import Face
from engine.photos.inspection import Verdict
from engine.photos.looks import Looks
from engine.photos.selection import select
from engine.toon.judge import Judge
from engine.toon.world import album, render
from storage import naming
from storage.errors import UserError
from storage.looks import CHOICES, corrected, unknown
from tests.engine.tiny import LORA

LOOKS = corrected(corrected(unknown(), "facial_hair", "full-beard"), "glasses", "yes")
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
DRAWING = render(album(people(1)[0], 1, seed=0)[0])


def read(photos: Sequence[Image.Image]) -> dict[str, Any]:
    assert list(photos) == [PHOTO] * len(photos)
    return LOOKS


def unread(photos: Sequence[Image.Image]) -> dict[str, Any]:
    raise AssertionError("nobody is to be read here")


# Which pictures


@given(st.lists(st.booleans(), min_size=1, max_size=10))
def test_photos_and_drawings_are_never_mixed(drawn: list[bool]) -> None:
    found = select(True, drawn)
    chosen = [drawn[number] for number in found.chosen]
    assert set(chosen) == {not found.redrawn} and len(chosen) + found.left_out == len(drawn)
    assert found.redrawn == (drawn.count(False) >= drawn.count(True))
    as_they_are = select(False, drawn)
    assert as_they_are.chosen == tuple(range(len(drawn))) and not as_they_are.redrawn and not as_they_are.left_out


def test_photos_are_drawn_where_the_base_draws_people() -> None:
    opened = open_album([PHOTO] * 5 + [DRAWING], TOON, "cr7d", "man", read=read)
    assert len(opened.pictures) == TOON.drawings and opened.looks == LOOKS and opened.drawn == [True] * TOON.drawings
    seen = Judge.load().attributes(list(opened.pictures))
    assert {one["facial_hair"] for one in seen} == {"medium beard"}
    assert sum(one["glasses"] == "glasses" for one in seen) >= 5
    assert picture_count(TOON, "man", [False] * 5 + [True]) == len(opened.pictures)
    again = open_album([PHOTO] * 5 + [DRAWING], TOON, "cr7d", "man", read=read)
    assert [one.tobytes() for one in again.pictures] == [one.tobytes() for one in opened.pictures]

    class Base:
        family = TOON

    # What the drawings show besides the person is known, and needs no judge.
    prompts = instance_prompts(Base, opened.pictures, "cr7d man", LORA, (), known_captions=opened.captions)  # type: ignore[arg-type]
    usual = [prompt.format(instance="cr7d man") for prompt in TOON.instance_prompts]
    assert prompts == [[*usual, *captions] for captions in opened.captions]


def test_drawings_are_learned_as_they_are() -> None:
    opened = open_album([DRAWING] * 5 + [PHOTO], TOON, "cr7d", "man", read=unread)
    assert list(opened.pictures) == [DRAWING] * 5 and opened.looks is None and not opened.captions
    assert picture_count(TOON, "man", [True] * 5 + [False]) == 5


def test_what_the_base_cannot_draw_is_learned_as_it_is() -> None:
    opened = open_album([PHOTO] * 5 + [DRAWING], TOON, "rex5", "dog", read=unread)
    assert len(opened.pictures) == 6 and opened.drawn == [False] * 5 + [True]
    assert not knows(TOON, "dog") and all(knows(TOON, noun) for noun in naming.PEOPLE)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family is not TOON], ids=lambda one: one.name)
def test_with_any_other_base_nothing_of_this_applies(family: Family) -> None:
    photos = [PHOTO, DRAWING]
    opened = open_album(photos, family, "cr7d", "man", read=unread)
    assert opened.pictures is photos and opened.drawn is None and opened.looks is None
    assert picture_count(family, "man", [False, True]) == 2 and knows(family, "dog")


def test_photos_without_a_face_that_can_be_read_are_refused() -> None:
    with pytest.raises(UserError, match="looks_unseen"):
        open_album([PHOTO] * 2, TOON, "cr7d", "man", drawn=[False] * 2)


# The command line


def saved(folder: Path, picture: Image.Image, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        changed = picture.copy()
        changed.putpixel((0, 0), (number, 0, 0))
        changed.resize((512, 512)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`train` on the embedded base, where the photos show somebody with red hair and nothing is learned."""
    sure = dict.fromkeys(CHOICES, 0.9)
    red = Looks(**(unknown() | {"hair_colour": "red", "photos": 3, "confidence": sure}))
    monkeypatch.setattr("engine.photos.looks.read_album", lambda photos: red)
    monkeypatch.setattr(
        "engine.commands.learn._learn", lambda *arguments, **options: {"adapter": "", "steps": 1, "seconds": 1}
    )
    return ["train", "--token", "zk1x", "--base", "embedded", "--out", str(tmp_path / "out"), "--json"]


def test_the_command_line_says_what_it_read_and_takes_corrections(command, tmp_path: Path, capsys, monkeypatch) -> None:
    paths = sorted(saved(tmp_path / "photos", PHOTO).iterdir())
    # Their faces are made up, like what is read of them.
    accepted = {path: Verdict((), {}) for path in paths}
    monkeypatch.setattr("engine.commands.learn._album", lambda folder, noun: (accepted, []))
    options = ["--photos", str(tmp_path / "photos"), "--class", "man"]
    corrections = ["--hair-length=long", "--facial-hair=light-beard", "--hair-colour=dark-brown", "--skin=5"]
    for choices, said in (
        ([], "I see short red hair, medium skin, no glasses."),
        (corrections, "I see long dark brown hair, a light beard, brown skin, no glasses."),
    ):
        assert main([*command, *options, *choices]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert said in lines and any(line.startswith("I'll draw you as a cartoon: 8 drawings") for line in lines)
        figures = json.loads(last)
        assert (figures["photos"], figures["drawings"]) == (3, 8)
    assert (figures["looks"]["hair_length"], figures["looks"]["beard_length"]) == ("long", "light")
    assert figures["looks"]["skin"] == 5 and figures["looks"]["hair_colour"] == "brown"
    # What is not sure is asked.
    monkeypatch.setattr("engine.photos.looks.read_album", lambda photos: Looks(**unknown()))
    assert main([*command, *options, "--skin=5", "--glasses=no"]) == 0
    assert "Correct it with --hair-length, --hair-colour, --facial-hair." in capsys.readouterr().out
    assert main([*command, *options, "--captions"]) == 2
    assert "Leave out --captions" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, *options, "--skin", "7"])
    assert "choose from" in capsys.readouterr().err
    # Nobody was seen: everything must be given.
    monkeypatch.setattr("engine.photos.looks.read_album", lambda photos: None)
    assert main([*command, *options, *corrections]) == 2
    assert "say all of --hair-length" in capsys.readouterr().err
    assert main([*command, *options, *corrections, "--glasses", "no"]) == 0


def test_the_command_line_learns_photos_as_they_were_judged(command, tmp_path: Path, monkeypatch) -> None:
    upright = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 200, 3)))
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "lying.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path)
    monkeypatch.setattr("engine.commands.learn._album", lambda folder, noun: ({path: Verdict((), {})}, []))
    monkeypatch.setattr("engine.photos.inspection.find_faces", lambda image: [Face(50, 50, 150, 150, 2.0, turn=270)])
    learned = list[Image.Image]()

    def read(photos: Sequence[Image.Image]) -> Looks:
        learned.extend(photos)
        return Looks(**unknown())

    monkeypatch.setattr("engine.photos.looks.read_album", read)
    assert main([*command, "--photos", str(tmp_path / "photos"), "--class", "man"]) == 0
    assert [photo.tobytes() for photo in learned] == [upright.tobytes()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--class", "man", "--glasses", "yes"], "Leave out --glasses"),
        (["--class", "thing", "--skin", "3"], "Leave out --skin"),
    ],
)
def test_looks_of_what_is_learned_as_it_is_are_refused(
    command, tmp_path: Path, capsys, options: list[str], said: str
) -> None:
    drawings = saved(tmp_path / "drawings", DRAWING)
    assert main([*command, "--photos", str(drawings), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_noun_that_the_base_cannot_draw_is_told_before_training(command, tmp_path: Path, capsys) -> None:
    assert main([*command, "--photos", str(saved(tmp_path / "photos", PHOTO)), "--class", "dog"]) == 0
    *lines, figures = capsys.readouterr().out.splitlines()
    told = next(number for number, line in enumerate(lines) if "knows no dog" in line)
    assert told < next(number for number, line in enumerate(lines) if line.startswith("Learned"))
    assert json.loads(figures)["looks"] is None and json.loads(figures)["photos"] == 3
