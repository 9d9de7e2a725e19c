"""The study of steps a photo: its measures mean what they say, and its run judges every multiple."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter

from engine.__main__ import main
from engine.learning.listener import Progress
from engine.learning.team import Team
from engine.measuring.study import Point, chart, copying, grain, study, table
from engine.recipe import Recipe

RECIPE = Recipe("lora", 0, 2e-3, 2, 0, 0.0, rank=4, alpha=4)


def drawn(seed: int) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (20 * seed, 90, 200 - 20 * seed))
    ImageDraw.Draw(picture).ellipse((4 * seed, 8, 40, 20 + 6 * seed), fill=(220, 40 * (seed % 6), 60))
    return picture


def test_a_training_photo_that_comes_back_is_a_copy() -> None:
    album = [drawn(seed) for seed in range(4)]
    assert copying([album[2].resize((48, 48))], album) > 0.99
    assert copying([drawn(7).transpose(Image.Transpose.ROTATE_90)], album) < 0.9


def test_noise_has_more_grain_than_an_even_picture_and_blur_less() -> None:
    picture = Image.effect_noise((64, 64), 20).convert("RGB")
    assert grain(picture) > grain(picture.filter(ImageFilter.GaussianBlur(2))) > grain(drawn(3))


def test_a_study_judges_every_multiple_and_draws_the_chart(tiny, pictures, tmp_path: Path) -> None:
    told: list[Progress] = []
    tiny.side = 16
    points = study(tiny, pictures, "zk1", "man", RECIPE, (2, 1), tmp_path / "adapter.safetensors", side=64,
                   likeness=lambda drawn: len(drawn) / 40, on_step=told.append)  # fmt: skip
    assert [(point.steps, point.per_photo) for point in points] == [(5, 1), (10, 2)]
    assert len(told) == 10 and (tmp_path / "adapter.safetensors").exists()
    assert all(point.likeness == 0.5 and point.bleeding == 0.1 and point.prompt is None for point in points)
    assert all(-1 <= point.copying <= 1 and point.noise > 0 for point in points)
    assert table(points).count("\n") == 3
    assert ET.fromstring(chart(points, "a study")).tag.endswith("svg")


def test_the_chart_shows_a_line_for_each_measure() -> None:
    points = [Point(10 * n, n, n / 4, 0.1, 0.5, 0.3, 1.0) for n in (1, 2, 3)]
    picture = ET.fromstring(chart(points, "a study"))
    lines = [line for line in picture.iter("{http://www.w3.org/2000/svg}polyline") if line.get("stroke-width")]
    assert len(lines) == 5
    heights = [float(point.split(",")[1]) for point in lines[0].get("points", "").split()]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("multiples", ["abc", "10,,20", "0", "10,1001", "1.5"])
def test_multiples_that_are_none_are_refused_in_one_line(tmp_path: Path, capsys, multiples: str) -> None:
    assert main(["study", "--out", str(tmp_path), "--multiples", multiples]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert multiples in line and "1000" in line


@pytest.mark.parametrize("option", ["--steps=9", "--warmup=3", "--schedule=cosine"])
def test_what_a_study_settles_itself_is_no_option_of_it(tmp_path: Path, capsys, option: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["study", "--out", str(tmp_path), option])
    assert refused.value.code == 2 and option in capsys.readouterr().err


@pytest.fixture
def asked(tiny_folder: Path, pictures, tmp_path: Path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """The command on a captioned album, with these options: what it has the study do."""
    album, heard = tmp_path / "album", dict[str, Any]()
    album.mkdir()
    for number, picture in enumerate(pictures):
        picture.resize((512, 512)).save(album / f"{number}.png")
    lines = [json.dumps({"file_name": f"{n}.png", "text": f"picture {n}"}) for n in range(len(pictures))]
    (album / "metadata.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr("engine.measuring.study.study", lambda *arguments, **options: heard.update(options) or [])
    monkeypatch.setattr("engine.measuring.study.chart", lambda points, title: "")
    out = tmp_path / "out"
    out.mkdir()

    def ask(*options: str) -> dict[str, Any]:
        assert main(["study", "--photos", str(album), "--class", "thing", "--base", str(tiny_folder), "--out", str(out),
                     *options]) == 0  # fmt: skip
        return heard

    return ask


def test_a_study_hears_captions(asked, pictures) -> None:
    assert asked("--captions")["captions"] == [(f"picture {n}",) for n in range(len(pictures))]


@pytest.mark.parametrize("options", [(), ("--captions",)])
def test_a_study_learns_as_the_team_that_was_started(asked, monkeypatch, options: tuple[str, ...]) -> None:
    team = Team()
    monkeypatch.setattr("engine.learning.team.join", lambda: team)
    assert asked(*options)["team"] is team
