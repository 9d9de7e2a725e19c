"""What a drawing tells of its prompt and its size."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from engine.__main__ import main
from engine.adapters.file import FILE
from engine.bases.base import BaseModel
from engine.drawing import drawing as drawings
from engine.drawing.drawing import Drawing, Picture, Plan, make_plan
from engine.drawing.remarks import PHRASES_MOST, remarks
from storage.errors import UserError
from tests.engine.tiny import SIDE


@pytest.fixture(scope="module")
def embedded() -> BaseModel:
    return BaseModel.load("embedded")


class Named:
    """Stands where adapters are attached: their facts are a token and a class noun."""

    def __init__(self, *names: tuple[str, str]) -> None:
        self.names = names

    def checked(self, adapters: Sequence[tuple[Path, float]]) -> list[tuple[Any, float]]:
        facts = [SimpleNamespace(token=token, noun=noun, few_step=False, recipe={}) for token, noun in self.names]
        return [(SimpleNamespace(facts=one), 1.0) for one in facts]


def plan(base: BaseModel, drawing: Drawing, *names: tuple[str, str]) -> Plan:
    return make_plan(drawing, base, Named(*names))  # type: ignore[arg-type]


def test_unknown_words_come_with_what_is_known(embedded: BaseModel) -> None:
    told = remarks(plan(embedded, Drawing("a man in a submarine with sunglases, yellow hoodie")), embedded).as_json()
    assert json.loads(json.dumps(told))["unknown"] == [
        {"phrase": "submarine", "similar": []},
        {"phrase": "sunglases", "similar": ["sunglasses"]},
    ]
    assert "in a red hoodie" in told["known"]["clothes"]
    plain = remarks(plan(embedded, Drawing("a man in a suit")), embedded).as_json()
    assert plain == {"unknown": (), "known": {}, "size": {"asked": (128, 128), "drawn": (128, 128)}}


def test_names_of_what_was_learned_are_no_unknown_words(embedded: BaseModel, tmp_path: Path) -> None:
    folders = (tmp_path / "0", tmp_path / "styles" / "cross-hatch", tmp_path / "inks.safetensors",
               tmp_path / "styles" / "oils" / FILE)  # fmt: skip
    prompt = "Suares dog, zk7 man, inks, oils, cross-hatch hatch, submarine"
    drawn = plan(embedded, Drawing(prompt, avatars=folders), ("suares", "dog"), ("", ""))
    assert [one.phrase for one in remarks(drawn, embedded).unknown] == ["submarine"]
    nobody = plan(embedded, Drawing("suares man"))
    assert [one.phrase for one in remarks(nobody, embedded).unknown] == ["suares"]


def test_a_prompt_in_another_language_is_told_in_part(embedded: BaseModel) -> None:
    prompt = ", ".join(f"xylo{'abcdefghijklmnopqrstuvwxyz'[n]}" for n in range(26))
    assert len(remarks(plan(embedded, Drawing(prompt)), embedded).unknown) == PHRASES_MOST


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((None, None), (128, 128)), ((128, None), (128, 128)), ((512, 768), (128, 128)), ((1, 3000), (128, 128)),
        ((100, 101), (128, 128)),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_drawn_is_the_nearest_that_can(
    embedded: BaseModel, asked: tuple[int | None, int | None], drawn: tuple[int, int]
) -> None:
    made = plan(embedded, Drawing("a man", width=asked[0], height=asked[1]))
    assert (made.width, made.height) == drawn
    size = remarks(made, embedded).size
    assert (size.asked, size.drawn) == (tuple(side or 128 for side in asked), drawn)


@pytest.mark.parametrize("sides", [(0, 128), (128, -5)])
def test_what_is_no_size_is_refused(embedded: BaseModel, sides: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="bad_size"):
        plan(embedded, Drawing("a man", width=sides[0], height=sides[1]))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((512, 768), (128, 192)), ((300, 500), (128, 192)), ((768, 512), (192, 128)), ((1000, 900), (128, 128)),
        ((600, 500), (128, 128)), ((700, 500), (192, 128)),
    ],
)  # fmt: skip
def test_the_nearest_size_has_the_most_similar_shape(
    embedded: BaseModel, monkeypatch: pytest.MonkeyPatch, asked: tuple[int, int], drawn: tuple[int, int]
) -> None:
    shapes = SimpleNamespace(shapes=((1, 1), (2, 3), (3, 2)))
    monkeypatch.setattr(embedded, "family", shapes)
    assert embedded.usual_sizes == [(128, 128), (128, 192), (192, 128)]
    assert embedded.drawable_size(*asked) == drawn


def test_a_real_base_takes_any_word_and_keeps_its_rules(tiny: BaseModel) -> None:
    made = plan(tiny, Drawing("a man in a submarine", width=2 * SIDE, height=3 * SIDE))
    assert (made.width, made.height) == (2 * SIDE, 3 * SIDE)
    told = remarks(made, tiny)
    assert told.unknown == () and told.known == {} and told.size.asked == told.size.drawn
    with pytest.raises(UserError, match="bad_size"):
        plan(tiny, Drawing("a man", width=SIDE + 1))
    for width, height in tiny.usual_sizes:
        assert (tiny.check_size(width, height), max(width, height) <= 2 * SIDE) == (width, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "a man in a submarine"], ["no 'submarine'; the rest is drawn. It knows 'in a red hoodie', "]),
        (["--prompt", "a man in a hoddie"], ["no 'hoddie'; the rest is drawn. Did you mean 'hoodie'?"]),
        (["--prompt", "a man", "--width", "512", "--height", "768"], ["no 512x768 pixels; the pictures have 128x128."]),
        (["--prompt", "a man in a suit"], []),
    ],
)
def test_the_command_line_says_it_and_reports_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str],
    said: list[str],
) -> None:  # fmt: skip
    def drawn(base: BaseModel, attached: object, plans: list[Plan]) -> list[list[Picture]]:
        return [[Picture(Image.new("RGB", (plan.width, plan.height)), 0)] for plan in plans]

    monkeypatch.setattr(drawings, "draw_together", drawn)
    assert main(["imagine", *options, "--base", "embedded", "--out", str(tmp_path), "--json"]) == 0
    *lines, facts = capsys.readouterr().out.splitlines()
    remarked = [line for line in lines if "The base model" in line]
    assert len(remarked) == len(said) and all(part in line for part, line in zip(said, remarked, strict=True))
    report = json.loads(facts)
    assert bool(report["unknown"]) == bool(report["known"]) == any("the rest" in part for part in said)
    assert report["size"]["drawn"] == [128, 128]
    assert report["size"]["asked"] == ([512, 768] if "512" in options else [128, 128])
