"""A whole evaluation with painters whose pictures are known: what they score is what they deserve."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from tests.evaluation import albums, judging, run, scoring, strangers
from tests.evaluation.drawing import Print
from tests.evaluation.judging import Ruler, Trust
from tests.evaluation.painting import Refused, Request, pixels_of
from tests.evaluation.prompts import COUNT, Prompt
from tests.evaluation.run import OWN, Plan, paint_person, score

TRUTH: dict[bytes, dict[str, str]] = {}
"""What each picture shows that a painter of these tests drew."""

READ = (
    "hair_style", "hair_colour", "skin", "facial_hair", "clothes", "clothes_colour", "background", "glasses", "hat",
    "hat_colour", "eyes", "mouth", "looking", "raised", "tilted", "distance", "place", "worn", "held", "hair_length",
    "beard_kind", "plain",
)  # fmt: skip

ASKED = {prompt.of(who): prompt for number in range(3) for prompt in run.asked_of(number, COUNT)
         for who in (f"{run.token_of(number)} {albums.person(number).noun}", albums.person(number).noun)}  # fmt: skip


class Knows:
    """A reader that never errs."""

    name = "knows"

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        return [TRUTH[picture.tobytes()] for picture in pictures]


RULER = Ruler([Knows()], {name: Trust("knows", 1.0, 100, (), 5) for name in READ})

Choose = Callable[[albums.Person, Prompt, Random], tuple[albums.Person, albums.Look]]


class Draws:
    """A painter. `choose` says who is drawn with which look; without an avatar it is somebody else each time."""

    def __init__(self, choose: Choose, *, same: bool = False) -> None:
        self.choose, self.same, self.learned = choose, same, list[str]()

    def learn(self, album: Path, token: str, noun: str, out: Path) -> dict[str, Any]:
        assert len(list(album.iterdir())) == 4
        self.learned.append(token)
        return {"seconds": 1.0, "photos": 4, "steps": 10}

    def draw(self, requests: Sequence[Request]) -> list[list[Image.Image]]:
        return [[self._picture(one, 0 if self.same else number) for number in range(one.count)] for one in requests]

    def _picture(self, one: Request, number: int) -> Image.Image:
        random = Random(f"{one.seed + number}")
        prompt = ASKED[one.text]
        about = one.text.split("qv")[-1].split("t ")[0]
        if one.avatar and "qv" in one.text:
            person, look = self.choose(albums.person(int(about)), prompt, random)
        else:
            person, look = albums.person(random.randrange(10**6)), judging.look_of(prompt.shows, random)
        look = dataclasses.replace(look, size=prompt.size)
        if "hat" not in prompt.shows and look.hat != "none":
            look = dataclasses.replace(look, hat="none")
        drawn = albums.Picture(person, look, Print(32), random.getrandbits(32))
        picture = drawn.image()
        TRUTH[picture.tobytes()] = judging.widened(drawn.facts())
        return picture


def perfect(person: albums.Person, prompt: Prompt, random: Random) -> tuple[albums.Person, albums.Look]:
    return person, judging.look_of(prompt.shows, random)


def deaf(person: albums.Person, prompt: Prompt, random: Random) -> tuple[albums.Person, albums.Look]:
    """The right person, whatever the prompt: the overfitted avatar."""
    usual = albums.Look("hoodie", "#d62828", "#f6f6f6")
    return person, dataclasses.replace(judging.look_of({}, random, usual), things=())


def stranger(person: albums.Person, prompt: Prompt, random: Random) -> tuple[albums.Person, albums.Look]:
    """The prompt is followed, but anybody is drawn: the avatar that learned nothing."""
    return albums.person(random.randrange(10**6)), judging.look_of(prompt.shows, random)


def plan(folder: Path, people: int = 2, **options: Any) -> Plan:
    return Plan("embedded", folder, people=people, pictures=2, photos=4, **options)


def evaluated(folder: Path, painter: Draws, people: int = 2) -> dict[str, Any]:
    asked = plan(folder, people)
    for number in range(asked.people):
        paint_person(OWN, number, asked, "weights", painter)
    return score(OWN, asked, RULER, None)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """What a perfect painter drew of two people."""
    asked = plan(tmp_path_factory.mktemp("painted"))
    evaluated(asked.out, Draws(perfect))
    return asked


def test_a_perfect_painter_scores_everything(painted: Plan) -> None:
    found = score(OWN, painted, RULER, None)
    assert found["identity"] == 1 and found["prompts"] == {"base": 1, "avatar": 1} and found["least_person"] == 1
    assert set(found["by_identity"]) == set(albums.IDENTITY)
    assert all(row["avatar"] == row["base"] == 1 for row in found["by_attribute"].values()), found["by_attribute"]
    assert {"mouth", "eyes", "glasses", "clothes_colour", "looking", "worn", "size"} <= set(found["by_attribute"])
    assert found["class_variety"]["class"] > 0.5 and found["prompt_variety"]["avatar"] > 0.02
    met = {name: one["met"] for name, one in scoring.goals(found).items()}
    assert met == {name: True for name in scoring.GOALS} | {"things recognised": None}


def test_an_avatar_that_does_not_follow_prompts_is_found_out(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Draws(deaf), people=1)
    assert found["identity"] == 1 and found["prompts"]["base"] == 1 and found["prompts"]["avatar"] < 0.2
    assert found["by_attribute"]["place"]["avatar"] == 0 and found["by_attribute"]["hat"]["avatar"] == 0
    met = {name: one["met"] for name, one in scoring.goals(found).items()}
    assert met["identity"] and not met["prompts"] and not met["behind the base"] and not met["least attribute"]
    assert "| prompts |" in scoring.table(found) and "missed" in scoring.table(found)


def test_an_avatar_that_is_anybody_is_found_out(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Draws(stranger), people=1)
    assert found["identity"] < 0.6 and found["by_identity"]["hair_style"] < 0.3
    assert found["prompts"]["avatar"] == 1
    assert not scoring.goals(found)["identity"]["met"]


def test_four_equal_pictures_have_no_variety(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Draws(perfect, same=True), people=1)
    assert found["prompt_variety"] == {"avatar": 0, "base": 0}
    assert found["class_variety"] == {"base": 0, "class": 0}
    assert scoring.goals(found)["class variety kept"]["met"] is None  # there was none to keep


def test_a_stopped_run_learns_only_the_unfinished_people(tmp_path: Path) -> None:
    painter = Draws(perfect)
    first = plan(tmp_path, prompts=6)
    paint_person(OWN, 0, first, "weights", painter)
    assert painter.learned == ["qv0t"]
    assert paint_person(OWN, 0, first, "weights", painter)["photos"] == 4 and len(painter.learned) == 1
    (tmp_path / OWN / "person-00" / "done.json").unlink()
    paint_person(OWN, 0, first, "weights", painter)
    paint_person(OWN, 0, first, "other weights", painter)
    paint_person(OWN, 0, plan(tmp_path, prompts=6, steps=4), "other weights", painter)
    assert len(painter.learned) == 4
    truth = json.loads((tmp_path / OWN / "person-00" / "truth.json").read_text())
    assert len(truth) == 4 and all("hair_style" in facts for facts in truth.values())


class Finds:
    """Recognises whatever is in a picture."""

    def first(self, pictures: Sequence[Image.Image], kind: str, noun: str) -> list[str]:
        attribute = {"place": "place", "held": "held", "companion": "held"}.get(kind, "worn")
        return [TRUTH[picture.tobytes()][attribute] for picture in pictures]


def test_a_refused_album_counts_as_wrong(tmp_path: Path) -> None:
    class Refuses(Draws):
        def learn(self, album: Path, token: str, noun: str, out: Path) -> dict[str, Any]:
            raise Refused("none of the photos is good")

    found = evaluated(tmp_path, Refuses(perfect), people=1)
    assert found["identity"] == 0 and found["prompts"] == {"base": 1, "avatar": 0} and found["least_person"] == 0
    whole = score(OWN, plan(tmp_path, people=1), RULER, Finds())
    assert whole["things_recognised"] == 0 and whole["by_kind_of_thing"]["base"]["place"] == 1


def test_what_no_reader_is_trusted_with_is_not_called_met(painted: Plan) -> None:
    trusts = {name: one for name, one in RULER.trusts.items() if name not in ("mouth", "hair_style")}
    found = score(OWN, painted, Ruler([Knows()], trusts), None)
    assert "mouth" not in found["by_attribute"] and found["by_identity"]["hair_style"] is None
    met = {name: one["met"] for name, one in scoring.goals(found).items()}
    assert set(met.values()) == {None}
    assert "| least attribute | - | 80 | not measured |" in scoring.table(found)


def test_things_count_only_if_they_are_first_of_their_kind(painted: Plan) -> None:
    class Sees:
        """Recognises what is in the picture, but takes every place for the moon."""

        def first(self, pictures: Sequence[Image.Image], kind: str, noun: str) -> list[str]:
            names = {"place": "place", "held": "held", "companion": "held"}.get(kind, "worn")
            return ["moon" if kind == "place" else TRUTH[picture.tobytes()][names] for picture in pictures]

    kinds = score(OWN, painted, RULER, Sees())["by_kind_of_thing"]["avatar"]
    assert kinds["costume"] == kinds["held"] == 1 and kinds["place"] < 0.4
    assert {"a wording of pre-training", "another wording"} <= set(kinds)


def test_strangers_are_scored_by_what_they_share(tmp_path: Path) -> None:
    class Pale(Draws):
        """Draws each stranger right but for the skin."""

        def _picture(self, one: Request, number: int) -> Image.Image:
            picture = super()._picture(one, number)
            if one.avatar and "qv" in one.text:
                person = strangers.stranger("micah", 0)
                shown = {name: values[0] for name, values in person.accepted().items()} | {"skin": "#00ff00"}
                TRUTH[picture.tobytes()] |= shown
            return picture

    asked = Plan("embedded", tmp_path, people=1, pictures=1, photos=4)
    for prompt in run.asked_of(0, COUNT):
        ASKED[prompt.of("qv0t man")] = ASKED[prompt.of("man")] = prompt
    paint_person("micah", 0, asked, "weights", Pale(perfect))
    found = score("micah", asked, RULER, None)
    assert found["by_identity"] == {"hair_length": 1, "hair_colour": 1, "skin": 0, "beard_kind": 1}


def test_readers_are_measured_on_the_strangers_own_pictures() -> None:
    class Pale:
        """Takes all skin for green and all hair for short."""

        name = "knows"

        def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
            return [{"skin": "#00ff00", "beard_kind": "none", "hair_length": "short"} for _ in pictures]

    found = run.read_in_artwork("open-peeps", Ruler([Pale()], RULER.trusts), people=8)
    assert found["skin"] == 0 and found["beard_kind"] == 0.75 and 0.3 < found["hair_length"] < 1
    assert "hair_colour" not in found


def test_a_contact_sheet_shows_album_avatar_and_base(painted: Plan) -> None:
    sheet = run.contact_sheet(OWN, 1, painted)
    assert sheet.size == (run.CELL * COUNT, run.CELL * 3)


def test_the_report_says_what_is_measured_and_what_is_not(painted: Plan) -> None:
    found = score(OWN, painted, RULER, None)
    found |= {"read_in_artwork": {}, "training": {"refused": 0, "photos_used": 1.0, "mean_seconds": 97.0}}
    lines = ["mouth: NOT measured by judge"]
    results = {"base": "some/base", "people": 2, "measured_by": lines, "artworks": {OWN: found}}
    text = run.report(results)
    assert (
        "40 people are asked for" in text
        and "NOT measured" in text
        and "| **identity** | - | 100 | |" in text
        and "97 s" in text
    )


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (256, 256)), ((2, 3), (256, 384)), ((3, 2), (384, 256))])
def test_sizes_in_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert pixels_of(size, 256, 8) == expected


def test_fewer_prompts_are_spread_over_the_kinds() -> None:
    kinds = [one.kind for one in run.asked_of(0, 12)]
    assert len(kinds) == 12 and len(set(kinds)) >= 10
