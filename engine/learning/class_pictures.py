"""Pictures of the class noun for prior preservation: drawn by the base itself once, and kept as latents."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from engine.bases.base import BaseModel
from engine.device.memory import OutOfMemory, within_memory
from engine.drawing.denoising import Sampling, denoise, noise
from engine.learning.checkpoints import failure_of
from engine.photos.crops import prepare
from engine.recipe import PriorTarget
from engine.tensor_files import read_tensor
from storage.atomic import atomic_write, put_aside

BATCH = 8
"""Class pictures drawn at once, where memory allows."""

DENOISING_STEPS = 8
"""Most denoising steps of a class picture whose target is the base's own prediction for it: with the second-order
solver it shows as much as after 25, only softer."""


def class_picture_steps(base: BaseModel, target: PriorTarget) -> int:
    """Denoising steps of a class picture. Where the noise is the target, the class becomes what the pictures show, so
    they are drawn as well as the base draws."""
    return base.family.draw_steps if target == "noise" else min(DENOISING_STEPS, base.family.draw_steps)


def class_latents(
    base: BaseModel,
    noun: str,
    count: int,
    side: int,
    folder: Path | None,
    wordings: Sequence[str] | None = None,
    on_step: Callable[[int, int], None] = lambda drawn, of: None,
    on_warning: Callable[..., None] = lambda code, **facts: None,
    *,
    steps: int = DENOISING_STEPS,
) -> tuple[Tensor, list[str]]:
    """Latents (count, c, h, w) of class pictures, and the prompt of each.

    They are drawn once for each base, class noun, side, count, wordings and steps, and kept in `folder`. Each batch is
    kept as soon as it is drawn, so a stopped run goes on with the next batch. A damaged file is put aside, and where
    none can be written, the pictures are used all the same.

    Args:
        side: pixels of the pictures' sides.
        wordings: prompts with {noun}; the family's if None.
        steps: denoising steps of each.
        on_step: called between two denoising steps with how many pictures there are and how many there will be. It may
            draw with adapters on the same base, and raise to stop.
        on_warning: as `engine.learning.listener.Listener.on_warning`.
    Raises:
        UserError: `out_of_memory` if not even one picture fits.
    """
    wordings = wordings or base.family.prior_prompts
    prompts = [wordings[n % len(wordings)].format(noun=noun) for n in range(count)]
    drawn_as = [*wordings, *([str(steps)] if steps != DENOISING_STEPS else [])]
    digest = hashlib.sha256("\n".join(drawn_as).encode()).hexdigest()[:6]
    name = f"{noun.replace(' ', '-')}-{side}-{count}-{digest}.safetensors"
    file = folder / base.fingerprint / name if folder else None
    latents = torch.empty(0, *base.latent_shape(side, side))
    if file and file.exists():
        try:
            latents = _kept(file, count, base.latent_shape(side, side))
        except (SafetensorError, OSError, ValueError):
            aside = put_aside(file, "damaged")
            on_warning("class_pictures_damaged", file=file, aside=aside or file)
    latents, batch = latents.to(base.device), BATCH
    while len(latents) < count:
        seeds = range(len(latents), min(count, len(latents) + batch))
        report = partial(on_step, len(latents), count)
        try:
            drawn = within_memory(partial(_draw, base, [prompts[seed] for seed in seeds], seeds, side, steps, report))
        except OutOfMemory:
            if len(seeds) == 1:
                raise
            batch = len(seeds) // 2
            continue
        latents = torch.cat((latents, drawn))
        if file and (failure := _keep(file, latents)):
            on_warning("class_pictures_unwritten", file=file, reason=failure)
            file = None  # one warning is enough
    return latents, prompts


def _kept(file: Path, most: int, shape: tuple[int, int, int]) -> Tensor:
    """The latents (n, *shape) in a file, at most `most` of them.

    Raises:
        SafetensorError, OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    latents = read_tensor(file, "latents")
    if latents.ndim != 4 or latents.shape[1:] != shape or len(latents) > most or not torch.isfinite(latents).all():
        raise ValueError("these are no such latents")
    return latents.float()


def _keep(file: Path, latents: Tensor) -> str:
    """Write the latents; the reason if they cannot be written, or "". Latents that are not finite are not kept."""
    if not torch.isfinite(latents).all():
        return "They are not finite numbers."

    def write() -> None:
        with atomic_write(file) as draft:
            save_file({"latents": latents.cpu().contiguous()}, draft)

    return failure_of(write)


def _draw(
    base: BaseModel, prompts: Sequence[str], seeds: Sequence[int], side: int, steps: int, on_step: Callable[[], None]
) -> Tensor:
    """Latents (n, c, h, w), one for each prompt and seed."""
    return denoise(
        base.unet,
        base,
        noise(seeds, base.latent_shape(side, side)),
        base.encode_prompts(prompts),
        base.encode_negatives([""]),
        Sampling(steps, base.family.guidance),
        on_step=lambda step, of: on_step(),
    )


def album_as_class(
    base: BaseModel, album: Sequence[Image.Image], prompts: Sequence[Sequence[str]], times: int, side: int
) -> tuple[Tensor, list[str]]:
    """The album's latents (len(album) * times, c, h, w) to be added to the class pictures, and the prompt of each.

    Args:
        prompts: each picture's, with the class noun and without the token; `times` of them are taken, evenly spread
            over the list.
    """
    means, _ = base.encode_pictures([prepare(picture, side) for picture in album])  # (len(album), c, h, w)
    taken = [several[number * len(several) // times] for several in prompts for number in range(times)]
    return means.repeat_interleave(times, dim=0), taken
