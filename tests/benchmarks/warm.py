"""Drawing on a warm base: against a pipeline that loads the LoRA each time, between avatars, and during a training."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from engine.adapters.adapters import FILE, LORA_METADATA, Attached, read_file, write
from engine.bases.base import BaseModel, drawing_dtype
from engine.drawing.drawing import Drawing, Picture, draw, draw_together, make_plan
from engine.learning.config import TrainingConfig
from engine.learning.listener import Listener, Progress
from engine.learning.training import train
from engine.recipe import choose
from engine.toon import WEIGHTS

Figures = dict[str, tuple[float, float] | tuple[float, float, float]]


def timed(task: Callable[[], object], times: int) -> float:
    """The median seconds of a task, after one that does not count."""
    task()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        task()
        took.append(time.perf_counter() - began)
    return median(took)


def figures(avatars: Sequence[Path], token: str, noun: str, times: int = 7) -> Figures:
    """Ours, the reference's and the goal of each comparison."""
    base = BaseModel.load(denoiser_dtype=drawing_dtype)
    attached = Attached(base)
    prompt = f"a photo of {token} {noun} in a suit"

    def ours(*used: Path) -> None:
        for avatar in used:
            draw(base, attached, Drawing(prompt, seed=1, avatars=(avatar,)))

    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def loading() -> None:
        for avatar in avatars:
            pipeline.load_lora_weights(avatar, weight_name=FILE)
            pipeline(prompt, num_inference_steps=base.family.draw_steps, guidance_scale=base.family.guidance)
            pipeline.unload_lora_weights()

    same, other = timed(lambda: ours(avatars[0], avatars[0]), times), timed(lambda: ours(*avatars), times)
    return {
        "warm imagine, two avatars in turn, s": (other, timed(loading, times), 0.5),
        "two avatars in turn over one avatar twice, s": (other, same, 1.05),
        "eight people in one batch over eight rows of one person, s": (
            *eight(base, attached, avatars, prompt, times), 1 / 0.9,
        ),
    } | during_training(base, attached, avatars[0], token, noun)  # fmt: skip


def eight(base: BaseModel, attached: Attached, avatars: Sequence[Path], prompt: str, times: int) -> tuple[float, float]:
    """Seconds of eight rows in one batch: each with an adapter of its own, and all with the same one."""
    own = [avatars[0].parent / f"own-{number}" for number in range(8)]
    for number, folder in enumerate(own):
        facts, tensors, config = read_file(avatars[number % len(avatars)])
        different = {name: tensor + 1e-3 * torch.randn_like(tensor) for name, tensor in tensors.items()}
        write(different, facts, folder / FILE, {LORA_METADATA: json.dumps(config)})

    def together(worn: Sequence[Path]) -> list[list[Picture]]:
        asked = [Drawing(prompt, seed=number, avatars=(path,)) for number, path in enumerate(worn)]
        return draw_together(base, attached, [make_plan(one, base, attached) for one in asked])

    return timed(lambda: together(own), times), timed(lambda: together([avatars[0]] * 8), times)


def during_training(base: BaseModel, attached: Attached, avatar: Path, token: str, noun: str) -> Figures:
    """What a drawing costs a training beyond its own time, and what it finds of the base's memory."""
    album = [Image.new("RGB", (128, 128), (30 * number, 90, 120)) for number in range(8)]
    recipe = choose(8, "lora", base.family, steps=12, prior_weight=0)
    asked = Drawing(f"a photo of {token} {noun}", seed=2, avatars=(avatar,))
    drawing = timed(lambda: draw(base, attached, asked), 3)
    weights = {name: parameter.data_ptr() for name, parameter in base.unet.named_parameters() if "lora" not in name}
    spent: list[float] = []

    def on_step(progress: Progress) -> None:
        if progress.step in (4, 8):
            began = time.perf_counter()
            draw(base, attached, asked)
            spent.append(time.perf_counter() - began)

    def steps(callback: Callable[[Progress], None]) -> tuple[float, list[float]]:
        ticks: list[float] = []

        class Ticking(Listener):
            def on_step(self, progress: Progress) -> None:
                ticks.append(time.perf_counter())
                callback(progress)

        began = time.perf_counter()
        config = TrainingConfig(token, noun, recipe)
        train(base, album, config, avatar.parent / "during" / FILE, listener=Ticking())
        return time.perf_counter() - began, [b - a for a, b in itertools.pairwise(ticks)]

    quiet, durations = steps(lambda progress: None)
    busy, _ = steps(on_step)
    after = {name: parameter.data_ptr() for name, parameter in base.unet.named_parameters() if "lora" not in name}
    own = {name: pointer for name, pointer in after.items() if name in weights}
    copies = 1.0 + sum(weights[name] != pointer for name, pointer in own.items()) / max(1, len(own))
    return {
        "training with two drawings, less their time, over training alone, s": (busy - sum(spent), quiet, 1.1),
        "drawing during a training over drawing alone, s": (median(spent), drawing, 1.2),
        "longest wait of an imagine for the training (its longest step) over its median step, s": (
            max(durations), median(durations),
        ),
        "copies of the base's weights": (copies, 1.0, 1.0),
    }  # fmt: skip
