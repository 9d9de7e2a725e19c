"""Denoising: from noise to latents, step by step, with classifier-free guidance."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.schedule import Solver
from engine.device.cores import on_one_core, side_by_side
from engine.device.packed import packed
from engine.device.precision import autocast


def later_noise(seeds: Sequence[int], shape: tuple[int, int, int], step: int) -> Tensor:
    """Noise (n, *shape) for the rows after `step` of a few-step drawing, one generator for each seed and step."""
    return noise([(seed << 8) + step + 1 for seed in seeds], shape)


def noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal latents (n, *shape), float32 on the CPU, one generator for each seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def denoise(
    unet: nn.Module,
    base: BaseModel,
    latents: Tensor,
    words: Conditioning,
    negative: Conditioning,
    *,
    steps: int,
    skip: int = 0,
    guidance: float | Sequence[float],
    fresh: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int], None] = lambda step, of: None,
) -> Tensor:
    """From noise to latents, by `engine.bases.schedule.Solver`, with classifier-free guidance.

    Args:
        latents: noise, or what is as noisy as a drawing after `skip` steps, (n, c, h, w).
        words: the prompts', n of them.
        negative: the negative prompts', n of them or one for all.
        guidance: w, for all rows or one for each; 1 for all leaves the negative prompts unheard.
        fresh: for few-step adapters: noise for after each step. The picture that the step shows is made noisy with it
            again for the next one (multistep consistency sampling, arXiv 2310.04378, algorithm 3).
    Returns:
        Clean latents, float32, of the same shape on the base's device.
    """
    latents = latents.to(base.device, torch.float32)
    scale = torch.as_tensor(guidance, dtype=torch.float32, device=base.device).expand(len(latents)).reshape(-1, 1, 1, 1)
    guided = bool((scale != 1).any())
    if guided:
        words = Conditioning.join([negative if len(negative) == len(words) else negative.repeat([len(words)]), words])
    unet.eval()
    plan = (base.schedule.few if fresh else base.schedule.drawing)(steps, latents[0, 0].numel())[skip:]
    solver = Solver(base.schedule, plan)
    with ExitStack() as drawing:
        with on_one_core(base):  # as it then computes
            drawing.enter_context(packed(unet, base.device))
        for number, step in enumerate(plan, start=skip):
            predicted = answer(base, unet, latents, step.timestep, words, scale if guided else None)
            if fresh:
                clean, _ = base.schedule.estimates(predicted, latents, *step.now)
                latents = step.then[0] * clean + step.then[1] * fresh(number).to(clean)
            else:
                latents = solver.step(predicted, latents, step)
            on_step(number + 1, steps)
    return latents


def answer(
    base: BaseModel,
    unet: nn.Module,
    latents: Tensor,
    timestep: float | Tensor,
    words: Conditioning,
    scale: float | Tensor | None,
) -> Tensor:
    """The denoiser's answer (n, c, h, w) to latents of this shape with classifier-free guidance (arXiv 2207.12598,
    eq. 6: u + w (c - u)).

    Args:
        timestep: of all, or (n,).
        words: n of them; guided, those of the negative prompts first and 2n in all.
        scale: w, for all or (n, 1, 1, 1); None leaves the negative prompts unheard.
    """
    times = torch.as_tensor(timestep, device=base.device).expand(len(latents))
    learning = torch.is_grad_enabled()

    def predicted(part: slice) -> Tensor:
        with torch.set_grad_enabled(learning), autocast(base.device):
            return base.predict(unet, latents[part], times[part], words[part])

    if scale is None:
        with on_one_core(base):
            return predicted(slice(None))
    latents, times = torch.cat((latents, latents)), times.repeat(2)
    # In halves, each has all rows once, as what they wear wants it.
    unconditional, conditional = torch.cat(side_by_side(base, len(latents), predicted)).chunk(2)
    return unconditional + scale * (conditional - unconditional)
