"""Learning a person or a style: one loop for LoRA and full DreamBooth that reads from top to bottom."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.adapters import lora
from engine.adapters.adapters import AdapterFacts, AdapterKind, attach_fresh, detach, plain_copy, save_delta, save_lora
from engine.adapters.learned_token import LearnedToken, apply_learned_tokens
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.families import Conditioning
from engine.device import memory
from engine.device.cores import on_one_core, side_by_side, small
from engine.device.packed import packed
from engine.device.precision import DTYPES, attention, autocast, compute_dtype
from engine.drawing.denoising import Sampling, denoise, noise
from engine.learning.checkpoints import load_checkpoint, save_checkpoint, settled
from engine.learning.examples import (
    Chance,
    Example,
    album_as_class,
    chance,
    class_latents,
    encode_album,
    in_batches,
    learned_under,
)
from engine.learning.objectives import average, ema_decay, min_snr_weights, offset_noise, weighted_errors
from engine.learning.optimisers import AdamW, Group, clip, learning_rate_at, make
from engine.learning.team import SINGLE_PROCESS, Team
from engine.recipe import Recipe
from storage.errors import UserError

TRAINING = "in_training"
"""Name of the LoRA that is being trained."""

FEW_ROWS = 4

CHECKPOINT_PAUSE = 20
"""So many times as long as it took to write the last checkpoint, none is written: a large model's has 10 GB."""


@dataclass(frozen=True)
class Progress:
    """How far a training run is, told after every step."""

    step: int
    steps: int
    seconds_left: float
    loss: float
    """The instance rows' part of what was minimised, over all rows of the step."""
    learning_rate: float = 0.0
    prior_loss: float = 0.0


@dataclass(frozen=True)
class Previews:
    """Sample grids while training: the same prompts from the same seeds, so that one can be compared with the next."""

    prompts: tuple[str, ...]
    at: frozenset[int]
    """The steps after which a grid is drawn."""
    seed: int = 0
    steps: int | None = None
    """Denoising steps; the family's if None."""
    side: int | None = None


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
    step_seconds: float = 0.0
    """The median step's."""
    delta_error: float | None = None
    """Of full DreamBooth: the share of what was learned that its stored form leaves out, |D - D'| / |D|."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a step, ready to be learned."""

    noisy: Tensor
    """(n, c, h, w)."""
    timestep: Tensor
    """(n,)."""
    wanted: Tensor
    """(n, c, h, w)."""
    read: Sequence[int]
    """The numbers of their prompts."""
    kinds: Tensor
    """(n,), 0 for the instance's and 1 for the class's."""
    weights: Tensor
    """(n,), in what is minimised."""
    pixels: Tensor | None
    """(n, 1, h, w), of the places in each picture; None for all alike."""

    def __getitem__(self, part: slice) -> "Rows":
        return Rows(
            self.noisy[part], self.timestep[part], self.wanted[part], self.read[part], self.kinds[part],
            self.weights[part], None if self.pixels is None else self.pixels[part],
        )  # fmt: skip


class Stopped(Exception):
    """The run was asked to stop; its last checkpoint remains."""


def check(recipe: Recipe, base: BaseModel) -> None:
    """Refuse what a recipe asks of a base that has no such thing.

    Raises:
        UserError: `no_min_snr` for flow matching, `text_is_fixed` where adapters do not reach the text encoder,
            `quantised_base` for what needs the weights themselves.
    """
    if recipe.min_snr and base.schedule.prediction == "flow":
        raise UserError("no_min_snr")
    if not base.family.text_targets:
        for what, wanted in (("text encoder", recipe.text_encoder), ("pivotal", recipe.pivotal)):
            if wanted:
                raise UserError("text_is_fixed", what=what)
    if base.quantised and (recipe.dora or recipe.method == "dreambooth"):
        raise UserError("quantised_base")


def learning_dtype(recipe: Recipe, base: BaseModel) -> torch.dtype:
    """What the recipe computes in on this base.

    Weights that learn are cast anew at every step. For few rows of a small model that takes longer than bfloat16 saves:
    a step of full DreamBooth with one row on the embedded base took 138 ms in bfloat16, and 112 in float32.
    """
    rows = recipe.batch + recipe.prior_batch
    if recipe.precision == "auto" and recipe.method == "dreambooth" and rows < FEW_ROWS and small(base):
        return torch.float32
    return _dtype(recipe, base.device)


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    return compute_dtype(device) if recipe.precision == "auto" else DTYPES[recipe.precision]


def frozen_dtype(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """What the denoiser of a base that is nobody else's may rest in; None for the device's usual dtype.

    Weights that only stand there, under a LoRA, need no more digits than they are computed with.
    """
    dtype = _dtype(recipe, device)
    return dtype if recipe.method == "lora" and dtype != torch.float32 else None


def train(
    base: BaseModel,
    album: Sequence[Image.Image],
    token: str,
    noun: str,
    recipe: Recipe,
    out: Path,
    *,
    seed: int = 0,
    side: int | None = None,
    captions: Sequence[str] = (),
    kind: AdapterKind = "avatar",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 5.0,
    prior_folder: Path | None = None,
    previews: Previews | None = None,
    team: Team = SINGLE_PROCESS,
    sole: bool = False,
    chances: Callable[[int], Chance] | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
    on_prior: Callable[[int, int], None] = lambda drawn, of: None,
    on_pictures: Callable[[int, list[Image.Image]], None] = lambda step, pictures: None,
    on_memory: Callable[[int], None] = lambda rows: None,
) -> Trained:
    """Teach `base` the person in `album` under `token`, and write the adapter to `out`.

    Instance rows minimise |v(z_t, "a photo of cr7d man") - target|^2, in the wordings of the base's family; prior rows
    keep the adapted model's answer to class prompts at the unadapted model's, |v(z_t, class) - v_base(z_t, class)|^2.
    That is prior preservation (arXiv 2208.12242, eq. 2) with the noisy target replaced by what the base predicts from
    it, whose gradient has the same mean and far less variance (OneTrainer's PRIOR_PREDICTION and ai-toolkit's
    diff_output_preservation do alike).

    A step has the rows of all batches and devices. Each device takes its share and sends it through in as many parts as
    its memory asks for: a row's weight in the sum does not depend on its company, so neither does what is learned.

    Noise, timesteps and rows of step n come from a generator seeded with (seed, n) alone, so a run that goes on from
    `checkpoint` equals one that was never stopped. `on_step` runs between steps: it may draw with other adapters on
    the same base, and raises `Stopped` to end the run.

    Args:
        album: RGB pictures of any size.
        side: pixels of the training pictures' sides; the recipe's or the base's own by default.
        captions: for a recipe with captions, the text of each picture.
        kind: what the adapter says it is.
        checkpoint: file that holds all the next step depends on; written every `checkpoint_seconds`, less often where
            writing takes long, and after every step if that is 0.
        sole: nobody else uses `base`, now or afterwards: what is cached may be let go, and full DreamBooth trains the
            base's own U-Net.
        chances: in place of this engine's own chance, to do over what another trainer did.
        on_prior: told as `class_latents` does, with what `on_step` may do.
        on_memory: told how many rows go through at once from now on, since more did not fit.
    Raises:
        UserError: `no_photos` for an empty album, `out_of_memory` if not even one row fits, or as `check`.
    """
    if not len(album):
        raise UserError("no_photos", folder="the album")
    check(recipe, base)
    began = saved = time.monotonic()
    pause = checkpoint_seconds
    side = side or recipe.side or base.side

    # What is learned, seen once through the VAE and the text encoder.
    instance = f"{token} {noun}"
    prompts_of = learned_under(base, album, instance, recipe, captions)
    prompts = list(dict.fromkeys(prompt for several in prompts_of for prompt in several))
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    prompt_numbers = [[numbers[prompt] for prompt in several] for several in prompts_of]
    examples = encode_album(base, album, recipe, side, prompt_numbers)
    # A short run does not need all of them.
    prior_count = min(recipe.prior_pictures, recipe.steps * recipe.prior_batch * recipe.accumulation * team.size)
    with team.main_process_first():
        priors, prior_prompts = class_latents(
            base, noun, prior_count, side, prior_folder, recipe.prior_prompts, on_prior
        )
    if recipe.prior_album and prior_count and recipe.prior_target == "base":
        nameless = [[prompt.replace(instance, noun) for prompt in several] for several in prompts_of]
        latents, wordings = album_as_class(base, album, nameless, recipe.prior_album, side)
        priors, prior_prompts = torch.cat((priors, latents)), prior_prompts + wordings
    prompts += [prompt for prompt in dict.fromkeys(prior_prompts) if prompt not in numbers]
    prior_numbers = [prompts.index(prompt) for prompt in prior_prompts]
    embeddings = base.encode_set(prompts)
    listens = recipe.text_encoder or recipe.pivotal
    if sole and not previews:
        base.release("vae", *([] if listens else base.family.text_encoders))

    # What learns it.
    dtype = learning_dtype(recipe, base)
    in_place = sole and recipe.method == "dreambooth" and (recipe.prior_target == "noise" or not prior_count)
    word = LearnedToken(base, token) if recipe.pivotal else None
    if sole and (frozen := frozen_dtype(recipe, base.device)):
        base.rest(frozen)
    # Whatever goes wrong from here on, the base is itself again.
    with ExitStack() as afterwards:
        afterwards.callback(detach, base)
        unet, parameters = base.unet, attach_fresh(base, recipe, TRAINING, seed)
        groups: list[Group] = [{"params": list(parameters), "lr": recipe.learning_rate}]
        if recipe.method == "lora":
            if small(base) and dtype == torch.bfloat16:
                with on_one_core(base):  # as it then computes
                    afterwards.enter_context(packed(unet, base.device, learning=True))
        else:
            unet = base.unet.float() if in_place else plain_copy(base.unet, torch.float32)
            own = list(unet.requires_grad_(True).parameters())
            _, as_lora = base.family.recipes["lora"]
            groups = [{"params": own, "lr": recipe.learning_rate}]
            groups += [{"params": list(parameters), "lr": as_lora.learning_rate}] if parameters else []
            parameters = own + parameters
        afterwards.callback(unet.disable_gradient_checkpointing)
        if word:
            groups.append({"params": [word.vectors], "lr": recipe.word_learning_rate})
            parameters.append(word.vectors)
            afterwards.enter_context(apply_learned_tokens(base, [[(word, 1.0)]]))
        context = partial(autocast, base.device, dtype)
        full_rates = [float(group["lr"]) for group in groups]  # the groups become the optimiser's own
        optimiser = make(recipe, groups, base.device)
        if (
            recipe.method == "dreambooth"
            and isinstance(optimiser, AdamW)
            and _dtype(recipe, base.device) == torch.bfloat16
        ):
            # A quarter of what learning takes is saved. Rounded so, a gradient is off by 1/512 of itself at most, and
            # one step's differs from the next one's by as much as it is large.
            for parameter in unet.parameters():
                if parameter.ndim > 1:
                    parameter.grad_dtype = torch.bfloat16
        if hasattr(optimiser, "train"):
            optimiser.train()  # a schedule-free optimiser keeps two sets of weights
        mean = [parameter.detach().clone() for parameter in parameters] if recipe.ema else None
        scaler = torch.amp.GradScaler(base.device.type, enabled=dtype == torch.float16)
        seen = [(example.picture, example.prompts) for example in examples]
        run = _run(recipe, seed, instance, side, team.size, base.fingerprint, prompts, seen)
        first, scaling = load_checkpoint(checkpoint, run, parameters, optimiser, mean) if checkpoint else (0, {})
        if scaling:
            scaler.load_state_dict(scaling)
        schedule = base.schedule
        facts = AdapterFacts(token, noun, recipe.method, base.source, recipe.as_json(), seed, kind, base.fingerprint)

        def rows_of(places: Sequence[int], luck: Chance) -> Rows:
            """Some of a step's rows, ready to be learned."""
            count = len(luck.rows)
            own = [place for place in places if place < count]
            others = [luck.prior_rows[place - count] for place in places if place >= count]
            rows = [examples[luck.rows[place]] for place in own]
            clean = torch.stack(
                [
                    row.mean + row.deviation * luck.spreads[place].to(row.mean)
                    for row, place in zip(rows, own, strict=True)
                ]
                + [priors[other] for other in others]
            )  # (n, c, h, w)
            read = [
                row.prompts[int(luck.wordings[place] * len(row.prompts))] for row, place in zip(rows, own, strict=True)
            ]
            read += [prior_numbers[other] for other in others]
            disturbance = torch.stack([luck.noises[place] for place in places]).to(clean)
            if recipe.noise_offset:
                disturbance = offset_noise(disturbance, luck.shifts[list(places)].to(clean), recipe.noise_offset)
            timestep = luck.timesteps[list(places)].to(base.device)
            noisy = schedule.noisy(clean, disturbance, timestep)
            wanted = schedule.target(clean, disturbance, timestep)
            part = slice(len(rows), None)
            if others and recipe.prior_target == "base":
                wanted[part] = _unadapted(base, context, noisy[part], timestep[part], embeddings[read[part]])
            weights = torch.full((len(places),), 1 / count, device=base.device)
            weights[part] = recipe.prior_weight / max(1, len(luck.prior_rows))
            if recipe.min_snr:
                snr = schedule.signal_to_noise(timestep[: len(rows)])
                weights[: len(rows)] *= min_snr_weights(snr, recipe.min_snr, schedule.prediction)
            kinds = torch.tensor([0] * len(rows) + [1] * len(others), device=base.device)
            return Rows(noisy, timestep, wanted, read, kinds, weights, _pixel_weights(rows, clean))

        def errors_of(rows: Rows) -> Tensor:
            """Their errors under the adapter, (n,)."""
            words = _reread(base, prompts, rows.read) if listens else embeddings[rows.read]
            with context():
                predicted = base.predict(unet, rows.noisy, rows.timestep, words)
            return weighted_errors(predicted, rows.wanted, rows.pixels)

        def learn(rows: Rows, part: slice) -> Tensor:
            """Add some rows' part to the gradients; the instance rows' and the prior rows' part of the loss, (2,)."""
            rows = rows[part]
            errors = errors_of(rows) * rows.weights
            scaler.scale(errors.sum()).backward()
            return errors.new_zeros(2).index_add(0, rows.kinds, errors.detach())

        losses, durations, delta_error = list[float](), list[float](), None
        at_once, checkpointing = recipe.batch + (recipe.prior_batch if prior_count else 0), bool(recipe.checkpointing)
        for step in range(first, recipe.steps):
            started = time.monotonic()
            luck = chances(step) if chances else chance(step, seed, recipe, team.size, examples, priors, schedule)
            total = len(luck.noises)
            own = [place for place in range(total) if place % team.size == team.rank]
            if not unet.training:  # a walk through all modules
                unet.train()
            if step == first:
                one_row = rows_of(own[:1], luck)
                at_once, checkpointing = _afford(unet, recipe, at_once, base, partial(errors_of, one_row))
            while True:
                optimiser.zero_grad()
                sums = torch.zeros(2, device=base.device)
                most = max(one[0].numel() for one in luck.noises)
                with memory.attempt() as tried, attention(base.device, dtype, most):
                    for places in in_batches({place: luck.noises[place].shape for place in own}, at_once):
                        rows = rows_of(places, luck)
                        sums += sum(side_by_side(base, len(places), partial(learn, rows)))
                if not tried.short:
                    break
                at_once, checkpointing = _less(unet, base, at_once, checkpointing)
                on_memory(at_once)
            team.all_reduce([sums, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
            losses.append(float(sums[0]))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step + 1}")
            rate = learning_rate_at(recipe.schedule, step, recipe.steps, recipe.warmup)
            for group, full in zip(optimiser.param_groups, full_rates, strict=True):
                group["lr"] = full * rate
            if word and step >= recipe.steps / 2:
                word.vectors.grad = None
            scaler.unscale_(optimiser)
            # A LoRA's many small tensors are no work for two cores.
            with memory.attempt() as tried, on_one_core(base) if recipe.method == "lora" else nullcontext():
                clip(parameters, recipe.max_norm)
                scaler.step(optimiser)
            if tried.short:
                # The first step makes the optimiser's own tensors; fewer rows at once would not make them smaller.
                raise UserError("out_of_memory")
            scaler.update()
            if mean is not None:
                average(mean, parameters, ema_decay(recipe.ema, step))

            durations.append(time.monotonic() - started)
            left = median(durations[-50:]) * (recipe.steps - step - 1)
            if checkpoint and team.first and step + 1 < recipe.steps and time.monotonic() - saved >= pause:
                saving = time.monotonic()
                save_checkpoint(checkpoint, run, step + 1, parameters, optimiser, mean, scaler.state_dict())
                saved = time.monotonic()
                pause = checkpoint_seconds and max(checkpoint_seconds, CHECKPOINT_PAUSE * (saved - saving))
                on_checkpoint(step + 1)
            if previews and team.first and step + 1 in previews.at:
                with settled(optimiser, parameters, mean):
                    on_pictures(step + 1, _preview(base, unet, previews))
            on_step(Progress(step + 1, recipe.steps, left, losses[-1], recipe.learning_rate * rate, float(sums[1])))
        if team.first:
            with settled(optimiser, parameters, mean):
                if recipe.method == "lora":
                    save_lora(base, facts, out, word)
                else:
                    for parameter in parameters:
                        parameter.grad = None
                    getattr(optimiser, "let_go", optimiser.state.clear)()
                    before = base.original_weights() if in_place else dict(plain_parameters(base.unet)).__getitem__
                    with on_one_core(base):
                        delta_error = save_delta(base, before, unet, facts, out)
    tenth = max(1, len(losses) // 10)
    return Trained(
        steps=recipe.steps,
        seconds=time.monotonic() - began,
        first_loss=sum(losses[:tenth]) / tenth if losses else math.nan,
        last_loss=sum(losses[-tenth:]) / tenth if losses else math.nan,
        resumed_at=first,
        rows_at_once=at_once,
        checkpointing=checkpointing,
        step_seconds=median(durations) if durations else 0.0,
        delta_error=delta_error,
    )


def _run(*what: object) -> str:
    """A few digits that differ for whatever differs in what is learned, or how."""
    said = json.dumps([one.as_json() if isinstance(one, Recipe) else one for one in what])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _reread(base: BaseModel, prompts: Sequence[str], numbers: Sequence[int]) -> Conditioning:
    """The prompts of n rows from a text encoder that learns; one that several rows share is read once."""
    distinct = sorted(set(numbers))
    read = base.embed_prompts([prompts[number] for number in distinct])
    return read[[distinct.index(number) for number in numbers]]


def _pixel_weights(rows: Sequence[Example], clean: Tensor) -> Tensor | None:
    """The rows' weights (n, 1, h, w), ones where an example has none; None if none has."""
    if all(row.weights is None for row in rows):
        return None
    weights = clean.new_ones(len(clean), 1, *clean.shape[2:])
    for place, row in enumerate(rows):
        if row.weights is not None:
            weights[place] = row.weights
    return weights


def _unadapted(
    base: BaseModel,
    context: Callable[[], AbstractContextManager[object]],
    noisy: Tensor,
    timestep: Tensor,
    words: Conditioning,
) -> Tensor:
    """What the base predicts without the adapter in training."""

    def answer(part: slice) -> Tensor:
        with torch.no_grad(), context():
            return base.predict(base.unet, noisy[part], timestep[part], words[part])

    with lora.switched_off(base.unet):
        return torch.cat(side_by_side(base, len(noisy), answer))


def _preview(base: BaseModel, unet: Any, previews: Previews) -> list[Image.Image]:
    """One picture for each prompt, as the weights are now."""
    side = previews.side or base.side
    words, negative = base.encode_prompts(previews.prompts), base.encode_negatives([""])
    seeds = range(previews.seed, previews.seed + len(previews.prompts))
    steps = previews.steps or base.family.draw_steps
    latents = denoise(unet, base, noise(seeds, base.latent_shape(side, side)), words, negative,
                      Sampling(steps, base.family.guidance))  # fmt: skip
    return base.decode(latents)


def _afford(unet: Any, recipe: Recipe, rows: int, base: BaseModel, one_row: Callable[[], object]) -> tuple[int, bool]:
    """How many rows may go through at once, and whether activations must be computed again: what the free memory
    holds, by the bytes that autograd keeps of one row."""
    checkpointing = bool(recipe.checkpointing)
    if recipe.checkpointing is None:
        fit = 0
        with memory.attempt():
            fit = memory.rows_that_fit(memory.activation_bytes(one_row), rows, memory.free_memory(base.device))
        checkpointing, rows = fit == 0, fit or rows
    if checkpointing:
        unet.enable_gradient_checkpointing()
    return rows, checkpointing


def _less(unet: Any, base: BaseModel, rows: int, checkpointing: bool) -> tuple[int, bool]:
    """What to try after rows did not fit: half of them, and at last to compute activations again.

    Raises:
        UserError: `out_of_memory` if nothing is left to try.
    """
    if base.device.type == "cuda":
        torch.cuda.empty_cache()
    if rows > 1:
        return rows // 2, checkpointing
    if checkpointing:
        raise UserError("out_of_memory")
    unet.enable_gradient_checkpointing()
    return rows, True
