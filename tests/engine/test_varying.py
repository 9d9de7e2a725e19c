"""A picture varied: drawn on from an original instead of from noise alone."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image, ImageOps

from engine.adapters.adapters import FILE, Attached
from engine.drawing.drawing import draw, make_plan, read_original
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import FAMILIES, LORA, SIDE, asked, assert_same, load, solved, together


@pytest.fixture
def original(pictures, tmp_path: Path) -> Path:
    pictures[0].save(tmp_path / "original.png")
    return tmp_path / "original.png"


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other.resize(one.size), np.float32)).mean())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_variation_is_that_of_plain_diffusers(folders, family: str, original: Path, exact) -> None:
    base = load(folders(family))
    drawing = asked(original=original, strength=0.5, steps=4)
    ours = draw(base, Attached(base), drawing)[0]
    kind = StableDiffusionXLImg2ImgPipeline if family == "sdxl" else StableDiffusionImg2ImgPipeline
    pipeline = kind.from_pretrained(folders(family), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    times = solved(pipeline, 4)
    with Image.open(original) as picture:
        clean, _ = base.encode_pictures([ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)])
    theirs = pipeline(
        "a man", image=clean, strength=0.5, num_inference_steps=4, timesteps=times, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5), negative_prompt=None if family == "sdxl" else "",
    ).images[0]  # fmt: skip
    assert_same(ours.image, theirs)


def test_a_variation_starts_at_the_step_where_diffusers_starts(folders, original: Path) -> None:
    base = load(folders("sd1"))
    attached, kind = Attached(base), StableDiffusionImg2ImgPipeline
    for steps in (1, 7, 25, 30, 50):
        for strength in (0.0, 0.1, 0.35, 0.5, 0.58, 0.6, 0.99, 1.0):
            plan = make_plan(asked(original=original, strength=strength, steps=steps), base, attached)
            scheduler = DDIMScheduler()
            scheduler.set_timesteps(steps)
            _, theirs = kind.get_timesteps(SimpleNamespace(scheduler=scheduler), steps, strength, "cpu")
            assert steps - plan.start == max(1, theirs), (steps, strength)  # one at least


@pytest.mark.parametrize("family", FAMILIES)
def test_a_larger_strength_changes_a_variation_more(folders, family: str, original: Path, exact) -> None:
    base = load(folders(family))
    attached = Attached(base)
    with Image.open(original) as picture:
        clean, _ = base.encode_pictures([ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)])
    [rebuilt] = base.decode(clean)
    seen: list[int] = []
    far = []
    for strength in (0.0, 0.4, 1.0):
        drawing = asked(original=original, strength=strength, steps=10)
        varied = draw(base, attached, drawing, lambda step, of: seen.append(step))[0]
        far.append(distance(varied.image, rebuilt))
    assert far[0] < far[1] < far[2]
    assert seen == [10, *range(7, 11), *range(1, 11)]


@pytest.mark.parametrize("family", ["sd1", "klein"])
def test_variations_and_people_share_a_batch(folders, family: str, pictures, tmp_path: Path, exact) -> None:
    base = load(folders(family))
    attached = Attached(base)
    for number in range(2):
        learn(base, pictures[number:], replace(LORA, steps=2), tmp_path / str(number) / FILE,
              token=f"zk{number}", side=SIDE, seed=number)  # fmt: skip
        pictures[number].save(tmp_path / f"{number}.png")
    drawings = [
        asked(tmp_path / "0", original=tmp_path / "0.png", count=2, seed=1),
        asked(tmp_path / "1", original=tmp_path / "1.png", prompt="zk1 man in a suit", seed=2),
        asked(original=tmp_path / "0.png", seed=3),
    ]
    batch = together(base, attached, drawings)
    for drawing, drawn in zip(drawings, batch, strict=True):
        for one, other in zip(drawn, draw(base, attached, drawing), strict=True):
            assert_same(one.image, other.image, 2)
    with pytest.raises(ValueError, match="share"):
        together(base, attached, [drawings[0], replace(drawings[1], original=None)])


def test_an_original_that_cannot_be_varied_is_refused(folders, original: Path) -> None:
    base = load(folders("sd1"))
    with pytest.raises(UserError, match="out_of_range"):
        draw(base, Attached(base), asked(original=original, strength=1.2))
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    for write, reason in (
        (lambda: original.write_bytes(b"not a picture"), "not a picture in a format"),
        (lambda: Image.new("1", (20_000, 20_000)).save(original), "400 megapixels"),
        (lambda: original.write_bytes(b""), "empty"),
        (lambda: frames[0].save(original, "GIF", save_all=True, append_images=frames[1:]), "animation"),
        (lambda: original.unlink(), "No such file"),
    ):
        write()
        with pytest.raises(UserError, match="bad_original") as raised:
            draw(base, Attached(base), asked(original=original))
        assert reason in sentence(raised.value)


def test_an_original_is_read_like_a_photo(tmp_path: Path) -> None:
    left_red = Image.new("RGB", (60, 40), "blue")
    left_red.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    left_red.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    left_red.save(tmp_path / "photo.heic")
    hidden = Image.new("RGBA", (60, 40), (0, 255, 0, 0))  # green that no viewer shows
    hidden.paste((255, 0, 0, 255), (0, 0, 30, 40))
    hidden.save(tmp_path / "hidden.png")
    for name, right in (("turned.jpg", (0, 0, 255)), ("photo.heic", (0, 0, 255)), ("hidden.png", (255, 255, 255))):
        picture = read_original(tmp_path / name)
        assert picture.size == (60, 40) and picture.mode == "RGB"
        assert np.abs(np.array(picture.getpixel((10, 20))) - (255, 0, 0)).max() < 12, name
        assert np.abs(np.array(picture.getpixel((50, 20))) - right).max() < 12, name
