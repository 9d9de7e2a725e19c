"""Several adapters on one base: on one row with weights, on different rows of a batch, and few-step adapters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image

from engine import tensor_files
from engine.adapters import adapters
from engine.adapters.adapters import FILE, LORA_METADATA, Attached, read_file, write
from engine.bases.base import BaseModel, plain_parameters
from engine.drawing.drawing import Drawing, Plan, draw, make_plan
from engine.learning.distillation import DEFAULTS, distil, few_step_facts
from engine.learning.listener import Progress
from engine.recipe import ATTENTION, Distillate
from tests.engine.learning import learn
from tests.engine.tiny import LORA, SIDE, asked, assert_same, load, solved, together

CONVOLVED = replace(LORA, text_encoder=True)
ONE_STEP = replace(DEFAULTS["consistency"], steps=1, batch=1, rank=4)


@pytest.fixture(scope="module")
def people(folders, pictures, tmp_path_factory) -> dict[str, Path]:
    """Two people and a style of the tiny SD 1.x."""
    base, made = load(folders("sd1")), {}
    for number, name in enumerate(("ann", "bob", "style")):
        made[name] = tmp_path_factory.mktemp(name)
        recipe = replace(CONVOLVED, rank=4 + 2 * number, alpha=8)
        learn(base, pictures[number:], recipe, made[name] / FILE, token=f"zk{number}", side=SIDE, seed=number)
    return made


def files(plan: Plan) -> list[tuple[Path, float]]:
    """The files of its adapters, and their weights."""
    return [(file.path, weight) for file, weight in plan.adapters]


def alike(one, other) -> None:
    assert_same(one.image, other.image, 2)


def test_every_row_of_a_batch_is_the_picture_drawn_alone(folders, people, exact) -> None:
    base = load(folders("sd1"))
    attached = Attached(base)
    drawings = [
        asked(people["ann"], count=2, prompt="zk0 man", seed=1),
        asked(people["bob"], prompt="zk1 man in a suit", seed=2, guidance=5.0),
        asked(prompt="nobody", seed=3, negative_prompt="a hat"),
        asked(people["ann"], people["style"], weights=(0.7, 1.2), seed=4),
    ]
    batch = together(base, attached, drawings)
    assert [[picture.seed for picture in pictures] for pictures in batch] == [[1, 2], [2], [3], [4]]
    for drawing, pictures in zip(drawings, batch, strict=True):
        for one, other in zip(pictures, draw(base, attached, drawing), strict=True):
            alike(one, other)
    plain = draw(base, attached, replace(drawings[1], avatars=()))[0]
    assert plain.image.tobytes() != batch[1][0].image.tobytes()


@pytest.mark.slow
def test_eight_people_in_one_batch_get_the_pictures_that_each_gets_alone(
    folders, pictures, tmp_path: Path, exact
) -> None:
    """The adapters differ in rank, scale and layers. Prompt, seed and everything else are the same, so a row with its
    neighbour's adapters would show the neighbour's picture."""
    base = load(folders("sd1"))
    for number in range(8):
        recipe = replace(
            CONVOLVED, steps=2, learning_rate=3e-2, rank=2 + number, alpha=4 + number, text_encoder=number % 2 == 0,
            targets=(*ATTENTION, "conv1") if number % 3 == 0 else None, dora=number == 5, rslora=number == 6,
        )  # fmt: skip
        learn(base, pictures[number % 5 :], recipe, tmp_path / str(number) / FILE, side=SIDE, seed=number)
    attached = Attached(base)
    drawings = [asked(tmp_path / str(number)) for number in range(8)]
    batches: list[int] = []
    counted = base.unet.register_forward_pre_hook(
        lambda unet, arguments, named: batches.append(len(arguments[0])), with_kwargs=True
    )
    batch = [of_one[0] for of_one in together(base, attached, drawings)]
    counted.remove()
    # Eight rows and, for guidance, eight more: at once, or each half on a core of its own.
    assert min(batches) >= 8 and sum(batches) == 16 * drawings[0].steps
    alone = [draw(base, attached, drawing)[0] for drawing in drawings]
    for one, other in zip(batch, alone, strict=True):
        alike(one, other)
    shown = [np.asarray(one.image, np.int16) for one in alone]
    assert min(np.abs(a - b).max() for n, a in enumerate(shown) for b in shown[:n]) > 4


def test_the_weights_say_how_much_each_adapter_counts(folders, people, exact) -> None:
    base = load(folders("sd1"))
    attached = Attached(base)
    both = draw(base, attached, asked(people["ann"], people["style"]))[0]
    alike(draw(base, attached, asked(people["ann"], people["style"], weights=(1.0, 0.0)))[0],
          draw(base, attached, asked(people["ann"]))[0])  # fmt: skip
    alike(draw(base, attached, asked(people["ann"], people["style"], weights=(1.0, 1.0)))[0], both)
    assert draw(base, attached, asked(people["ann"], people["style"], weights=(1.0, 0.3)))[0].image.tobytes() != (
        both.image.tobytes()
    )


def test_two_adapters_with_weights_are_those_of_plain_diffusers(folders, people, exact) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folders("sd1"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for name in ("ann", "style"):
        pipeline.load_lora_weights(people[name], weight_name=FILE, adapter_name=name)
    pipeline.set_adapters(["ann", "style"], [0.8, 0.5])
    latents = torch.randn((4, SIDE // 4, SIDE // 4), generator=torch.Generator().manual_seed(5))[None]
    times = solved(pipeline, 3)
    theirs = pipeline("a man", timesteps=times, guidance_scale=3.0, latents=latents, height=SIDE, width=SIDE)
    base = load(folders("sd1"))
    ours = draw(base, Attached(base), asked(people["ann"], people["style"], weights=(0.8, 0.5)))[0]
    assert_same(ours.image, theirs.images[0])


def copied(adapter: Path, folder: Path) -> Path:
    """The adapter as a job brings it: a copy in a folder of its own."""
    folder.mkdir()
    shutil.copyfile(adapter / FILE, folder / FILE)
    return folder


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_an_avatar_stays_loaded_wherever_its_file_lies(folders, pictures, tmp_path: Path, monkeypatch, method) -> None:
    base, reads = load(folders("sd1")), []
    for seed in (1, 2):
        recipe = replace(LORA, method=method, steps=1, prior_batch=0)
        learn(base, pictures, recipe, tmp_path / str(seed) / FILE, side=SIDE, seed=seed)
    read = adapters.read_tensors
    monkeypatch.setattr(adapters, "read_tensors", lambda file: reads.append(file) or read(file))
    attached = Attached(base)
    first, again = (asked(copied(tmp_path / "1", tmp_path / name), steps=1) for name in ("first", "again"))
    keys = {make_plan(drawing, base, attached).batch_key for drawing in (first, again)}
    assert len(keys) == 1
    alike(*(of_one[0] for of_one in together(base, attached, [first, again])))
    assert len(reads) == 1
    (tmp_path / "again" / FILE).write_bytes((tmp_path / "2" / FILE).read_bytes())
    draw(base, attached, again)
    assert len(reads) == 2


def test_a_request_of_four_pictures_reads_its_adapter_once(folders, people, tmp_path: Path, monkeypatch) -> None:
    """Once to hash it, once for the header, once for the tensors; another copy of the same content is only hashed."""
    facts, tensors, config = read_file(people["ann"])
    write(tensors, replace(facts, seed=77), tmp_path / "first" / FILE, {LORA_METADATA: json.dumps(config)})
    base, opened = load(folders("sd1")), list[str]()
    safe_open, path_open = tensor_files.safe_open, Path.open
    monkeypatch.setattr(
        tensor_files, "safe_open", lambda path, *rest: opened.append("safetensors") or safe_open(path, *rest)
    )
    monkeypatch.setattr(
        Path, "open", lambda path, *rest: (path.name == FILE and opened.append("bytes")) or path_open(path, *rest)
    )
    attached = Attached(base)
    draw(base, attached, asked(tmp_path / "first", count=4))
    assert opened == ["bytes", "safetensors", "safetensors"]
    draw(base, attached, asked(tmp_path / "first", count=4))
    assert len(opened) == 3
    draw(base, attached, asked(copied(tmp_path / "first", tmp_path / "again"), count=4))
    assert opened[3:] == ["bytes"]


def test_drawing_during_a_training_copies_no_weight_of_the_base(folders, people, pictures, tmp_path: Path) -> None:
    base = load(folders("sd1"))
    pointers = {name: tensor.data_ptr() for name, tensor in plain_parameters(base.unet)}
    attached = Attached(base)
    seen: list[int] = []

    def on_step(progress: Progress) -> None:
        together(base, attached, [asked(people["ann"], steps=1), asked(people["bob"], steps=1)])
        assert {name: tensor.data_ptr() for name, tensor in plain_parameters(base.unet)} == pointers
        seen.append(progress.step)

    learn(base, pictures, replace(LORA, steps=2), tmp_path / FILE, token="zk9", side=SIDE, on_step=on_step)
    assert seen == [1, 2]
    kept = [tensor for lora in attached.loaded for part in lora.layers.values() for one in part.values()
            for tensor in one.tensors]  # fmt: skip
    own = {tensor.untyped_storage().data_ptr() for _, tensor in plain_parameters(base.unet)}
    assert not own & {tensor.untyped_storage().data_ptr() for tensor in kept}
    assert sum(tensor.numel() for tensor in kept) < 0.5 * sum(
        tensor.numel() for _, tensor in plain_parameters(base.unet)
    )


def test_drawings_that_differ_in_steps_cannot_share_a_batch(folders) -> None:
    base = load(folders("sd1"))
    with pytest.raises(ValueError, match="share"):
        together(base, Attached(base), [asked(steps=2), asked(steps=3)])


@pytest.mark.parametrize("method", get_args(Distillate))
@pytest.mark.parametrize("family", ["sd1_wide", "sd2", "sdxl", "klein"])
def test_a_few_step_adapter_is_distilled_and_stacks(
    folders, family: str, method: Distillate, pictures, tmp_path: Path
) -> None:
    base: BaseModel = load(folders(family))
    squares = [picture.resize((SIDE, SIDE)) for picture in pictures[:3]]
    steps = 40 if family == "sd1_wide" else 2
    recipe = replace(DEFAULTS[method], steps=steps, batch=3, learning_rate=1e-3, rank=4, warm_up=0)
    told: list[int] = []
    done = distil(
        base, squares, ["a", "b", "b"], recipe, tmp_path / FILE, on_step=lambda step, of, loss: told.append(step)
    )
    assert told == list(range(1, recipe.steps + 1)) and np.isfinite(done.last_loss)
    if family == "sd1_wide":
        assert done.last_loss < done.first_loss
    attached, drawing = Attached(base), Drawing("a man", seed=5, count=2, width=SIDE, height=SIDE, avatars=(tmp_path,))
    seen: list[tuple[int, int]] = []
    two = draw(base, attached, drawing, lambda step, of: seen.append((step, of)))
    assert seen == [(n, 4) for n in range(1, 5)]
    alike(two[1], draw(base, attached, replace(drawing, seed=6, count=1))[0])
    if family != "klein":
        person = tmp_path / "person"
        learn(base, pictures, LORA, person / FILE, side=SIDE)
        stacked = draw(base, attached, replace(drawing, avatars=(tmp_path, person)))[0]
        assert stacked.image.tobytes() != two[0].image.tobytes()


def test_a_bases_few_step_adapter_applies_when_few_steps_are_requested(
    folders, pictures, tmp_path: Path, monkeypatch
) -> None:
    base = load(folders("sd1"))
    distil(base, [pictures[0].resize((SIDE, SIDE))], ["a"], ONE_STEP, tmp_path / FILE)
    monkeypatch.setattr(base, "family", replace(base.family, few_step_adapter=tmp_path))
    plans = [make_plan(asked(steps=steps), base, Attached(base)) for steps in (3, 4, 5)]
    assert [files(plan) for plan in plans] == [[], [(tmp_path / FILE, 1.0)], []]
    assert [plan.consistency for plan in plans] == [False, True, False]
    monkeypatch.setattr(base, "fingerprint", "other weights")
    assert not make_plan(asked(steps=4), base, Attached(base)).adapters


def test_the_bases_few_step_adapter_combines_with_a_weighted_style(folders, people, tmp_path: Path) -> None:
    base: BaseModel = load(folders("sd1"))
    distil(base, [Image.new("RGB", (SIDE, SIDE))], ["a"], ONE_STEP, tmp_path / FILE)
    base.family = replace(base.family, few_step_adapter=tmp_path)
    attached, styled = Attached(base), asked(people["style"], weights=(0.6,), steps=4, seed=1)
    style = (people["style"] / FILE, 0.6)
    assert files(make_plan(styled, base, attached)) == [style, (tmp_path / FILE, 1.0)]
    assert files(make_plan(replace(styled, steps=9), base, attached)) == [style]
    seen: list[tuple[int, int]] = []
    picture = draw(base, attached, styled, lambda step, of: seen.append((step, of)))[0]
    assert seen == [(n, 4) for n in range(1, 5)]
    plain = draw(base, attached, replace(styled, avatars=(), weights=None))[0]
    assert picture.image.tobytes() != plain.image.tobytes()


def test_few_step_drawing_is_that_of_diffusers_lcm_scheduler(folders) -> None:
    """The levels that are passed, and the step between them when the noise is the same."""
    schedule = load(folders("sd1")).schedule
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    theirs = LCMScheduler(**config, set_alpha_to_one=False)
    theirs.set_timesteps(4)
    steps = schedule.few_step(4, 1024)
    assert [step.timestep for step in steps] == theirs.timesteps.tolist()
    sample, predicted = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    denoised = theirs.step(predicted, theirs.timesteps[0], sample, generator=torch.Generator().manual_seed(2)).denoised
    assert torch.allclose(schedule.estimates(predicted, sample, *steps[0].now)[0], denoised, rtol=1e-3, atol=1e-3)


def test_the_facts_of_a_few_step_adapter(folders) -> None:
    said = few_step_facts(load(folders("sd1")), 8, 1.5)
    assert (said.kind, said.recipe["draw_steps"], said.recipe["guidance"]) == ("few", 8, 1.5)
