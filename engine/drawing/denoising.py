"""Denoising: from noise to latents, step by step, with classifier-free guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.interfaces import Denoiser
from engine.bases.schedule import NoiseSchedule, Solver, Step
from engine.device.fast import fast_drawing, one_core, split_rows
from engine.device.generators import generator_of
from engine.device.precision import autocast

OnStep = Callable[[int, int], None]
"""Told after each step: its number, from 1, and the number of all steps."""

StepNoise = Callable[[int], Tensor]
"""Standard normal noise (n, c, h, w) to add after the step of this number, from 0."""


@dataclass(frozen=True)
class Sampling:
    """How latents are denoised."""

    steps: int
    """Denoising steps from pure noise to a clean picture."""
    guidance: float | Sequence[float]
    """w of classifier-free guidance, for all rows or one for each; 1 for all leaves the negative prompts out."""
    start: int = 0
    """The first step that is taken, from 0: an image-to-image drawing leaves out those before it."""
    step_noise: StepNoise | None = None
    """For few-step adapters that were distilled by consistency: noise for after each step. The picture that the step
    predicts is made noisy with it again for the next step (multistep consistency sampling, arXiv 2310.04378,
    algorithm 3). None: `engine.bases.schedule.Solver` takes the steps."""


def noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal latents (n, *shape), float32 on the CPU, one generator for each seed."""
    return torch.stack([torch.randn(shape, generator=generator_of(seed)) for seed in seeds])


def later_noise(seeds: Sequence[int], shape: tuple[int, int, int], step: int) -> Tensor:
    """Noise (n, *shape) to add after `step` of a few-step drawing, one generator for each seed and step."""
    return torch.stack([torch.randn(shape, generator=generator_of(seed, step + 1)) for seed in seeds])


@lru_cache(maxsize=64)
def denoising_steps(schedule: NoiseSchedule, steps: int, tokens: int, consistency: bool = False) -> Sequence[Step]:
    """The steps from noise to picture, the same object for the same arguments.

    Args:
        tokens: positions of a latent, h x w.
        consistency: spread over the grid that few-step adapters are distilled on.
    """
    return tuple((schedule.few_step if consistency else schedule.drawing)(steps, tokens))


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    base: BaseModel,
    latents: Tensor,
    prompt_embeddings: Conditioning,
    negative_embeddings: Conditioning,
    sampling: Sampling,
    on_step: OnStep = lambda step, of: None,
) -> Tensor:
    """From noise to latents.

    Args:
        denoiser: the base's own, or a copy of it with other weights.
        latents: noise, or latents as noisy as a drawing before step `sampling.start`, (n, c, h, w).
        prompt_embeddings: n of them.
        negative_embeddings: n of them, or one for all.
    Returns:
        Clean latents, float32, of the same shape on the base's device.
    """
    schedule, start, step_noise = base.schedule, sampling.start, sampling.step_noise
    latents = latents.to(base.device, torch.float32)  # (n, c, h, w)
    scale = _guidance_scale(sampling.guidance, latents)  # (n, 1, 1, 1) or None
    conditioning = prompt_embeddings  # n rows
    if scale is not None:
        conditioning = _guided(negative_embeddings, prompt_embeddings)  # 2n rows, negative prompts first
    if denoiser.training:
        denoiser.eval()
    steps = denoising_steps(schedule, sampling.steps, latents[0, 0].numel(), step_noise is not None)[start:]
    solver = Solver(schedule, steps)
    with fast_drawing(base, denoiser):
        for number, step in enumerate(steps, start=start):
            predicted = guided_prediction(base, denoiser, latents, step.timestep, conditioning, scale)  # (n, c, h, w)
            if step_noise:
                clean, _ = schedule.estimates(predicted, latents, *step.now)
                latents = step.then[0] * clean + step.then[1] * step_noise(number).to(clean)
            else:
                latents = solver.step(predicted, latents, step)
            on_step(number + 1, sampling.steps)
    return latents


def guided_prediction(
    base: BaseModel,
    denoiser: Denoiser,
    latents: Tensor,
    timestep: float | Tensor,
    conditioning: Conditioning,
    scale: float | Tensor | None,
) -> Tensor:
    """The denoiser's prediction (n, c, h, w) for latents of this shape, with classifier-free guidance
    (arXiv 2207.12598, eq. 6: u + w (c - u)).

    Args:
        timestep: for all rows, or (n,).
        conditioning: n rows; with guidance 2n, those of the negative prompts first.
        scale: w, for all rows or (n, 1, 1, 1); None predicts without guidance.
    """
    timesteps = torch.as_tensor(timestep, device=base.device).expand(len(latents))  # (n,)
    with_gradients = torch.is_grad_enabled()

    def predicted(rows: slice) -> Tensor:
        # torch keeps both contexts for each thread, and halves of a batch run in threads.
        with torch.set_grad_enabled(with_gradients), autocast(base.device):
            return base.predict(denoiser, latents[rows], timesteps[rows], conditioning[rows])

    if scale is None:
        with one_core(base):
            return predicted(slice(None))
    latents, timesteps = torch.cat((latents, latents)), timesteps.repeat(2)
    # Each half of the batch holds every row once, as the adapters of the rows need it.
    unconditional, conditional = torch.cat(split_rows(base, len(latents), predicted)).chunk(2)
    return unconditional + scale * (conditional - unconditional)


def _guidance_scale(guidance: float | Sequence[float], latents: Tensor) -> Tensor | None:
    """w as (n, 1, 1, 1), float32, on the device of `latents` (n, c, h, w); None where it is 1 for all rows."""
    scale = torch.as_tensor(guidance, dtype=torch.float32, device=latents.device).expand(len(latents))
    return scale.reshape(-1, 1, 1, 1) if bool((scale != 1).any()) else None


def _guided(negative: Conditioning, prompts: Conditioning) -> Conditioning:
    """2n rows: the negative prompts', repeated if there is one for all, then the prompts'."""
    if len(negative) != len(prompts):
        negative = negative.repeat([len(prompts)])
    return Conditioning.join([negative, prompts])
