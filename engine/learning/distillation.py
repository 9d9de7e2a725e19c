"""Few-step adapters: a LoRA that makes a base draw in about four steps, combined with avatars and styles.

There are two ways to learn one. By consistency (arXiv 2310.04378, algorithm 1, and arXiv 2311.05556), as LCM-LoRAs are
learned: from any point of a path from noise to picture, the adapted base predicts the path's end. The path is one step
of the base's own solver with guidance; its end is what the adapted base predicts from the next point.

By endpoints (arXiv 2101.02388, there for one step): the adapted base draws in its few steps and learns to end where the
base ends in many, from the same noise. Solver and guidance stay as they are, so only the missing steps have to be
learned, and no pictures are needed. But each training step backpropagates through all steps of a drawing.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.adapters import lora
from engine.adapters.adapters import AdapterFacts, attach_fresh, detach, save_lora
from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.schedule import Solver
from engine.device.fast import one_core
from engine.device.generators import generator_of
from engine.drawing.denoising import Sampling, denoise, guided_prediction, noise
from engine.learning.optimisers import Group, clip, learning_rate_at, make
from engine.learning.state import not_finite
from engine.recipe import Distillate, Recipe
from storage.errors import UserError

DISTILLING = "in_distillation"
"""Name of the LoRA that is being trained."""

DRAW_STEPS = 4
"""Steps that a few-step adapter draws in."""

HUBER_C = 1e-3
"""c of the pseudo-Huber loss sqrt(d^2 + c^2) - c (diffusers' train_lcm_distill_lora_sd_wds.py)."""

ROOT_EPSILON = 1e-4
"""Added to a mean square under a root, whose gradient would otherwise grow without bound near zero."""

DRAWN_TOGETHER = 8
"""Rows of a batch in which the base draws its endpoints."""

TIME_EMBEDDING = ("time_emb_proj",)
"""Ends of the names of the U-Net's layers that tell it which of the few steps it is in."""

OnStep = Callable[[int, int, float], None]
"""Called after every training step with its number from 1, the number of steps, and the loss."""


@dataclass(frozen=True)
class Distillation:
    """How a few-step adapter is learned."""

    method: Distillate
    steps: int
    batch: int
    learning_rate: float
    rank: int
    warm_up: int = 0
    """Steps over which the learning rate rises; afterwards it falls linearly."""
    guidance: float | None = None
    """Guidance scale of the base's paths; the family's if None. All rows have the same one: the scale is no input of
    a LoRA, which would learn the mean of several."""


DEFAULTS: Mapping[Distillate, Distillation] = {
    "consistency": Distillation("consistency", 1000, 8, 1e-4, 64),
    "endpoints": Distillation("endpoints", 2400, 4, 1e-3, 8, warm_up=30),
}
"""The first has the rates and ranks of diffusers' LCM-LoRA script; the second made the embedded base's own adapter."""


@dataclass(frozen=True)
class Distilled:
    """What a distillation did."""

    steps: int
    seconds: float
    first_loss: float
    """Mean loss of the first tenth of the steps."""
    last_loss: float
    """Mean loss of the last tenth of the steps."""


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
    """Distil `base` into a few-step adapter at `out`; the base is afterwards as it was before.

    Args:
        pictures: RGB, all of one size that the base draws; endpoints need none.
        captions: what each picture shows; for endpoints, the prompts to draw.
    Raises:
        UserError: `no_photos` without captions, `loss_not_finite`.
    """
    if not captions:
        raise UserError("no_photos", folder="the set")
    began = time.monotonic()
    guidance = base.family.guidance if recipe.guidance is None else recipe.guidance
    endpoints = recipe.method == "endpoints"
    targets = base.family.adapter_targets + (TIME_EMBEDDING if endpoints else ())
    lora_recipe = Recipe(
        "lora",
        recipe.steps,
        recipe.learning_rate,
        recipe.batch,
        prior_batch=0,
        prior_weight=0.0,
        rank=recipe.rank,
        alpha=recipe.rank,
        targets=targets,
    )
    with one_core(base):
        # 1. What is learned: the base draws its endpoints, or encodes the pictures, before it has an adapter.
        loss_at: Callable[[int], Tensor]
        if endpoints:
            loss_at = EndpointLoss(base, captions, recipe.batch, guidance, seed)
        else:
            loss_at = ConsistencyLoss(base, pictures, captions, recipe.batch, guidance, seed)
        # 2. What learns it.
        parameters = attach_fresh(base, lora_recipe, DISTILLING, seed)
        try:
            groups: list[Group] = [{"params": parameters, "lr": recipe.learning_rate}]
            optimiser = make(replace(lora_recipe, weight_decay=1e-3), groups, base.device)
            # 3. The steps.
            losses = _learn(optimiser, parameters, loss_at, recipe, on_step)
            # 4. The file.
            values = lora_recipe.as_json() | {"distillation": recipe.method, "distilled_guidance": guidance}
            facts = few_step_facts(base, DRAW_STEPS, guidance if endpoints else 1.0, values, seed)
            save_lora(base, facts, out)
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
    """Minimise `loss_at(step)`; the losses. Raises UserError `loss_not_finite`."""
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
            raise not_finite(step + 1, losses[-1], recipe.learning_rate)
        on_step(step + 1, recipe.steps, losses[-1])
    return losses


class EndpointLoss:
    """How far a drawing in few steps ends from where the base's drawing in many steps ends.

    The base draws one picture for each caption, each from its own noise.
    """

    def __init__(self, base: BaseModel, captions: Sequence[str], batch: int, guidance: float, seed: int) -> None:
        self._base, self._batch, self._seed = base, batch, seed
        self._guidance = None if guidance == 1.0 else guidance
        self._shape = base.latent_shape(base.side, base.side)  # (c, h, w)
        self._negative = base.encode_negatives([""])
        self._conditioning = base.encode_set(captions)  # one row for each caption
        self._seeds = [(seed << 32) + number for number in range(len(captions))]
        ends = []
        for start in range(0, len(captions), DRAWN_TOGETHER):
            rows = slice(start, start + DRAWN_TOGETHER)
            latents = noise(self._seeds[rows], self._shape)  # (n, c, h, w)
            ends.append(
                denoise(
                    base.unet,
                    base,
                    latents,
                    self._conditioning[rows],
                    self._negative,
                    Sampling(base.family.draw_steps, guidance),
                )
            )
        self._ends = torch.cat(ends)  # (captions, c, h, w)
        self._plan = base.schedule.drawing(DRAW_STEPS, self._shape[1] * self._shape[2])

    def __call__(self, step: int) -> Tensor:
        """The loss of `step`, a scalar: the mean over rows of the root mean squared distance."""
        base = self._base
        random = generator_of(self._seed, step)
        rows = torch.randint(len(self._seeds), (self._batch,), generator=random)
        latents = noise([self._seeds[row] for row in rows.tolist()], self._shape).to(base.device)  # (batch, c, h, w)
        conditioning = self._conditioning[rows.to(self._conditioning.device)]
        if self._guidance is not None:
            conditioning = Conditioning.join([self._negative.repeat([self._batch]), conditioning])
        solver = Solver(base.schedule, self._plan)
        for one in self._plan:
            predicted = guided_prediction(base, base.unet, latents, one.timestep, conditioning, self._guidance)
            latents = solver.step(predicted, latents, one)
        squares = ((latents - self._ends[rows.to(self._ends.device)]) ** 2).flatten(1).mean(dim=1)  # (batch,)
        return (squares + ROOT_EPSILON).sqrt().mean()


class ConsistencyLoss:
    """How far the end predicted at one point of a path is from the end predicted at the path's next point."""

    def __init__(
        self,
        base: BaseModel,
        pictures: Sequence[Image.Image],
        captions: Sequence[str],
        batch: int,
        guidance: float,
        seed: int,
    ) -> None:
        self._base, self._batch, self._guidance, self._seed = base, batch, guidance, seed
        self._means, self._deviations = base.encode_pictures(pictures)  # (pictures, c, h, w) each
        distinct = sorted(set(captions))
        self._conditioning = base.encode_set(distinct)
        self._captions = torch.tensor([distinct.index(caption) for caption in captions])
        self._negative = base.encode_negatives([""])
        grid = base.schedule.solver_steps(self._means[0, 0].numel())
        self._points = len(grid)
        self._timesteps = torch.tensor([step.timestep for step in grid], device=base.device)  # (points,)
        # (points, 2): alpha and sigma at each point, and where the step from it leads.
        self._now = torch.tensor([step.now for step in grid], device=base.device)
        self._then = torch.tensor([step.then for step in grid], device=base.device)

    def __call__(self, step: int) -> Tensor:
        """The loss of `step`, a scalar: the mean pseudo-Huber distance."""
        base, batch, means = self._base, self._batch, self._means
        # 1. Pictures, noise and points of the path, spread over all of it as in training.
        random = generator_of(self._seed, step)
        rows = torch.randint(len(means), (batch,), generator=random)
        latent_noise = torch.randn(means[rows].shape, generator=random).to(base.device)
        clean = means[rows] + self._deviations[rows] * latent_noise  # (batch, c, h, w)
        noise = torch.randn(clean.shape, generator=random).to(base.device)
        spread = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        points = (spread * self._points).long().to(base.device)  # (batch,)
        conditioning = self._conditioning[self._captions[rows].to(self._conditioning.device)]
        alpha, sigma = _levels(self._now, points)
        noisy = alpha * clean + sigma * noise
        # 2. One step of the base's solver with guidance leads to the next point; the adapted base predicts its end.
        with torch.no_grad():
            both = Conditioning.join([self._negative.repeat([batch]), conditioning])
            with lora.switched_off(base.unet):
                guided = guided_prediction(base, base.unet, noisy, self._timesteps[points], both, self._guidance)
            picture, left = base.schedule.estimates(guided, noisy, alpha, sigma)
            next_alpha, next_sigma = _levels(self._then, points)
            following = (points + 1).clamp_max(self._points - 1)
            target = self._end(next_alpha * picture + next_sigma * left, following, conditioning)
            # The path's last point is its own end.
            target = torch.where((points == self._points - 1).reshape(-1, 1, 1, 1), picture, target)
        # 3. The same end, predicted from this point.
        base.unet.train()
        distance = self._end(noisy, points, conditioning) - target  # (batch, c, h, w)
        return ((distance**2 + HUBER_C**2).sqrt() - HUBER_C).mean()

    def _end(self, noisy: Tensor, points: Tensor, conditioning: Conditioning) -> Tensor:
        """The clean latents (n, c, h, w) that the adapted base predicts from noisy ones at these points (n,)."""
        base = self._base
        predicted = guided_prediction(base, base.unet, noisy, self._timesteps[points], conditioning, None)
        return base.schedule.estimates(predicted, noisy, *_levels(self._now, points))[0]


def _levels(levels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, each (n, 1, 1, 1), of `levels` (points, 2) at these points (n,)."""
    alpha, sigma = (levels[points, axis].reshape(-1, 1, 1, 1) for axis in (0, 1))
    return alpha, sigma


def few_step_facts(
    base: BaseModel, steps: int, guidance: float, recipe: dict[str, Any] | None = None, seed: int = 0
) -> AdapterFacts:
    """What a few-step adapter says about itself: its recipe holds the steps and the guidance to draw with."""
    recipe = {**(recipe or {}), "draw_steps": steps, "guidance": guidance}
    return AdapterFacts("", "", "lora", base.source, recipe, seed, "few", base.fingerprint)
