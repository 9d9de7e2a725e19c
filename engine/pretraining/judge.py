"""Train the judge of the drawn world: `python -m engine.pretraining.judge --set DIR --work DIR --out DIR`.

It learns from the set that `engine.pretraining.pictures` drew, and is measured on the set's last 1,000 pictures, which
it never trains on. Ran once; kept so that it can be repeated.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.device.precision import autocast
from engine.pretraining import pictures
from engine.pretraining.loop import join_processes, pretrain
from engine.toon import SIZE, world
from engine.toon.judge import ATTRIBUTES, Judge, as_input, seen_as
from storage.atomic import atomic_write, write_text

EMPHASIS = {"eyes": 3.0, "clothes": 3.0, "hair_style": 2.0, "facial_hair": 2.0}
"""Weights of the losses of attributes that few pixels show; 1 for the others."""


def labels(scene: world.Scene) -> dict[str, int]:
    """Class indices of the attributes; -100, which the loss ignores, for what the picture does not show."""
    shown = {**vars(scene.person), **vars(scene.look)}
    numbers = {name: values.index(shown[name]) for name, values in ATTRIBUTES.items()}
    if scene.look.hat == "none":
        numbers["hat_colour"] = -100
    else:
        # A beard has the hair's colour too, but may be too small to show which of two similar ones it is.
        numbers["hair_style"] = numbers["hair_colour"] = -100
    if scene.look.glasses == "sunglasses":
        numbers["eyes"] = -100
    return numbers


def main(
    drawn_set: Path, work: Path, out: Path, steps: int, batch: int, compiled: bool, start: Path | None, rate: float
) -> None:
    torch.manual_seed(0)
    rank, processes = join_processes()
    drawn, scenes = pictures.load(drawn_set)
    targets = [labels(scene) for scene in scenes]
    table = {name: torch.tensor([row[name] for row in targets]) for name in ATTRIBUTES}
    held_out = np.arange(len(scenes) - 1000, len(scenes))

    def loss(step: int) -> dict[str, Tensor]:
        # Every step of every process has its own random numbers, also after a resume.
        torch.manual_seed(step * processes + rank)
        random = np.random.default_rng(step * processes + rank)
        rows = random.integers(0, len(scenes) - 1000, batch)
        picture = as_input(drawn[rows])
        # Augmentation: generated pictures are softer and noisier than rendered ones.
        if random.random() < 0.35:
            side = int(random.integers(80, SIZE))
            picture = F.interpolate(F.interpolate(picture, side, mode="area"), SIZE, mode="bilinear")
        picture = picture + float(random.random() * 0.06) * torch.randn_like(picture)
        # Augmentation: shifts of up to two pixels.
        shift = (int(random.integers(-2, 3)), int(random.integers(-2, 3)))
        picture = picture.roll(shift, dims=(2, 3)).contiguous(memory_format=torch.channels_last)
        with autocast(torch.device("cpu")):
            answers = {name: logits.float() for name, logits in forward(picture).items()}
        losses = [EMPHASIS.get(name, 1.0) * F.cross_entropy(answers[name], table[name][rows]) for name in ATTRIBUTES]
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        parts = [module(as_input(drawn[rows])) for rows in np.array_split(held_out, 10)]
        figures = {}
        for name, values in ATTRIBUTES.items():
            chosen, truth = torch.cat([part[name].argmax(dim=1) for part in parts]), table[name][held_out]
            called = torch.tensor([values.index(seen_as(value)) for value in values])
            shown = truth >= 0
            figures[name] = float((called[chosen[shown]] == called[truth[shown]]).float().mean())
        return figures

    judge = (Judge.load(start) if start else Judge()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(judge) if compiled else judge
    best = pretrain(judge, loss, work, steps=steps, learning_rate=rate, on_save=measure)
    if rank:
        return
    with atomic_write(out / "judge.safetensors") as draft:
        save_file({name: tensor.half().contiguous() for name, tensor in best.state_dict().items()}, draft)
    write_text(out / "accuracy.json", json.dumps(measure(best, steps), indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.pretraining.pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="several times as fast on a CPU; needs a C++ compiler")
    parser.add_argument("--from", type=Path, dest="start", help="folder of a judge to go on from")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.work, arguments.out, arguments.steps, arguments.batch, arguments.compile,
        arguments.start, arguments.learning_rate,
    )  # fmt: skip
