"""From a step's random numbers to batches for the denoiser, and how many rows of a step fit into memory at once.

A step has rows: first the instance rows, which learn the album, then the class rows, which preserve the prior. Rows are
counted from 0 over all micro-batches and all devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.adapters import lora
from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.interfaces import Denoiser
from engine.device import memory
from engine.device.fast import split_rows
from engine.device.precision import autocast
from engine.learning.examples import Example
from engine.learning.material import Material
from engine.learning.objectives import min_snr_weights, offset_noise
from engine.learning.samples import StepSample
from engine.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """n rows of a step, ready for the denoiser."""

    noisy: Tensor
    """(n, c, h, w), the noisy latents."""
    timesteps: Tensor
    """(n,)."""
    targets: Tensor
    """(n, c, h, w), what the denoiser is to predict."""
    prompts: Sequence[int]
    """n prompt indices."""
    loss_terms: Tensor
    """(n,), int64: 0 for instance rows, 1 for class rows."""
    weights: Tensor
    """(n,), the rows' weights in the loss."""
    pixel_weights: Tensor | None
    """(n, 1, h, w), the weight of each pixel of the latents; None for all alike."""
    sizes: Tensor
    """(n, 4), `Conditioning.sizes`."""

    def __getitem__(self, part: slice) -> "Batch":
        return Batch(
            self.noisy[part],
            self.timesteps[part],
            self.targets[part],
            self.prompts[part],
            self.loss_terms[part],
            self.weights[part],
            None if self.pixel_weights is None else self.pixel_weights[part],
            self.sizes[part],
        )


def collate(
    rows: Sequence[int], sample: StepSample, material: Material, recipe: Recipe, base: BaseModel, dtype: torch.dtype
) -> Batch:
    """A batch of n rows, which must have latents of one shape.

    Args:
        rows: of the step, instance rows before class rows.
        dtype: what the base's own prediction, the class rows' target, is computed in.
    """
    count = len(sample.examples)
    instance_rows = [row for row in rows if row < count]
    examples = [material.examples[sample.examples[row]] for row in instance_rows]
    class_pictures = [sample.class_pictures[row - count] for row in rows if row >= count]
    class_part = slice(len(examples), None)

    # Latents: sampled from each example's distribution, class pictures as they are.
    latents = [
        example.mean + example.deviation * sample.latent_noises[row].to(example.mean)
        for example, row in zip(examples, instance_rows, strict=True)
    ]
    clean = torch.stack(latents + [material.class_latents[index] for index in class_pictures])  # (n, c, h, w)

    # Prompts: one of each example's.
    prompts = [
        example.prompts[int(sample.prompt_choices[row] * len(example.prompts))]
        for example, row in zip(examples, instance_rows, strict=True)
    ]
    prompts += [material.class_prompts[index] for index in class_pictures]

    # Noise, and what is to be predicted of the noisy latents.
    noise = torch.stack([sample.noises[row] for row in rows]).to(clean)  # (n, c, h, w)
    if recipe.noise_offset:
        noise = offset_noise(noise, sample.offsets[list(rows)].to(clean), recipe.noise_offset)
    timesteps = sample.timesteps[list(rows)].to(base.device)  # (n,)
    noisy = base.schedule.noisy(clean, noise, timesteps)  # (n, c, h, w)
    targets = base.schedule.target(clean, noise, timesteps)  # (n, c, h, w)
    if class_pictures and recipe.prior_target == "base":
        conditioning = material.embeddings[prompts[class_part]]
        targets[class_part] = _unadapted(base, noisy[class_part], timesteps[class_part], conditioning, dtype)

    # Weights: each loss term is a mean over the step's rows of its kind, on whatever device they are.
    weights = torch.full((len(rows),), 1 / count, device=base.device)  # (n,)
    weights[class_part] = recipe.prior_weight / max(1, len(sample.class_pictures))
    if recipe.min_snr:
        snr = base.schedule.signal_to_noise(timesteps[: len(examples)])  # (instance rows,)
        weights[: len(examples)] *= min_snr_weights(snr, recipe.min_snr, base.schedule.prediction)
    loss_terms = torch.tensor([0] * len(examples) + [1] * len(class_pictures), device=base.device)  # (n,)
    own_size = [base.vae_scale_factor * side for side in clean.shape[2:]]
    sizes = [example.size or (*own_size, 0, 0) for example in examples] + [(*own_size, 0, 0)] * len(class_pictures)
    return Batch(
        noisy, timesteps, targets, prompts, loss_terms, weights, _pixel_weights(examples, clean),
        torch.tensor(sizes, dtype=torch.float32, device=base.device),
    )  # fmt: skip


def _unadapted(
    base: BaseModel, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, dtype: torch.dtype
) -> Tensor:
    """What the base predicts without the adapter in training, (n, c, h, w)."""

    def predict(part: slice) -> Tensor:
        with torch.no_grad(), autocast(base.device, dtype):
            return base.predict(base.unet, noisy[part], timesteps[part], conditioning[part])

    with lora.switched_off(base.unet):
        return torch.cat(split_rows(base, len(noisy), predict))


def _pixel_weights(examples: Sequence[Example], clean: Tensor) -> Tensor | None:
    """The pixel weights (n, 1, h, w) of a batch that begins with these examples, ones for rows without any; None if no
    row has any."""
    if all(example.weights is None for example in examples):
        return None
    weights = clean.new_ones(len(clean), 1, *clean.shape[2:])
    for row, example in enumerate(examples):
        if example.weights is not None:
            weights[row] = example.weights
    return weights


def micro_batches(shapes: Mapping[int, Sequence[int]], most: int) -> Iterator[list[int]]:
    """Groups of at most `most` rows with latents of one shape, in their order.

    Args:
        shapes: the shape of each row's latents.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, shape in shapes.items():
        by_shape.setdefault(tuple(shape), []).append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), most):
            yield rows[start : start + most]


@dataclass(frozen=True)
class Capacity:
    """What fits into memory."""

    rows: int
    """Rows that go through the denoiser at once."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass instead of being kept."""


def measure_capacity(
    denoiser: Denoiser, recipe: Recipe, rows: int, base: BaseModel, forward: Callable[[], object]
) -> Capacity:
    """As many of `rows` rows as the free memory holds, going by the bytes that autograd keeps of one row.

    Args:
        forward: one row's forward pass.
    """
    checkpointing = bool(recipe.checkpointing)
    if recipe.checkpointing is None:
        try:
            row_bytes = memory.within_memory(lambda: memory.activation_bytes(forward, base.adaptable.values()))
            fit = memory.rows_that_fit(row_bytes, rows, memory.free_memory(base.device))
        except memory.OutOfMemory:
            fit = 0
        checkpointing, rows = fit == 0, fit or rows
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    return Capacity(rows, checkpointing)


def reduce_capacity(capacity: Capacity, denoiser: Denoiser) -> Capacity:
    """What to try after memory was too short: half the rows, and in the end gradient checkpointing.

    Raises:
        OutOfMemory: nothing is left to try.
    """
    if capacity.rows > 1:
        return Capacity(capacity.rows // 2, capacity.checkpointing)
    if capacity.checkpointing:
        raise memory.OutOfMemory
    denoiser.enable_gradient_checkpointing()
    return Capacity(capacity.rows, checkpointing=True)
