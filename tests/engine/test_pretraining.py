"""The pre-training command: every stage at a tiny scale, stopped and resumed, and the pipeline that it writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from engine.cartoon.judge import Judge
from engine.pretraining import __main__ as command
from engine.pretraining import latents, loop, pictures, vae
from engine.pretraining.loop import OutOfTime, Run, pretrain
from engine.toon import WEIGHTS

TINY = command.Scale(40, (2, 2), (2, 4), (2, 4), (2, 4), (2, 2, 1e-4))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all stages ran at a tiny scale, from the weights of the base of half the side; `out` is the result."""
    folder = tmp_path_factory.mktemp("pretraining")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.SCALES, "cpu", TINY)
        patch.setattr("engine.pretraining.tokenizer.CORPUS", 400)
        arguments = ["--work", str(folder), "--out", str(folder / "out"), "--device", "cpu", "--processes", "1"]
        assert command.main([*arguments, "--from", str(WEIGHTS)]) == 0
    return folder


def test_the_pipeline_draws_with_plain_diffusers(work: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(work / "out")
    pipeline.set_progress_bar_config(disable=True)
    size = {"height": 256, "width": 384}
    drawn = pipeline("a man", num_inference_steps=1, generator=torch.Generator().manual_seed(0), **size).images[0]
    assert drawn.size == (384, 256)
    assert pipeline.tokenizer("<yaw+2>").input_ids[1:-1] == [pipeline.tokenizer.convert_tokens_to_ids("<yaw+2>")]


def test_every_stage_leaves_files_that_can_be_handed_back_in_pieces(work: Path) -> None:
    parts = list(work.glob("*/checkpoint-*/part-*.safetensors"))
    assert {part.parts[-3] for part in parts} == {"vae", "text_encoder", "judge", "clip", "unet"}
    assert max(part.stat().st_size for part in parts) < 16 * 2**20
    assert len([part for part in parts if part.parts[-3] == "unet"]) > 10


def test_the_judge_reads_every_attribute_of_a_picture(work: Path) -> None:
    accuracy = json.loads((work / "judge" / "result" / "accuracy.json").read_text())
    assert {"eyes", "place", "yaw", "yaw error", "background error"} <= set(accuracy)
    reading = Judge.load(work / "out" / "judge").read([pictures.render(pictures.scene_of(7, "landscape"))])[0]
    assert reading.values["clothes"] and reading.colours["skin"].startswith("#") and math.isfinite(reading.pose.yaw)


def test_a_grown_autoencoder_keeps_the_old_layers(work: Path) -> None:
    old = AutoencoderKL.from_pretrained(WEIGHTS / "vae", dtype=torch.float32)
    grown = vae.grow(old).state_dict()
    for name, tensor in old.state_dict().items():
        name = name.replace("encoder.down_blocks.2.", "encoder.down_blocks.3.", 1)
        if name.startswith(("decoder.mid", "decoder.up_blocks.1", "quant", "encoder.down_blocks.3.")):
            assert torch.equal(grown[name], tensor) or name.startswith("encoder.down_blocks.3."), name


def test_latents_are_weighted_at_the_face(work: Path) -> None:
    source = latents.Latents.load(work / "latents", pictures.Pictures(work / "pictures", "portrait"))
    assert source.values.shape == (4, 16, 24, 16) and source.weights.shape == (4, 24, 16)
    assert np.allclose(source.weights.astype(np.float32).mean(axis=(1, 2)), 1, atol=0.01)
    assert float(source.weights.max()) > 1.5


def test_a_second_run_does_nothing_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--work", str(work), "--out", str(work / "out"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out == ""


def test_a_run_that_is_out_of_time_says_so_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.SCALES, "cpu", TINY)
    arguments = ["--work", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu", "--stages", "pictures"]
    assert command.main([*arguments, "--minutes", "0"]) == command.UNFINISHED
    assert "again" in capsys.readouterr().out and not (tmp_path / "pictures" / "done").exists()


def test_an_unknown_stage_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--work", "a", "--out", "b", "--stages", "vea"])
    assert "vea" in (said := capsys.readouterr().err) and "text_encoder" in said


def line(run: Run, steps: int) -> nn.Linear:
    """A line that is fitted to noisy points."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1)

    def loss(step: int) -> dict[str, torch.Tensor]:
        points = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(points) - 3 * points).pow(2).mean()}

    trained = pretrain(module, loss, run, steps=steps, learning_rate=0.1)
    assert isinstance(trained, nn.Linear)
    return trained


def test_a_stopped_run_that_goes_on_equals_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    whole = line(Run(tmp_path / "whole", device), 40)
    stopped = Run(tmp_path / "stopped", device, deadline=0.0)
    with pytest.raises(OutOfTime):
        line(stopped, 40)
    halves = Run(tmp_path / "halves", device, save_every=20)
    clock = iter([*[0.0] * 30, *[9e9] * 9])
    with monkeypatch.context() as patch, pytest.raises(OutOfTime):
        patch.setattr(loop.time, "monotonic", lambda: next(clock))
        line(Run(tmp_path / "halves", device, deadline=1.0, save_every=20), 40)
    kept = load_file(next((tmp_path / "halves").glob("checkpoint-*")) / "part-000.safetensors")
    assert 0 < int(kept["step"]) < 40
    resumed = line(halves, 40)
    assert torch.equal(resumed.weight, whole.weight) and torch.equal(resumed.bias, whole.bias)


def test_pictures_read_back_are_the_scenes_that_were_drawn(work: Path) -> None:
    read = pictures.Pictures(work / "pictures", "square")
    assert len(read) == 32 and read.pixels.shape == (32, 256, 256, 3)
    assert read.scenes[3] == pictures.scene_of(3, "square")
    assert np.array_equal(read.pixels[3], np.asarray(pictures.render(read.scenes[3])))
