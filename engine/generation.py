"""Drawing: prompts, seeds and adapters become pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image, PngImagePlugin
from torch import Tensor

from engine.adapters import Attached
from engine.base import BaseModel
from engine.errors import InputError
from engine.precision import autocast

PROMPT_LIMIT = 1000
"""Characters of a prompt; far more than any text encoder reads."""


@dataclass(frozen=True)
class Drawing:
    """One request for pictures. None leaves a value to the base model's family."""

    prompt: str
    count: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    avatars: tuple[Path, ...] = ()
    weights: tuple[float, ...] | None = field(default=None)


@dataclass(frozen=True)
class Picture:
    """A drawn picture and the seed that draws it again."""

    image: Image.Image
    seed: int

    def save(self, path: Path, drawing: Drawing, base: str) -> None:
        """Write a PNG that says in its text chunks how to draw it again, complete or not at all.

        The prompt is not among them: pictures are passed on, and what was asked for is the asker's own.
        """
        info = PngImagePlugin.PngInfo()
        facts = {"seed": self.seed, "steps": drawing.steps, "guidance": drawing.guidance, "base": base}
        for key, value in facts.items():
            info.add_itxt(key, str(value))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        self.image.save(partial, "PNG", pnginfo=info)
        partial.replace(path)


def check(drawing: Drawing, base: BaseModel) -> None:
    """Refuse a drawing that cannot be made.

    Raises:
        InputError: `empty_prompt`, `prompt_too_long`, `out_of_range` or `bad_size`.
    """
    if not drawing.prompt.strip():
        raise InputError("empty_prompt")
    for text in (drawing.prompt, drawing.negative_prompt):
        if len(text) > PROMPT_LIMIT:
            raise InputError("prompt_too_long", length=len(text), limit=PROMPT_LIMIT)
    for what, value, low, high in (
        ("count", drawing.count, 1, 16), ("steps", drawing.steps, 1, 250), ("guidance", drawing.guidance, 0, 30),
        ("seed", drawing.seed, 0, 2**53),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise InputError("out_of_range", what=what, low=low, high=high, value=value)
    side = base.side
    base.check_size(*(side if given is None else given for given in (drawing.width, drawing.height)))


def draw(
    base: BaseModel, attached: Attached, drawing: Drawing, on_step: Callable[[int, int], None] = lambda step, of: None
) -> list[Picture]:
    """Draw `drawing.count` pictures, one after another's seed; each is the same whether drawn alone or in company.

    Raises:
        InputError: as `check`, or whatever `Attached.use` says of the avatars.
    """
    check(drawing, base)
    side = base.side
    shape = base.latent_shape(drawing.width or side, drawing.height or side)
    seeds = [drawing.seed + number for number in range(drawing.count)]
    with attached.use(drawing.avatars, drawing.weights) as unet:
        embeddings = base.encode_prompts([drawing.prompt, drawing.negative_prompt])
        latents = denoise(
            unet, base, noise(seeds, shape), embeddings[:1].expand(len(seeds), -1, -1), embeddings[1:],
            steps=drawing.steps or base.family.draw_steps,
            guidance=base.family.guidance if drawing.guidance is None else drawing.guidance,
            on_step=on_step,
        )  # fmt: skip
    return [Picture(image, seed) for image, seed in zip(base.decode(latents), seeds, strict=True)]


def noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal latents (n, *shape), float32 on the CPU, one generator for each seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def denoise(
    unet: UNet2DConditionModel,
    base: BaseModel,
    latents: Tensor,
    embeddings: Tensor,
    negative: Tensor,
    *,
    steps: int,
    guidance: float,
    on_step: Callable[[int, int], None] = lambda step, of: None,
) -> Tensor:
    """DDIM (arXiv 2010.02502) with classifier-free guidance (arXiv 2207.12598, eq. 6: u + w (c - u)).

    Args:
        latents: noise, (n, c, h, w).
        embeddings: the prompts', (n, tokens, width).
        negative: the negative prompt's, (1, tokens, width).
    Returns:
        Clean latents, float32, of the same shape on the base's device.
    """
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    scheduler.set_timesteps(steps, device=base.device)
    latents = latents.to(base.device, torch.float32) * scheduler.init_noise_sigma
    guided = guidance != 1.0
    if guided:
        embeddings = torch.cat((negative.expand(len(embeddings), -1, -1), embeddings))
    unet.eval()
    for number, timestep in enumerate(scheduler.timesteps):
        rows = torch.cat((latents, latents)) if guided else latents
        with autocast(base.device):
            predicted = unet(rows.to(base.dtype), timestep, embeddings).sample.float()
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
        on_step(number + 1, steps)
    return latents
