"""The random choices of a step: rows, noise and timesteps. All follow from the seed and the step alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.bases.schedule import NoiseSchedule
from engine.device.generators import generator_of
from engine.learning.examples import Example
from engine.recipe import Recipe


@dataclass(frozen=True)
class StepSample:
    """The random choices of one step with n instance rows and m class rows. Everything is on the CPU."""

    examples: list[int]
    """n indices of examples."""
    class_pictures: list[int]
    """m indices of class pictures."""
    prompt_choices: list[float]
    """n numbers in [0, 1): which of its prompts each instance row is learned under, as a share of their list."""
    latent_noises: list[Tensor]
    """n times (c, h, w), standard normal: each instance row's latent is mean + deviation * latent_noise."""
    noises: list[Tensor]
    """n + m times (c, h, w), standard normal: the noise that is added to each row's latent."""
    offsets: Tensor
    """(n + m, c, 1, 1), standard normal: offset noise."""
    timesteps: Tensor
    """(n + m,), as the noise schedule counts them."""


def step_sample(
    step: int,
    seed: int,
    recipe: Recipe,
    devices: int,
    examples: Sequence[Example],
    class_latents: Tensor,
    schedule: NoiseSchedule,
) -> StepSample:
    """The random choices of `step`, from a generator seeded with (seed, step) alone: there is no state to save.

    Args:
        devices: how many take part; the step has the rows of all of them.
        class_latents: (count, c, h, w).
        schedule: the base's, which maps [0, 1) to training timesteps.
    """
    random = generator_of(seed, step)
    instances = recipe.batch * recipe.accumulation * devices
    others = recipe.prior_batch * recipe.accumulation * devices if len(class_latents) else 0
    indices = example_indices(len(examples), instances, step, seed)
    shapes = [examples[index].mean.shape for index in indices]
    # The order of these calls is part of every run that can be repeated from its seed.
    latent_noises = [torch.randn(shape, generator=random) for shape in shapes]
    prompt_choices = torch.rand(instances, generator=random).tolist()
    class_indices = torch.randint(len(class_latents), (others,), generator=random).tolist() if others else []
    noises = [torch.randn(shape, generator=random) for shape in [*shapes, *[class_latents.shape[1:]] * others]]
    offsets = torch.randn(instances + others, noises[0].shape[0], 1, 1, generator=random)
    if recipe.timesteps == "stratified":
        times = torch.cat([_stratified(count, random) for count in (instances, others) if count])
    else:
        times = torch.rand(instances + others, generator=random)
    return StepSample(indices, class_indices, prompt_choices, latent_noises, noises, offsets, schedule.timesteps(times))


def example_indices(count: int, rows: int, step: int, seed: int) -> list[int]:
    """Indices (0..count-1) of the `rows` examples of this step: each example comes once before any comes again."""
    positions = range(step * rows, (step + 1) * rows)
    epochs = {
        epoch: torch.randperm(count, generator=generator_of(seed, epoch, _ORDER))
        for epoch in {position // count for position in positions}
    }
    return [int(epochs[position // count][position % count]) for position in positions]


_ORDER = 1
"""Tells the generator of an epoch's order from that of a step."""


def _stratified(count: int, random: torch.Generator) -> Tensor:
    """(count,), one random number in each of `count` equal parts of [0, 1): a small batch covers the full schedule."""
    return (torch.arange(count) + torch.rand(count, generator=random)) / count
