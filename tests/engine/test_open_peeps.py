"""The second style: the set is what it says, and the embedded base learns it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from dicebear_styles import __path__ as ARTWORK
from PIL import Image

from engine import __main__ as command_line
from engine.adapters.adapters import FILE, Attached, facts_of
from engine.bases.base import BaseModel
from engine.drawing.denoising import noise
from engine.photos.captioned import read_captioned
from engine.photos.crops import prepare
from engine.pretraining.open_peeps import TRIGGER, write
from engine.toon import SIZE, captions, world
from tests.engine.tiny import applied

COUNT = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("peeps")
    write(out, COUNT, seed=1)
    return out


def test_the_artwork_is_in_the_public_domain() -> None:
    said = json.loads((Path(ARTWORK[0]) / "open-peeps.json").read_text("utf-8"))["meta"]["license"]
    assert said["url"] == "https://creativecommons.org/publicdomain/zero/1.0/"


def test_every_caption_has_its_picture_and_the_trigger(folder: Path) -> None:
    dataset = read_captioned(folder)
    assert len(dataset) == COUNT
    assert {path.name for path in dataset.files} == {path.name for path in folder.glob("*.png")}
    for picture in dataset:
        assert (picture.size, picture.mode) == ((SIZE, SIZE), "RGB")
    assert all(text.startswith(f"{TRIGGER}, ") for text in dataset.texts)
    assert len(set(dataset.texts)) == COUNT


def test_a_seed_gives_the_same_set_and_a_smaller_one_is_its_beginning(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", 6, seed=1)
    write(tmp_path / "other", 6, seed=2)
    rows = (folder / "metadata.jsonl").read_text().splitlines()[:6]
    assert (tmp_path / "again" / "metadata.jsonl").read_text().splitlines() == rows
    for row in rows:
        name = json.loads(row)["file_name"]
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other" / "metadata.jsonl").read_text().splitlines() != rows


def meant(names: dict[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """What each wording may mean: "brown" is a colour of its own, "blonde" one of three."""
    by_word: dict[str, set[str]] = {}
    for name, words in names.items():
        for word in words:
            by_word.setdefault(word, set()).add(name)
    return by_word


SHADES = meant({name: captions.COLOURS.get(name, (name,)) for name in world.COLOURS})
HAIR = meant(dict(captions.HAIR_COLOURS))
SKIN = meant(dict(captions.SKINS))
TOLD = {
    "background": (SHADES, world.COLOURS, r"{} (?:background|backdrop|wall)"),
    "clothes": (SHADES, world.COLOURS, r"{} (?:plain )?(?:t-shirt|tshirt|crew neck shirt|t shirt|tee)"),
    "skin": (SKIN, world.SKINS, r"{}(?: skin|-skinned)"),
    "hair": (HAIR, world.HAIR_COLOURS, r"{}(?:-haired| hair)"),
}


def share(picture: np.ndarray, colour: str) -> float:
    return float((picture == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).mean())


@pytest.mark.parametrize("what", TOLD)
def test_the_colours_that_captions_name_are_in_the_picture(folder: Path, what: str) -> None:
    words, hexes, pattern = TOLD[what]
    # The longest name first: "light blue background" does not tell of a blue one.
    names = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    checked = 0
    dataset = read_captioned(folder)
    for path, text in zip(dataset.files, dataset.texts, strict=True):
        picture = np.asarray(Image.open(path))
        for found in re.finditer(r"(?<![\w-])" + pattern.format(f"({names})"), text):
            colours = [hexes[name] for name in words[found[1]]]
            if what == "hair" and "black" in words[found[1]]:
                colours.append("#000000")  # most of the artwork's hair is ink
            if what == "background":
                assert picture[0, 0].tolist() in [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], text
            assert max(share(picture, colour) for colour in colours) > 0.005, (path.name, text)
            checked += 1
    assert checked >= COUNT // 10, checked


@pytest.mark.slow
def test_the_embedded_base_learns_the_style_and_draws_in_it(folder: Path, tmp_path: Path, capsys) -> None:
    finetune = ["finetune", "--dataset", str(folder), "--out", str(tmp_path / "peeps"), "--steps", "20", "--batch", "4"]
    assert command_line.main([*finetune, "--rank", "8", "--learning-rate", "2e-3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"] == COUNT
    assert facts_of(tmp_path / "peeps").kind == "style"

    base = BaseModel.load()
    attached, dataset = Attached(base), read_captioned(folder)
    clean, _ = base.encode_pictures([prepare(picture, SIZE) for picture in dataset[:8]])
    disturbance = noise(range(8), clean.shape[1:])
    times = base.schedule.timesteps((torch.arange(8) + 0.5) / 8)
    noisy, wanted = (of(clean, disturbance, times) for of in (base.schedule.noisy, base.schedule.target))

    def error(*styles: Path) -> float:
        with applied(attached, [[(path, 1.0) for path in styles]] * 8) as unet, torch.no_grad():
            predicted = base.predict(unet, noisy, times, base.encode_prompts(dataset.texts[:8]))
            return float((predicted - wanted).square().mean())

    assert error(tmp_path / "peeps") < 0.95 * error()

    imagine = ["imagine", "--prompt", f"{TRIGGER}, a woman with a bun", "--steps", "4", "--seed", "3"]
    for name, style in (("plain", []), ("styled", ["--style", str(tmp_path / "peeps" / FILE)])):
        assert command_line.main([*imagine, *style, "--out", str(tmp_path / name)]) == 0
    plain, styled = (np.asarray(Image.open(tmp_path / name / "0.png"), float) for name in ("plain", "styled"))
    assert np.abs(plain - styled).mean() > 2
