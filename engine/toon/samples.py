"""Few-step adapters: a LoRA that makes a base draw in about four steps, worn beside avatars and styles.

Two ways to learn one. By consistency (arXiv 2310.04378, algorithm 1, and arXiv 2311.05556), as LCM-LoRAs are: whatever
point of a path from noise to picture the adapted base is shown, it is to answer with the path's end. The path is the
base's own, one step of its solver with guidance; the end is what the adapted base says of the next point.

By endpoints (arXiv 2101.02388, there for one step): the adapted base draws in its few steps, and is to end where the
base ends in many from the same noise. Solver and guidance stay, so only what few steps lack is to be learned, and no
pictures are needed; but each step of learning backpropagates through a whole drawing.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.adapters import lora
from engine.adapters.adapters import AdapterFacts, attach_fresh, detach, save_lora
from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.schedule import Solver
from engine.device.cores import on_one_core
from engine.drawing.drawing import answer, denoise, noise
from engine.learning.examples import prepare, read_captioned
from engine.learning.optimisers import Group, clip, learning_rate_at, make
from engine.recipe import Distillate, Recipe
from storage.errors import UserError

DISTILLING = "in_distillation"
DRAW_STEPS = 4
HUBER = 1e-3
"""c of the pseudo-Huber loss sqrt(d^2 + c^2) - c (diffusers' train_lcm_distill_lora_sd_wds.py)."""
NEAR = 1e-4
"""Added to a mean square under a root, whose gradient would grow without end near zero."""
TOGETHER = 8
"""Drawings of the base at once."""
TIMES = ("time_emb_proj",)
"""What tells a layer which of the few steps it is in, in a U-Net."""


@dataclass(frozen=True)
class Distillation:
    """How a few-step adapter is learned."""

    method: Distillate
    steps: int
    batch: int
    learning_rate: float
    rank: int
    warm_up: int = 0
    """Steps over which the learning rate rises; then it falls in a line."""
    guidance: float | None = None
    """Of the base's paths; the family's if None. One for all: a LoRA is not told which, and would learn their mean."""


DEFAULTS: Mapping[Distillate, Distillation] = {
    "consistency": Distillation("consistency", 1000, 8, 1e-4, 64),
    "endpoints": Distillation("endpoints", 2400, 4, 1e-3, 8, warm_up=30),
}
"""The first has the rates and ranks of diffusers' script for LCM-LoRA; the second is what the embedded base has."""


@dataclass(frozen=True)
class Distilled:
    """What a distillation did."""

    steps: int
    seconds: float
    first_loss: float
    last_loss: float


OnStep = Callable[[int, int, float], None]


def distil(
    base: BaseModel,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    recipe: Distillation,
    out: Path,
    *,
    seed: int = 0,
    on_step: OnStep = lambda step, of, loss: None,
) -> Distilled:
    """Distil `base` into a few-step adapter at `out`; the base stays as it is.

    Args:
        pictures: RGB, of sides that the base draws, all alike; endpoints need none.
        captions: what each of them shows, or what is to be drawn.
    Raises:
        UserError: `no_photos` without captions.
    """
    if not captions:
        raise UserError("no_photos", folder="the set")
    began = time.monotonic()
    scale = base.family.guidance if recipe.guidance is None else recipe.guidance
    targets = base.family.adapter_targets + (TIMES if recipe.method == "endpoints" else ())
    how = Recipe(
        "lora", recipe.steps, recipe.learning_rate, recipe.batch, 0, 0.0, rank=recipe.rank, alpha=recipe.rank,
        targets=targets,
    )  # fmt: skip
    with on_one_core(base):
        # The base draws before anything is on it.
        loss_at = (
            _endpoints(base, captions, recipe.batch, scale, seed)
            if recipe.method == "endpoints"
            else _consistency(base, pictures, captions, recipe.batch, scale, seed)
        )
        parameters = attach_fresh(base, how, DISTILLING, seed)
        try:
            groups: list[Group] = [{"params": parameters, "lr": recipe.learning_rate}]
            optimiser = make(replace(how, weight_decay=1e-3), groups, base.device)
            losses = _learn(optimiser, parameters, loss_at, recipe, on_step)
            told = how.as_json() | {"distillation": recipe.method, "distilled_guidance": scale}
            guidance = scale if recipe.method == "endpoints" else 1.0
            save_lora(base, facts(base, DRAW_STEPS, guidance, told, seed), out)
        finally:
            detach(base)
            base.unet.eval()
    tenth = max(1, len(losses) // 10)
    return Distilled(recipe.steps, time.monotonic() - began, sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth)


def _learn(
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    loss_at: Callable[[int], Tensor],
    recipe: Distillation,
    on_step: OnStep,
) -> list[float]:
    """Follow the gradient of `loss_at` each step; the losses. Raises FloatingPointError if one is no number."""
    losses: list[float] = []
    for step in range(recipe.steps):
        loss = loss_at(step)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_at("linear", step, recipe.steps, recipe.warm_up)
        optimiser.zero_grad()
        loss.backward()
        clip(parameters, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} at step {step + 1}")
        on_step(step + 1, recipe.steps, losses[-1])
    return losses


def _endpoints(
    base: BaseModel, captions: Sequence[str], batch: int, scale: float, seed: int
) -> Callable[[int], Tensor]:
    """The loss: how far few steps end from where the base ends in many. The base draws one picture of each caption."""
    shape, silence = base.latent_shape(base.side, base.side), base.encode_negatives([""])
    words = base.encode_set(captions)
    seeds = [(seed << 32) + number for number in range(len(captions))]
    ends = torch.cat([
        denoise(
            base.unet, base, noise(seeds[at : at + TOGETHER], shape), words[at : at + TOGETHER], silence,
            steps=base.family.draw_steps, guidance=scale,
        )
        for at in range(0, len(captions), TOGETHER)
    ])  # fmt: skip
    plan = base.schedule.drawing(DRAW_STEPS, shape[1] * shape[2])
    guidance = None if scale == 1.0 else scale

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed((seed << 32) + step)
        rows = torch.randint(len(captions), (batch,), generator=random)
        latents = noise([seeds[row] for row in rows.tolist()], shape).to(base.device)
        heard = words[rows.to(words.device)]
        if guidance is not None:
            heard = Conditioning.join([silence.repeat([batch]), heard])
        solver = Solver(base.schedule, plan)
        for one in plan:
            latents = solver.step(answer(base, base.unet, latents, one.timestep, heard, guidance), latents, one)
        squares = ((latents - ends[rows.to(ends.device)]) ** 2).flatten(1).mean(dim=1)
        return (squares + NEAR).sqrt().mean()

    return loss


def _consistency(
    base: BaseModel, pictures: Sequence[Image.Image], captions: Sequence[str], batch: int, scale: float, seed: int
) -> Callable[[int], Tensor]:
    """The loss: how far the answers at a path's point are from those at its next."""
    means, deviations = base.encode_pictures(pictures)
    distinct = sorted(set(captions))
    words = base.encode_set(distinct)
    numbers = torch.tensor([distinct.index(caption) for caption in captions])
    silence = base.encode_negatives([""])
    schedule = base.schedule
    grid = schedule.grid(means[0, 0].numel())
    times = torch.tensor([step.timestep for step in grid], device=base.device)
    now, then = (torch.tensor([getattr(step, end) for step in grid], device=base.device) for end in ("now", "then"))

    def end_of(noisy: Tensor, places: Tensor, heard: Conditioning) -> Tensor:
        alpha, sigma = (now[places, axis].reshape(-1, 1, 1, 1) for axis in (0, 1))
        return schedule.estimates(answer(base, base.unet, noisy, times[places], heard, None), noisy, alpha, sigma)[0]

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed((seed << 32) + step)
        rows = torch.randint(len(means), (batch,), generator=random)
        clean = means[rows] + deviations[rows] * torch.randn(means[rows].shape, generator=random).to(base.device)
        disturbance = torch.randn(clean.shape, generator=random).to(base.device)
        # Spread over the whole path, as in training.
        spread = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        places = (spread * len(grid)).long().to(base.device)
        heard = words[numbers[rows].to(words.device)]
        (alpha, sigma), (after, rest) = (
            tuple(level[places, axis].reshape(-1, 1, 1, 1) for axis in (0, 1)) for level in (now, then)
        )
        noisy = alpha * clean + sigma * disturbance
        with torch.no_grad():
            both = Conditioning.join([silence.repeat([batch]), heard])
            with lora.switched_off(base.unet):
                guided = answer(base, base.unet, noisy, times[places], both, scale)
            picture, left = schedule.estimates(guided, noisy, alpha, sigma)
            following = (places + 1).clamp_max(len(grid) - 1)
            wanted = end_of(after * picture + rest * left, following, heard)
            # The path's last point is its own end.
            wanted = torch.where((places == len(grid) - 1).reshape(-1, 1, 1, 1), picture, wanted)
        base.unet.train()
        distance = end_of(noisy, places, heard) - wanted
        return ((distance**2 + HUBER**2).sqrt() - HUBER).mean()

    return loss


def facts(
    base: BaseModel, steps: int, guidance: float, recipe: dict[str, Any] | None = None, seed: int = 0
) -> AdapterFacts:
    """What a few-step adapter says about itself: the steps and guidance to draw with come with its recipe."""
    how = {**(recipe or {}), "draw_steps": steps, "guidance": guidance}
    return AdapterFacts("", "", "lora", base.source, how, seed, "few", base.fingerprint)


def world(base: BaseModel, count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """Pictures of the embedded base's drawn world in its size, and their captions; nobody who is held out."""
    from engine.toon.captions import caption
    from engine.toon.world import render, sample_scene

    random = Random(seed)
    scenes = [sample_scene(random) for _ in range(count)]
    return [render(scene, base.side) for scene in scenes], [caption(scene, random) for scene in scenes]


def prompts(count: int, seed: int = 0) -> list[str]:
    """What people may ask the embedded base for: of five, three captions of its world, one of somebody who is described
    in words, and one of a token or class noun."""
    from engine.toon.captions import caption, caption_beside, described
    from engine.toon.world import sample_person, sample_scene

    random = Random(f"prompts {seed}")
    names = ("a man", "a woman", "man", "woman", "cr7d man", "mia7 woman", "a person", "person")

    def one(kind: int) -> str:
        scene = sample_scene(random)
        if kind < 3:
            return caption(scene, random)
        who = described(sample_person(random, held_out=False)) if kind == 3 else random.choice(names)
        return f"a photo of {who}" if random.random() < 0.2 else caption_beside(who, scene.look, random)

    return [one(random.randrange(5)) for _ in range(count)]


def captioned(base: BaseModel, folder: Path) -> tuple[list[Image.Image], list[str]]:
    """The pictures of an imagefolder with a metadata.jsonl, as squares of the base's size, and their captions.

    Raises:
        UserError: `no_captions`, `bad_captions`.
    """
    listed = read_captioned(folder)
    return [prepare(picture, base.side) for picture in listed], list(listed.texts)
