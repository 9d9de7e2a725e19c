"""`python -m engine` as somebody uses it: what works prints JSON, what cannot work exits 2 with one line."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.measuring.evaluation import people
from engine.toon.from_looks import person_of
from engine.toon.judge import Judge
from engine.toon.world import album, render

SUARESITO = Path(__file__).parents[3] / "shared" / "data" / "albums" / "suaresito"


def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def drawn_album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for number, scene in enumerate(album(people(1)[0], 6, seed=2)):
        render(scene, 256).save(folder / f"{number}.png")
    return folder


def huge_png() -> bytes:
    """120 megapixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 12_000, 10_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (10_000 * 1501), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_an_album_is_learned_and_drawn(drawn_album: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "avatar"
    trained = last_json(
        run("train", "--photos", drawn_album, "--token", "zk7", "--class", "man", "--out", out, "--base", tiny_folder,
            "--steps", 3, "--json")
    )  # fmt: skip
    assert (trained["steps"], trained["photos"], trained["token"]) == (3, 6, "zk7")
    assert trained["seconds"] > 0 and trained["peak_memory_mb"] > 100
    drawn = last_json(
        run("imagine", "--avatar", out, "--prompt", "zk7 man in a suit", "--out", tmp_path / "drawn", "--count", 2,
            "--steps", 2, "--seed", 11, "--base", tiny_folder, "--json")
    )  # fmt: skip
    assert [picture["seed"] for picture in drawn["pictures"]] == [11, 12]
    assert [size_of(picture["path"]) for picture in drawn["pictures"]] == [(64, 64)] * 2
    varied = last_json(
        run("imagine", "--avatar", out, "--prompt", "zk7 man", "--out", tmp_path / "varied", "--steps", 2, "--base",
            tiny_folder, "--original", drawn["pictures"][0]["path"], "--strength", 0.5, "--json")
    )  # fmt: skip
    assert [size_of(picture["path"]) for picture in varied["pictures"]] == [(64, 64)]


@pytest.mark.slow
def test_bad_input_exits_with_2_and_one_line_and_writes_nothing(drawn_album, tiny_folder, tmp_path) -> None:
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.mkdir()
    train = ("train", "--class", "man", "--out", out, "--base", tiny_folder, "--token")
    assert "no photos" in refused(run(*train, "zk7", "--photos", bad))
    (bad / "text.jpg").write_text("this is no picture")
    assert "not a picture" in refused(run(*train, "zk7", "--photos", bad))
    (bad / "text.jpg").unlink()
    (bad / "huge.png").write_bytes(huge_png())
    assert "megapixels" in refused(run(*train, "zk7", "--photos", bad))
    jpeg = bad / "cut.jpg"
    Image.effect_noise((600, 600), 50).convert("RGB").save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:5000])
    (bad / "huge.png").unlink()
    assert "damaged" in refused(run(*train, "zk7", "--photos", bad))
    assert "English word" in refused(run(*train, "house", "--photos", drawn_album))
    assert "token" in refused(run(*train, "Not a token!", "--photos", drawn_album))
    assert "between" in refused(run(*train, "zk7", "--photos", drawn_album, "--steps", 0))
    imagine = ("imagine", "--out", out, "--base", tiny_folder, "--prompt")
    assert "no avatar" in refused(run(*imagine, "zk7 man", "--avatar", tmp_path / "nobody"))
    assert "10000 characters" in refused(run(*imagine, "x" * 10_000))
    assert "empty" in refused(run(*imagine, " "))
    assert "No such file" in refused(run(*imagine, "a man", "--original", tmp_path / "nobody.png"))
    assert "cannot be used" in refused(run("imagine", "--out", out, "--prompt", "a man", "--base", bad))
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.skipif(not SUARESITO.is_dir(), reason="the real photos are not here")
def test_real_photos_are_learned_on_the_embedded_base(tmp_path: Path) -> None:
    """He has light skin, short dark hair and a full beard: that is read, said, drawn and learned."""
    command = ("train", "--photos", SUARESITO, "--token", "suar", "--class", "man", "--out", tmp_path, "--json")
    done = run(*command, "--steps", 160, timeout=1500)  # half of what the recipe chooses is enough for this
    trained = last_json(done)
    assert trained["notice"] == "cartoon" and "draws cartoons" in done.stdout
    assert (trained["photos"], trained["drawings"]) == (20, 8)
    looks = trained["looks"]
    assert (looks["facial_hair"], looks["glasses"], looks["hair_length"]) == ("beard", False, "short")
    assert looks["skin"] in (1, 2, 3) and looks["hair_colour"] in ("black", "brown")
    assert "I see short" in done.stdout and "I'll draw you as a cartoon" in done.stdout
    drawn = last_json(
        run(
            "imagine", "--avatar", tmp_path, "--prompt", "suar man in a suit", "--out", tmp_path, "--count", 4, "--json"
        )
    )
    assert drawn["notice"] == "cartoon"
    # What was read is what the avatar draws.
    person = person_of(looks, "man")
    wanted = {"skin": person.skin, "hair_colour": person.hair_colour, "facial_hair": person.facial_hair}
    seen = Judge.load().attributes([Image.open(picture["path"]) for picture in drawn["pictures"]])
    right = [one[name] == value for one in seen for name, value in wanted.items()]
    assert sum(right) >= 0.8 * len(right), seen
    assert sum(one["glasses"] == ("glasses" if looks["glasses"] else "none") for one in seen) >= 3

    # A correction is drawn in its place. A stopped training of other looks is not continued.
    done = run(*command, "--steps", 2, "--hair-length", "bald", "--glasses", "yes", "--overwrite")
    assert "I see a bald head" in done.stdout and "glasses." in done.stdout
    assert last_json(done)["looks"]["glasses"] is True


def memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.slow
@pytest.mark.skipif(memory() < 14 * 2**30, reason="Stable Diffusion 1.5 in float32 wants 14 GiB")
def test_stable_diffusion_15_in_its_real_size(drawn_album: Path, tmp_path: Path) -> None:
    """Random weights, since none can be had offline; every size is runwayml/stable-diffusion-v1-5's own."""
    base = tmp_path / "sd15"
    save_sd15(base)
    photos = SUARESITO if SUARESITO.is_dir() else drawn_album
    trained = last_json(
        run("train", "--photos", photos, "--token", "suar", "--class", "man", "--out", tmp_path, "--base", base,
            "--steps", 2, "--size", 128, "--prior-weight", 1, "--json", timeout=900)
    )  # fmt: skip
    assert trained["notice"] is None
    assert trained["recipe"]["learning_rate"] == 1e-4
    drawn = last_json(
        run("imagine", "--avatar", tmp_path, "--prompt", "suar man in a suit", "--out", tmp_path, "--base", base,
            "--steps", 2, "--width", 128, "--height", 128, "--json", timeout=900)
    )  # fmt: skip
    assert size_of(drawn["pictures"][0]["path"]) == (128, 128)


def save_sd15(folder: Path) -> None:
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from engine.toon import WEIGHTS

    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    words.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    channels = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels, layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae, CLIPTextModel(text), words, unet, scheduler, None, None, None, requires_safety_checker=False
    )
    pipeline.to(torch.float16).save_pretrained(folder)
