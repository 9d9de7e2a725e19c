"""The chat and the command line prepare an album alike."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine.__main__ import main
from engine.bases.families import TOON
from engine.learning.training import Trained
from engine.measuring.evaluation import people
from engine.photos.crops import prepared_album
from engine.photos.looks import Looks
from engine.toon.world import album, render
from engine.work.gpu_process import GpuProcess
from storage.looks import unknown

LONDON = sorted((Path(__file__).parents[3] / "shared" / "data" / "portraits").glob("london_*"))[:2]


class Requests:
    """Standard input of a GPU process that gets one request and stays open."""

    def __init__(self, request: dict[str, object]) -> None:
        self.request = request

    def __iter__(self) -> Iterator[str]:
        yield json.dumps(self.request) + "\n"
        threading.Event().wait()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Portraits in a corner of a wider picture, and a drawing."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(LONDON):
        portrait = Image.open(path).convert("RGB")
        wide = Image.new("RGB", (portrait.width * 3 // 2, portrait.height), "gray")
        wide.paste(portrait, (portrait.width // 2, 0))
        wide.save(folder / f"{number}.png")
    render(album(people(1)[0], 1, seed=0)[0], 512).save(folder / "drawn.png")
    return sorted(folder.iterdir())


@pytest.mark.skipif(not LONDON, reason="the shared test photos are not here")
@pytest.mark.parametrize("noun", ["statue", "man"])
def test_the_chat_and_the_command_line_learn_the_same_pictures(photos, tmp_path: Path, monkeypatch, noun: str) -> None:
    """The photos of a statue as they are; of a man, who is drawn, the drawings."""
    monkeypatch.setattr("engine.photos.looks.read_album", lambda photos: Looks(**unknown()))
    learned: list[list[Image.Image]] = []

    def note(base: object, album: list[Image.Image], *arguments: object, **options: object) -> Trained:
        learned.append(list(album))
        return Trained(steps=1, seconds=0.0, first_loss=0.0, last_loss=0.0, resumed_at=0)

    monkeypatch.setattr("engine.learning.training.train", note)
    folder = photos[0].parent
    command = ["train", "--photos", str(folder), "--token", "zk1x", "--class", noun, "--base", "embedded"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0

    def note_and_end(*arguments: object, **options: object) -> None:
        note(*arguments, **options)  # type: ignore[arg-type]
        raise SystemExit

    monkeypatch.setattr("engine.learning.training.train", note_and_end)
    request = {
        "id": "7",
        "task": "train",
        "photos": [str(path) for path in photos],
        "token": "zk1x",
        "noun": noun,
        "method": "lora",
        "seed": 0,
        "out": str(tmp_path),
        "checkpoint": str(tmp_path / "checkpoint"),
        "priors": str(tmp_path / "priors"),
    }
    with pytest.raises(SystemExit):
        GpuProcess("embedded", Requests(request), io.StringIO()).serve()  # type: ignore[arg-type]

    command_line, chat = learned
    assert [one.size for one in command_line] == [(128, 128)] * (len(photos) if noun == "statue" else TOON.drawings)
    assert [one.tobytes() for one in command_line] == [one.tobytes() for one in chat]


@pytest.mark.skipif(not LONDON, reason="the shared test photos are not here")
@pytest.mark.parametrize(("crop", "album_crop"), [("centre", "none"), ("face", "face"), ("buckets", "face")])
def test_photos_are_not_cropped_for_bases_that_learn_small_faces_or_recipes_that_crop(photos, crop, album_crop) -> None:
    whole = [Image.open(path).convert("RGB") for path in photos]
    assert prepared_album(whole, album_crop, crop, 128) == whole


@pytest.mark.skipif(not LONDON, reason="the shared test photos are not here")
def test_a_face_fills_the_square_and_a_drawing_keeps_its_middle(photos) -> None:
    whole = [Image.open(path).convert("RGB") for path in photos]
    prepared = prepared_album(whole, "face", "centre", 128)
    known = [path.stem == "drawn" for path in photos]
    assert [one.tobytes() for one in prepared_album(whole, "face", "centre", 128, known)] == [
        one.tobytes() for one in prepared
    ]
    for photo, square, drawn in zip(whole, prepared, known, strict=True):
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        centre = photo.resize((128, 128), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
        assert (square.tobytes() == centre.tobytes()) == drawn
