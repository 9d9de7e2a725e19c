"""The study of steps a photo: its measures mean what they say, and its run judges every multiple."""

import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from engine.recipe import Recipe
from engine.study import Point, chart, copying, grain, study, table
from engine.training import Progress

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
