"""Train the judge of the drawn world. It is measured on the set's last pictures, which it never trains on."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.cartoon.attributes import ATTRIBUTES, COLOURS, POSE, UNSEEN, truth
from engine.cartoon.judge import SIDE, Judge
from engine.device.precision import autocast
from engine.pretraining.loop import Run, join_processes, pretrain
from engine.pretraining.pictures import Pictures
from engine.pretraining.text_encoder import Targets
from engine.pretraining.vae import to_input
from storage.atomic import atomic_write, write_text

EMPHASIS = {"eyes": 3.0, "mouth": 2.0, "clothes": 2.0, "hair_style": 2.0, "facial_hair": 2.0, "glasses": 2.0}
"""Weights of the losses of attributes that few pixels show; 1 for the others."""


def held_out(count: int) -> int:
    """How many of `count` pictures, the last ones, are for measuring only: 1,000, or a tenth of a small set."""
    return min(1000, count // 10)


def train(run: Run, pictures: Pictures, out: Path, *, steps: int, batch: int, peak: float = 1.5e-3) -> None:
    """Train the judge and save it to `out`, with its accuracy.

    Raises:
        OutOfTime: the run's deadline came first.
    """
    rank, processes = join_processes(run.device)
    device, pixels = run.device, pictures.pixels
    rows_of = [truth(scene) for scene in pictures.scenes]
    learned = len(pictures) - held_out(len(pictures))
    measured = np.arange(learned, len(pictures))

    def seen(rows: np.ndarray) -> Tensor:
        """Pictures at the judge's size, (n, 3, 128, 128)."""
        return F.interpolate(to_input(pixels[np.sort(rows)], device), SIDE, mode="area")

    def augmented(picture: Tensor, random: np.random.Generator) -> Tensor:
        # Drawn pictures of a U-Net are softer and noisier than rendered ones, and strangers' albums have other tints.
        if random.random() < 0.35:
            side = int(random.integers(72, SIDE))
            picture = F.interpolate(F.interpolate(picture, side, mode="area"), SIDE, mode="bilinear")
        return picture + float(random.random() * 0.06) * torch.randn_like(picture)

    def loss(step: int) -> dict[str, Tensor]:
        torch.manual_seed(step * processes + rank)
        random = np.random.default_rng(step * processes + rank)
        rows = np.sort(random.integers(0, learned, batch))
        picture = augmented(seen(rows), random).contiguous(memory_format=torch.channels_last)
        target = Targets([rows_of[row] for row in rows], device)
        with autocast(device):
            classes, colours, pose = judge(picture)
        losses = [
            EMPHASIS.get(name, 1.0) * F.cross_entropy(classes[name].float(), numbers, ignore_index=UNSEEN)
            for name, numbers in target.classes.items()
            if bool((numbers != UNSEEN).any())
        ]
        for name, (values, shown) in target.colours.items():
            error = (colours[name].float() - values).pow(2).mean(dim=1)
            losses.append(20 * (error * shown).sum() / shown.sum().clamp_min(1))
        position = 5 * F.mse_loss(pose.float(), target.pose)
        return {"loss": torch.stack(losses).mean() + position, "position": position}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        parts = [module(seen(rows)) for rows in np.array_split(measured, 10)]
        target = Targets([rows_of[row] for row in measured], device)
        figures = {}
        for name in ATTRIBUTES:
            chosen, shown = torch.cat([part[0][name].argmax(dim=1) for part in parts]), target.classes[name] != UNSEEN
            figures[name] = float((chosen[shown] == target.classes[name][shown]).float().mean())
        for name in COLOURS:
            values, shown = target.colours[name]
            error = (torch.cat([part[1][name] for part in parts]) - values).abs().mean(dim=1)
            figures[f"{name} error"] = float((error * shown).sum() / shown.sum())
        error = (torch.cat([part[2] for part in parts]) - target.pose).abs().mean(dim=0)
        return figures | {f"{name} error": float(value) for name, value in zip(POSE, error, strict=True)}

    torch.manual_seed(0)
    judge = Judge().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    best = pretrain(judge, loss, run, steps=steps, learning_rate=peak, on_save=measure)
    if rank:
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "judge.safetensors") as draft:
        save_file({name: tensor.half().cpu().contiguous() for name, tensor in best.state_dict().items()}, draft)
    figures = {name: round(value, 4) for name, value in measure(best, steps).items()}
    write_text(out / "accuracy.json", json.dumps(figures, indent=1) + "\n")
