"""Learning a person or a style: the training loop for LoRA and full DreamBooth.

The pieces, in the order in which a run meets them: `config` (its settings), `material` (what is learned), `learner`
(what learns it), `state` (weights, optimiser, checkpoints), `batches` (a step's random choices and rows), this loop.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor

from engine.adapters.adapters import AdapterFacts
from engine.bases.base import BaseModel
from engine.device.memory import OutOfMemory, within_memory
from engine.drawing.denoising import Sampling, denoise, noise
from engine.learning.batches import (
    Batch,
    Capacity,
    collate,
    measure_capacity,
    micro_batches,
    reduce_capacity,
)
from engine.learning.config import Previews, TrainingConfig
from engine.learning.learner import Learner, open_learner
from engine.learning.listener import SILENT, Listener, Progress, Stopped
from engine.learning.material import Material, gather
from engine.learning.optimisers import learning_rate_at
from engine.learning.samples import StepSample, step_sample
from engine.learning.state import Checkpoints, TrainingState, not_finite
from engine.learning.team import SINGLE_PROCESS, Team
from engine.recipe import Recipe
from storage.errors import UserError


@dataclass(frozen=True)
class Trained:
    """What a training run did."""

    steps: int
    seconds: float
    first_loss: float
    """Mean loss of the run's first tenth."""
    last_loss: float
    """Mean loss of the run's last tenth."""
    resumed_at: int
    """Step that the run went on from; 0 for a fresh one."""
    rows_at_once: int = 0
    """Rows that went through the denoiser together: fewer than the recipe's where memory was short."""
    checkpointing: bool = False
    """Whether activations were computed again in the backward pass."""
    step_seconds: float = 0.0
    """The median step's."""
    delta_error: float | None = None
    """Of full DreamBooth: the share of the learned change that its stored form leaves out, |D - D'| / |D|."""


@dataclass(frozen=True)
class Steps:
    """What the loop did."""

    first: int
    """The step that it began with, from 0."""
    losses: list[float]
    seconds: list[float]
    capacity: Capacity


def check(recipe: Recipe, base: BaseModel) -> None:
    """Refuse a recipe that this base cannot learn.

    Raises:
        UserError: `no_min_snr` for flow matching, `text_is_fixed` where adapters do not reach the text encoder,
            `quantised_base` for what needs unrounded weights.
    """
    if recipe.min_snr and base.schedule.prediction == "flow":
        raise UserError("no_min_snr")
    if not base.family.text_targets:
        for what, asked in (("text encoder", recipe.text_encoder), ("pivotal", recipe.pivotal)):
            if asked:
                raise UserError("text_is_fixed", what=what)
    if base.quantised and (recipe.dora or recipe.method == "dreambooth"):
        raise UserError("quantised_base")


def train(
    base: BaseModel,
    album: Sequence[Image.Image],
    config: TrainingConfig,
    out: Path,
    *,
    listener: Listener = SILENT,
    team: Team = SINGLE_PROCESS,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Teach `base` the person in `album` under the configuration's token, and write the adapter to `out`.

    Instance rows minimise |v(z_t, "a photo of cr7d man") - target|^2, in the wordings of the base's family. Class rows
    minimise |v(z_t, class) - v_base(z_t, class)|^2, which keeps the unadapted base's predictions for class prompts.
    That is prior preservation (arXiv 2208.12242, eq. 2) with the noisy target replaced by the base's prediction for it,
    whose gradient has the same mean and far less variance (as in OneTrainer's PRIOR_PREDICTION and ai-toolkit's
    diff_output_preservation).

    Noise, timesteps and rows of step n follow from (seed, n) alone, so a run that continues from its checkpoint equals
    one that was never stopped.

    Args:
        album: RGB pictures of any size.
        clock: seconds, for the pause between checkpoints and the figures that are returned.
    Raises:
        UserError: `no_photos` for an empty album, `out_of_memory` if not even one row fits, `loss_not_finite`,
            `disk_full`, `would_overwrite` if the run has to go on from a checkpoint and there is none, or as `check`.
        Stopped: the listener asked for it.
    """
    if not len(album):
        raise UserError("no_photos", folder="the album")
    check(config.recipe, base)
    began, recipe = clock(), config.recipe
    if config.owns_base and recipe.precision == "float32":
        base.cast(torch.float32)  # without autocast, half-precision weights would compute in half precision
    # 1. What is learned: pictures as latents, prompts as embeddings.
    material = gather(base, album, config, team, listener.on_class_pictures, listener.on_warning)
    if config.owns_base and not config.previews:
        learns_text = recipe.text_encoder or recipe.pivotal
        base.release("vae", *([] if learns_text else base.family.text_encoders))
    # 2. What learns it. After the block the base is as it was before.
    with open_learner(base, config, material) as learner:
        listener.on_start(learner)
        state, checkpoints = TrainingState(learner), Checkpoints(config, material, clock, began, listener)
        # 3. The steps.
        steps = _learn(state, material, config, checkpoints, listener, team, clock)
        # 4. The file.
        delta_error = None
        state.check_finite(recipe.steps)
        if team.first:
            # A full learner needs the memory of the optimiser's state; a LoRA's checkpoint needs the state.
            keeps = config.keeps_checkpoint and recipe.method == "lora"
            with state.kept_weights():
                if not keeps:
                    state.free_memory()
                delta_error = _save(learner, _facts(config, base), out, checkpoints)
            if keeps and steps.first < recipe.steps:
                checkpoints.keep(state, recipe.steps)
    tenth = max(1, len(steps.losses) // 10)
    return Trained(
        steps=recipe.steps,
        seconds=clock() - began,
        first_loss=sum(steps.losses[:tenth]) / tenth if steps.losses else math.nan,
        last_loss=sum(steps.losses[-tenth:]) / tenth if steps.losses else math.nan,
        resumed_at=steps.first,
        rows_at_once=steps.capacity.rows,
        checkpointing=steps.capacity.checkpointing,
        step_seconds=median(steps.seconds) if steps.seconds else 0.0,
        delta_error=delta_error,
    )


def _save(learner: Learner, facts: AdapterFacts, out: Path, checkpoints: Checkpoints) -> float | None:
    """Write what was learned, in the checkpoint's place if the disk has no space for both.

    Raises:
        UserError: `disk_full`.
    """
    try:
        return learner.save(facts, out)
    except UserError as error:
        if error.code != "disk_full" or not checkpoints.make_room():
            raise
        return learner.save(facts, out)


def _facts(config: TrainingConfig, base: BaseModel) -> AdapterFacts:
    """What the adapter's file says about itself."""
    return AdapterFacts(
        token=config.token,
        noun=config.noun,
        method=config.recipe.method,
        base=base.source,
        recipe=config.recipe.as_json(),
        seed=config.seed,
        kind=config.kind,
        fingerprint=base.fingerprint,
    )


def _learn(
    state: TrainingState,
    material: Material,
    config: TrainingConfig,
    checkpoints: Checkpoints,
    listener: Listener,
    team: Team,
    clock: Callable[[], float],
) -> Steps:
    """The training loop: from the state's checkpoint to the recipe's last step."""
    learner, recipe = state.learner, config.recipe
    base, denoiser = learner.base, learner.denoiser
    sampler = config.sampler or partial(
        step_sample,
        seed=config.seed,
        recipe=recipe,
        devices=team.size,
        examples=material.examples,
        class_latents=material.class_latents,
        schedule=base.schedule,
    )
    with team.main_process_first():  # it renames a file that cannot be used
        first = checkpoints.load(state)
    together = recipe.batch + (recipe.prior_batch if len(material.class_latents) else 0)
    capacity = Capacity(together, bool(recipe.checkpointing))
    losses, seconds = list[float](), list[float]()
    for step in range(first, recipe.steps):
        started = clock()
        # 1. The step's random choices. All processes make the same ones; each takes every team.size-th row.
        sample = sampler(step)
        rows = range(team.rank, len(sample.noises), team.size)
        if not denoiser.training:  # switching walks through all modules
            denoiser.train()

        # 2. Before the first step: how many rows fit into memory at once.
        if step == first:
            one_row = collate(rows[:1], sample, material, recipe, base, learner.dtype)
            forward = partial(learner.errors, one_row, material)
            capacity = measure_capacity(denoiser, recipe, capacity.rows, base, forward)

        # 3. Forward and backward passes: gradients, and the instance and the class part of the loss.
        parts, capacity = _backward(state, sample, rows, material, capacity, listener)  # (2,)

        # 4. Sum them over all processes: the step's loss is a sum over rows, whichever process they are on. All of them
        # stop after the same step.
        stop = torch.tensor(float(listener.stop_requested), device=parts.device)
        team.all_reduce([parts, stop, *(p.grad for p in state.parameters if p.grad is not None)])
        losses.append(float(parts[0]))
        if not math.isfinite(losses[-1]):
            raise not_finite(step + 1, losses[-1], recipe.learning_rate)

        # 5. Move the weights. The token's embedding learns in the first half only.
        if learner.token_embedding and step >= recipe.steps / 2:
            learner.token_embedding.vectors.grad = None
        rate = learning_rate_at(recipe.schedule, step, recipe.steps, recipe.warmup)
        state.update(step, rate)

        # 6. Checkpoint, previews, progress. The listener may draw with other adapters, and stop the run.
        done = step + 1
        seconds.append(clock() - started)
        if team.first and done < recipe.steps and checkpoints.save_if_due(state, done):
            listener.on_checkpoint(done)
        if config.previews and team.first and done in config.previews.at:
            with state.kept_weights():
                listener.on_previews(done, _preview(learner, config.previews))
        each = median(seconds[-50:])
        listener.on_step(
            Progress(
                done,
                recipe.steps,
                each * (recipe.steps - done),
                losses[-1],
                recipe.learning_rate * rate,
                prior_loss=float(parts[1]),
                step_seconds=each,
            )
        )
        if float(stop) and done < recipe.steps:
            raise Stopped(done if team.first and checkpoints.keep(state, done) else 0)
    return Steps(first, losses, seconds, capacity)


def _backward(
    state: TrainingState,
    sample: StepSample,
    rows: Sequence[int],
    material: Material,
    capacity: Capacity,
    listener: Listener,
) -> tuple[Tensor, Capacity]:
    """Accumulate the gradients of these rows of a step, in micro-batches that fit into memory.

    A row's weight in the loss does not depend on its micro-batch, and so neither does what is learned.

    Returns:
        The instance rows' and the class rows' part of the loss, (2,), and the capacity that proved to be enough.
    Raises:
        OutOfMemory: not even one row fits.
    """
    while True:
        try:
            return within_memory(partial(_accumulate, state, sample, rows, material, capacity.rows)), capacity
        except OutOfMemory:
            capacity = reduce_capacity(capacity, state.learner.denoiser)
            listener.on_short_memory(capacity.rows)


def _accumulate(state: TrainingState, sample: StepSample, rows: Sequence[int], material: Material, most: int) -> Tensor:
    """The gradients of these rows in micro-batches of at most `most` rows; the two parts of the loss, (2,)."""
    learner = state.learner
    state.optimiser.zero_grad()
    parts = torch.zeros(2, device=learner.base.device)
    positions = max(noise[0].numel() for noise in sample.noises)
    with learner.fast.gradients(positions):
        for together in micro_batches({row: sample.noises[row].shape for row in rows}, most):
            batch = collate(together, sample, material, learner.recipe, learner.base, learner.dtype)
            parts += sum(learner.fast.split_rows(len(together), partial(_backward_rows, state, material, batch)))
    return parts


def _backward_rows(state: TrainingState, material: Material, batch: Batch, part: slice) -> Tensor:
    """Add the gradients of some rows of a batch; their two parts of the loss, (2,)."""
    batch = batch[part]
    errors = state.learner.errors(batch, material) * batch.weights  # (n,)
    state.scaler.scale(errors.sum()).backward()
    return errors.new_zeros(2).index_add(0, batch.loss_terms, errors.detach())


def _preview(learner: Learner, previews: Previews) -> list[Image.Image]:
    """One picture for each prompt, with the weights as they are now."""
    base = learner.base
    side = previews.side or base.side
    seeds = range(previews.seed, previews.seed + len(previews.prompts))
    latents = denoise(
        learner.denoiser,
        base,
        noise(seeds, base.latent_shape(side, side)),  # (prompts, c, h, w)
        base.encode_weighted(previews.prompts),
        base.encode_negatives([""]),
        Sampling(previews.steps or base.family.draw_steps, base.family.guidance),
    )
    return base.decode(latents)
