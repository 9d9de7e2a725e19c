"""Few-step adapters: a LoRA that makes a base draw in about four steps, worn beside avatars and styles.

Latent consistency distillation into a LoRA (arXiv 2310.04378, algorithm 1, and arXiv 2311.05556): whatever point of a
path from noise to picture the adapted base is shown, it is to answer with the path's end. The path is the base's own,
one step of its solver with guidance; the end is what the adapted base says of the next point.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.adapters import AvatarFacts, attach_fresh, detach, save_lora
from engine.base import BaseModel
from engine.errors import InputError
from engine.examples import prepare, read_captioned
from engine.families import Words
from engine.optimisers import learning_rate_at
from engine.precision import autocast
from engine.recipe import Recipe

DISTILLING = "in_distillation"
DRAW_STEPS = 4
HUBER = 1e-3
"""c of the pseudo-Huber loss sqrt(d^2 + c^2) - c (diffusers' train_lcm_distill_lora_sd_wds.py)."""


@dataclass(frozen=True)
class Distillation:
    """How a few-step adapter is learned; the rates and ranks are those of diffusers' script for LCM-LoRA."""

    steps: int = 1000
    batch: int = 8
    learning_rate: float = 1e-4
    rank: int = 64
    guidance: float | None = None
    """Of the paths; the family's if None. One for all: a LoRA is not told which, and would learn their mean."""


@dataclass(frozen=True)
class Distilled:
    """What a distillation did."""

    steps: int
    seconds: float
    first_loss: float
    last_loss: float


def distil(
    base: BaseModel,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    recipe: Distillation,
    out: Path,
    *,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] = lambda step, of, loss: None,
) -> Distilled:
    """Distil `base` into a few-step adapter at `out`; the base stays as it is.

    Args:
        pictures: RGB, of sides that the base draws, all alike.
        captions: what each of them shows.
    Raises:
        InputError: `no_photos` without pictures.
    """
    if not pictures:
        raise InputError("no_photos", folder="the set")
    began = time.monotonic()
    means, deviations = base.encode_pictures(pictures)
    distinct = sorted(set(captions))
    words = base.encode_set(distinct)
    numbers = torch.tensor([distinct.index(caption) for caption in captions])
    silence = base.encode_negatives([""])
    schedule = base.schedule
    grid = schedule.grid(means[0, 0].numel())
    times = torch.tensor([step.timestep for step in grid], device=base.device)
    now, then = (torch.tensor([getattr(step, end) for step in grid], device=base.device) for end in ("now", "then"))
    scale = base.family.guidance if recipe.guidance is None else recipe.guidance
    lora = Recipe("lora", recipe.steps, recipe.learning_rate, recipe.batch, 0, 0.0, rank=recipe.rank, alpha=recipe.rank)
    parameters = attach_fresh(base, lora, DISTILLING, seed)
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=1e-3)
    losses: list[float] = []

    def answer(noisy: Tensor, timestep: Tensor, heard: Words) -> Tensor:
        with autocast(base.device):
            return base.predict(base.unet, noisy, timestep, heard)

    def end_of(noisy: Tensor, places: Tensor, heard: Words) -> Tensor:
        alpha, sigma = (now[places, axis].reshape(-1, 1, 1, 1) for axis in (0, 1))
        return schedule.estimates(answer(noisy, times[places], heard), noisy, alpha, sigma)[0]

    try:
        for step in range(recipe.steps):
            random = torch.Generator().manual_seed((seed << 32) + step)
            rows = torch.randint(len(means), (recipe.batch,), generator=random)
            clean = means[rows] + deviations[rows] * torch.randn(means[rows].shape, generator=random).to(base.device)
            noise = torch.randn(clean.shape, generator=random).to(base.device)
            # Spread over the whole path, as in training.
            spread = (torch.arange(recipe.batch) + torch.rand(recipe.batch, generator=random)) / recipe.batch
            places = (spread * len(grid)).long().to(base.device)
            heard = words[numbers[rows].to(words.device)]
            (alpha, sigma), (after, rest) = (
                tuple(level[places, axis].reshape(-1, 1, 1, 1) for axis in (0, 1)) for level in (now, then)
            )
            noisy = alpha * clean + sigma * noise
            with torch.no_grad():
                base.unet.disable_adapters()
                both = answer(
                    torch.cat((noisy, noisy)), times[places].repeat(2), Words.join([silence.repeat([len(rows)]), heard])
                )
                base.unet.enable_adapters()
                without, with_it = both.chunk(2)
                picture, left = schedule.estimates(without + scale * (with_it - without), noisy, alpha, sigma)
                following = (places + 1).clamp_max(len(grid) - 1)
                wanted = end_of(after * picture + rest * left, following, heard)
                # The path's last point is its own end.
                wanted = torch.where((places == len(grid) - 1).reshape(-1, 1, 1, 1), picture, wanted)
            base.unet.train()
            distance = end_of(noisy, places, heard) - wanted
            loss = ((distance**2 + HUBER**2).sqrt() - HUBER).mean()
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_at("linear", step, recipe.steps, 0)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step + 1}")
            on_step(step + 1, recipe.steps, losses[-1])
        save_lora(
            base, DISTILLING, facts(base, DRAW_STEPS, 1.0, lora.as_json() | {"distilled_guidance": scale}, seed), out
        )
    finally:
        detach(base, DISTILLING)
        base.unet.eval()
    tenth = max(1, len(losses) // 10)
    return Distilled(recipe.steps, time.monotonic() - began, sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth)


def facts(
    base: BaseModel, steps: int, guidance: float, recipe: dict[str, Any] | None = None, seed: int = 0
) -> AvatarFacts:
    """What a few-step adapter says about itself: the steps and guidance to draw with come with its recipe."""
    how = {**(recipe or {}), "draw_steps": steps, "guidance": guidance}
    return AvatarFacts("", "", "lora", base.source, how, seed, "few", base.fingerprint)


def world(base: BaseModel, count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """Pictures of the embedded base's drawn world in its size, and their captions; nobody who is held out."""
    from random import Random

    from engine.toon.captions import caption
    from engine.toon.world import render, sample_scene

    random = Random(seed)
    scenes = [sample_scene(random) for _ in range(count)]
    return [render(scene, base.side) for scene in scenes], [caption(scene, random) for scene in scenes]


def captioned(base: BaseModel, folder: Path) -> tuple[list[Image.Image], list[str]]:
    """The pictures of an imagefolder with a metadata.jsonl, as squares of the base's size, and their captions.

    Raises:
        InputError: `no_captions`, `bad_captions`.
    """
    listed = read_captioned(folder)
    return [prepare(picture, base.side) for picture in listed], list(listed.texts)
