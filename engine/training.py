"""Learning a person: one loop for LoRA and full DreamBooth that reads from top to bottom."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from engine.adapters import AvatarFacts, attach_fresh, detach, plain_copy, save_delta, save_lora
from engine.base import BaseModel
from engine.errors import InputError
from engine.families import Words
from engine.generation import denoise, noise
from engine.precision import compute_dtype, mixed_precision
from engine.recipe import Recipe

TRAINING = "in_training"
"""Name of the LoRA that is being trained."""


@dataclass(frozen=True)
class Progress:
    """How far a training run is, told after every step."""

    step: int
    steps: int
    seconds_left: float
    loss: float


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


class Stopped(Exception):
    """The run was asked to stop; its last checkpoint remains."""


def prepare(picture: Image.Image, side: int) -> Image.Image:
    """The picture's centre square, resized to `side` pixels."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    square = picture.convert("RGB").crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def class_latents(base: BaseModel, noun: str, count: int, side: int, folder: Path | None) -> tuple[Tensor, list[str]]:
    """Class pictures for prior preservation, as latents (count, c, h, w), and the prompt of each.

    Drawn by the base itself and kept in `folder`, so they are drawn once for each base, class noun and size.
    """
    prompts = [base.family.prior_prompts[n % len(base.family.prior_prompts)].format(noun=noun) for n in range(count)]
    name = f"{noun.replace(' ', '-')}-{side}-{count}.safetensors"
    file = folder / base.fingerprint / name if folder else None
    if file and file.exists():
        return load_file(file)["latents"].to(base.device), prompts
    empty = base.encode_negatives([""])
    parts = []
    for start in range(0, count, 8):
        seeds = range(start, min(count, start + 8))
        embeddings = base.encode_prompts([prompts[seed] for seed in seeds])
        parts.append(
            denoise(base.unet, base, noise(seeds, base.latent_shape(side, side)), embeddings, empty,
                    steps=min(20, base.family.draw_steps), guidance=base.family.guidance)
        )  # fmt: skip
    latents = torch.cat(parts) if parts else torch.empty(0, *base.latent_shape(side, side))
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file({"latents": latents.cpu().contiguous()}, partial)
        partial.replace(file)
    return latents, prompts


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
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 5.0,
    prior_folder: Path | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
    on_prior: Callable[[], None] = lambda: None,
) -> Trained:
    """Teach `base` the person in `album` under `token`, and write the adapter to `out`.

    Instance rows minimise |v(z_t, "a photo of cr7d man") - target|^2, in the wordings of the base's family; prior rows
    keep the adapted model's answer to class prompts at the unadapted model's, |v(z_t, class) - v_base(z_t, class)|^2.
    That is prior preservation (arXiv 2208.12242, eq. 2) with the noisy target replaced by what the base predicts from
    it, whose gradient has the same mean and far less variance (OneTrainer's PRIOR_PREDICTION and ai-toolkit's
    diff_output_preservation do alike).

    Noise, timesteps and rows of step n come from a generator seeded with (seed, n) alone, so a run that goes on from
    `checkpoint` equals one that was never stopped. `on_step` runs between steps: it may draw with other adapters on
    the same base, and raises `Stopped` to end the run.

    Args:
        album: RGB pictures of any size.
        side: pixels of the training pictures' sides; the base's own by default.
        checkpoint: file for parameters, AdamW moments and step; written every `checkpoint_seconds`.
    Raises:
        InputError: `no_photos` for an empty album.
    """
    if not album:
        raise InputError("no_photos", folder="the album")
    side = side or base.side
    means, deviations = base.encode_pictures([prepare(picture, side) for picture in album])
    on_prior()
    # A short run does not need all of them.
    prior_count = min(recipe.prior_pictures, recipe.steps * recipe.prior_batch)
    priors, prior_prompts = class_latents(base, noun, prior_count, side, prior_folder)
    instance_prompts = [prompt.format(instance=f"{token} {noun}") for prompt in base.family.instance_prompts]
    prompts = [*instance_prompts, *dict.fromkeys(prior_prompts)]
    embeddings = base.encode_prompts(prompts)
    prior_prompt_numbers = torch.tensor([prompts.index(prompt) for prompt in prior_prompts])
    schedule = base.schedule
    facts = AvatarFacts(token, noun, recipe.method, base.source, recipe.as_json(), seed)

    if recipe.method == "lora":
        unet, parameters = base.unet, attach_fresh(base, recipe, TRAINING, seed)
    else:
        unet = plain_copy(base.unet, torch.float32).requires_grad_(True)
        parameters = list(unet.parameters())
    context = mixed_precision(unet, base.device)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True)
    scaler = torch.amp.GradScaler(base.device.type, enabled=compute_dtype(base.device) == torch.float16)
    first = _restore(checkpoint, parameters, optimizer) if checkpoint and checkpoint.exists() else 0
    losses, durations = list[float](), list[float]()
    began = saved = time.monotonic()
    try:
        for step in range(first, recipe.steps):
            started = time.monotonic()
            random = torch.Generator().manual_seed((seed << 32) + step)
            rows = _rows(len(means), recipe.batch, step, seed)
            clean = means[rows] + deviations[rows] * _normal(means[rows].shape, random, base.device)
            prompt_numbers = torch.randint(len(instance_prompts), (recipe.batch,), generator=random)
            if prior_count:
                prior_rows = torch.randint(prior_count, (recipe.prior_batch,), generator=random)
                clean = torch.cat((clean, priors[prior_rows.to(priors.device)]))
                prompt_numbers = torch.cat((prompt_numbers, prior_prompt_numbers[prior_rows]))
            disturbance = _normal(clean.shape, random, base.device)
            spread = _spread(recipe.batch, len(clean) - recipe.batch, random)
            timestep = schedule.timesteps(spread).to(base.device)
            noisy = schedule.noisy(clean, disturbance, timestep)
            target = schedule.target(clean, disturbance, timestep)
            words = embeddings[prompt_numbers.to(embeddings.device)]
            if prior_count:
                target[recipe.batch :] = _unadapted(
                    base, context, noisy[recipe.batch :], timestep[recipe.batch :], words[recipe.batch :]
                )
            if recipe.text_encoder:
                words = base.embed_prompts(prompts)[prompt_numbers.to(embeddings.device)]
            unet.train()
            with context():
                predicted = base.predict(unet, noisy, timestep, words)
            instance_loss = F.mse_loss(predicted[: recipe.batch], target[: recipe.batch])
            prior_loss = F.mse_loss(predicted[recipe.batch :], target[recipe.batch :]) if prior_count else 0.0
            optimizer.zero_grad()
            scaler.scale(instance_loss + recipe.prior_weight * prior_loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()

            losses.append(float(instance_loss.detach()))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step + 1}")
            durations.append(time.monotonic() - started)
            left = median(durations[-50:]) * (recipe.steps - step - 1)
            if checkpoint and step + 1 < recipe.steps and time.monotonic() - saved >= checkpoint_seconds:
                _save(checkpoint, parameters, optimizer, step + 1)
                saved = time.monotonic()
                on_checkpoint(step + 1)
            on_step(Progress(step + 1, recipe.steps, left, losses[-1]))
        if recipe.method == "lora":
            save_lora(base, TRAINING, facts, out)
        else:
            save_delta(base.unet, unet, facts, out)
    finally:
        if recipe.method == "lora":
            detach(base, TRAINING)
    tenth = max(1, len(losses) // 10)
    return Trained(
        steps=recipe.steps,
        seconds=time.monotonic() - began,
        first_loss=sum(losses[:tenth]) / tenth if losses else math.nan,
        last_loss=sum(losses[-tenth:]) / tenth if losses else math.nan,
        resumed_at=first,
    )


def _normal(shape: torch.Size, random: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(shape, generator=random).to(device)


def _rows(count: int, batch: int, step: int, seed: int) -> Tensor:
    """Numbers of the photos of this step, (batch,): every photo once before any photo again."""
    places = range(step * batch, (step + 1) * batch)
    shuffles = {
        turn: torch.randperm(count, generator=torch.Generator().manual_seed((seed << 32) ^ (0x5EED + turn)))
        for turn in {place // count for place in places}
    }
    return torch.tensor([int(shuffles[place // count][place % count]) for place in places])


def _spread(instances: int, priors: int, random: torch.Generator) -> Tensor:
    """Numbers in [0, 1) for the rows, stratified within each kind, so that a small batch sees the whole schedule."""
    return torch.cat(
        [(torch.arange(count) + torch.rand(count, generator=random)) / count for count in (instances, priors) if count]
    )


@torch.no_grad()
def _unadapted(base: BaseModel, context: Callable[[], object], noisy: Tensor, timestep: Tensor, words: Words) -> Tensor:
    """What the base predicts without the adapter in training."""
    unet: Any = base.unet.eval()
    adapted = getattr(unet, "_hf_peft_config_loaded", False)
    if adapted:
        unet.disable_adapters()
    try:
        with context():  # type: ignore[attr-defined]
            return base.predict(unet, noisy, timestep, words)
    finally:
        if adapted:
            unet.enable_adapters()


def _save(path: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {"step": torch.tensor(step)}
    for number, parameter in enumerate(parameters):
        state = optimizer.state[parameter]
        tensors[f"{number}.value"] = parameter.detach().cpu().contiguous()
        tensors[f"{number}.first"] = state["exp_avg"].cpu().contiguous()
        tensors[f"{number}.second"] = state["exp_avg_sq"].cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


@torch.no_grad()
def _restore(path: Path, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    for number, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"{number}.value"])
        optimizer.state[parameter] = {
            "step": tensors["step"].float().clone(),
            "exp_avg": tensors[f"{number}.first"].to(parameter),
            "exp_avg_sq": tensors[f"{number}.second"].to(parameter),
        }
    return int(tensors["step"])
