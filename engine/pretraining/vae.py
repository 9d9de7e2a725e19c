"""Pre-train the embedded base's autoencoder.

256 x 256 pictures become 16 x 16 latents of 16 channels: a U-Net for them costs no more than one for 128 x 128 pictures
and an eighth of the side. The latents' variance is fixed rather than learned (`NOISE`), since this base needs sharp
edges, not a tight prior.

`grow` starts from an autoencoder of half the side, and `train` keeps the new latents near those of the old one
(`ANCHOR`): a U-Net that was trained on the old latents draws at twice the side at once, and has only to be trained on.
Without a start, the mean and scale of the set's latents are folded into the 1 x 1 (post-)quantisation convolutions at
the end. Either way `StableDiffusionPipeline` needs neither shift nor scaling.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from engine.cartoon import SIZE
from engine.device.precision import autocast
from engine.pretraining.loop import Run, join_processes, pretrain
from engine.pretraining.pictures import Pictures
from storage.atomic import atomic_write

NOISE = 0.05
"""Standard deviation of the noise that is added when a latent of unit variance is sampled."""

MOST_NOISE = 0.12
"""The decoder learns to ignore noise up to this standard deviation: a U-Net's latents are never exact."""

ANCHOR = 0.5
"""Weight of the squared distance from the old autoencoder's latents."""

CROP = 128
LEVELS = (16, 16, 32, 64, 128)
DOWN = 2 ** (len(LEVELS) - 1)
"""Pixels of a side for each place of a latent."""

CHANNELS = 16


def build() -> AutoencoderKL:
    """A fresh `AutoencoderKL` with 16 latent channels and a downsampling factor of 16."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(LEVELS),
        up_block_types=("UpDecoderBlock2D",) * len(LEVELS),
        block_out_channels=LEVELS,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def grow(small: AutoencoderKL) -> AutoencoderKL:
    """An autoencoder for pictures of twice the side, which starts with all layers of `small` that fit.

    The encoder gets a new first level and the decoder a new last one.
    """
    large, state = build(), small.state_dict()
    names: Mapping[str, Tensor] = large.state_dict()
    grown = {}
    for name, tensor in names.items():
        old = name
        if name.startswith("encoder.down_blocks."):
            level = int(name.split(".")[2])
            old = name.replace(f"down_blocks.{level}", f"down_blocks.{level - 1}", 1) if level else ""
        grown[name] = state[old] if old in state and state[old].shape == tensor.shape else tensor
    large.load_state_dict(grown)
    return large


def crops(
    drawn: NDArray[np.uint8], photos: Sequence[NDArray[np.uint8]], count: int, random: np.random.Generator
) -> Tensor:
    """`count` random crops, (count, 3, 128, 128) in [-1, 1]: nine in ten drawn, the rest photos or with swapped
    channels, which keep the autoencoder usable for pictures from outside the drawn world."""
    batch = np.empty((count, CROP, CROP, 3), np.uint8)
    for row in range(count):
        photo = bool(photos) and random.random() < 0.12
        source = photos[int(random.integers(len(photos)))] if photo else drawn[random.integers(len(drawn))]
        # Positions of a latent's place, so that the old autoencoder sees the same picture.
        y, x = (int(random.integers((side - CROP) // 2 + 1)) * 2 for side in source.shape[:2])
        crop = source[y : y + CROP, x : x + CROP]
        batch[row] = crop[..., random.permutation(3)] if random.random() < 0.2 else crop
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(picture: Tensor) -> Tensor:
    """Differences between neighbouring pixels, down and right, (n, 6, h - 1, w - 1)."""
    down = picture[..., 1:, :-1] - picture[..., :-1, :-1]
    right = picture[..., :-1, 1:] - picture[..., :-1, :-1]
    return torch.cat((down, right), dim=1)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], averaged over the batch."""
    error = (a.clamp(-1, 1) - b).pow(2).mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / error.clamp_min(1e-10))).mean())


def mean_of(vae: AutoencoderKL, picture: Tensor) -> Tensor:
    """Latent means, (n, 16, h / 16, w / 16), before any scaling."""
    mean: Tensor = vae.encode(picture).latent_dist.mean
    return mean


@torch.no_grad()
def normalise(vae: AutoencoderKL, batches: Sequence[Tensor]) -> None:
    """Fold the latents' mean and one common scale into the 1 x 1 convolutions, and fix the variance to NOISE.

    The channels keep their covariance. Unit variance for each channel was tried: it enlarges channels that carry next
    to nothing (the covariance's eigenvalues span 0.004 to 5), and the U-Net then learns mostly noise.
    """
    latents = torch.cat([mean_of(vae, batch).transpose(0, 1).flatten(1) for batch in batches], dim=1)  # (16, n)
    mean = latents.mean(dim=1)
    scale = (latents - mean[:, None]).pow(2).mean().rsqrt()
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.bias[:CHANNELS] = scale * (quant.bias[:CHANNELS] - mean)
    quant.weight[:CHANNELS] *= scale
    quant.weight[CHANNELS:], quant.bias[CHANNELS:] = 0.0, 2 * math.log(NOISE)
    # post(z) = W z + b must now see z = z' / scale + mean.
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= scale


def to_input(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1] on the device."""
    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(
    run: Run, pictures: Pictures, photos: Sequence[NDArray[np.uint8]], start: Path | None, out: Path,
    *, steps: int, batch: int, peak: float,
) -> None:  # fmt: skip
    """Train the autoencoder and save it to `out`.

    Args:
        photos: pictures (h, w, 3) of at least 128 pixels a side to learn textures from as well.
        start: folder of an autoencoder of half the side, to grow and to stay near to.

    Raises:
        OutOfTime: the run's deadline came first.
    """
    rank, processes = join_processes(run.device)
    device, measured = run.device, min(64, len(pictures) // 2)
    drawn, held_out = pictures.pixels[:-measured], to_input(pictures.pixels[-measured:], device)
    old = AutoencoderKL.from_pretrained(start, dtype=torch.float32).to(device).eval() if start else None
    torch.manual_seed(0)
    vae = (grow(old) if old else build()).to(memory_format=torch.channels_last)

    def loss(step: int) -> dict[str, Tensor]:
        torch.manual_seed(step * processes + rank)
        random = np.random.default_rng(step * processes + rank)
        picture = crops(drawn, photos, batch, random).to(device).contiguous(memory_format=torch.channels_last)
        std = MOST_NOISE * torch.rand(len(picture), 1, 1, 1, device=device)
        with autocast(device):
            latent = mean_of(vae, picture)
            drawing = vae.decode(latent + std * torch.randn_like(latent)).sample
        drawing, latent = drawing.float(), latent.float()
        pixel = F.l1_loss(drawing, picture) + 2 * F.mse_loss(drawing, picture)
        edge = F.l1_loss(edges(drawing), edges(picture))
        if old:
            with torch.no_grad(), autocast(device):
                target = mean_of(old, F.avg_pool2d(picture, 2)).float()
            kept = F.mse_loss(latent, target)
            return {"loss": pixel + edge + ANCHOR * kept, "pixel": pixel, "edge": edge, "kept": kept}
        spread = (latent.pow(2).mean(dim=(0, 2, 3)) - 1).pow(2).mean()
        return {"loss": pixel + edge + 0.01 * spread, "pixel": pixel, "edge": edge, "spread": spread}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(module, AutoencoderKL)
        with autocast(device):
            drawing = torch.cat([module.decode(mean_of(module, part)).sample.float() for part in held_out.split(16)])
        pairs = torch.stack((held_out[:8], drawing[:8].clamp(-1, 1)), dim=1).flatten(0, 1)
        sheet = pairs.unflatten(0, (4, 4)).permute(0, 3, 1, 4, 2).reshape(4 * SIZE, 4 * SIZE, 3)
        with atomic_write(run.folder / "sheet.png") as draft:
            Image.fromarray(((sheet + 1) * 127.5).round().byte().cpu().numpy()).save(draft)
        return {"psnr": psnr(drawing, held_out)}

    best = pretrain(vae, loss, run, steps=steps, learning_rate=peak, on_save=measure, weight_decay=0.0)
    if rank:
        return
    assert isinstance(best, AutoencoderKL)
    if not old:
        sample = to_input(drawn[:512], device)
        normalise(best, sample.split(16))
    best.half().save_pretrained(out)
