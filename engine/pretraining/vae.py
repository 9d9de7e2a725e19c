"""Pre-train the embedded base's autoencoder: `python -m engine.pretraining.vae --set DIR --work DIR --out DIR`.

128 x 128 pictures become 16 x 16 latents of 16 channels. The latents' variance is fixed rather than learned (`NOISE`),
since this base needs sharp edges, not a tight prior. At the end the mean and scale of the set's latents are folded into
the 1 x 1 (post-)quantisation convolutions. The latents then have mean 0 and variance 1 over all channels together, and
`StableDiffusionPipeline` needs neither shift nor scaling. Ran once; kept so that it can be repeated.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from engine.device.precision import autocast
from engine.pretraining import pictures
from engine.pretraining.loop import join_processes, pretrain
from engine.toon import SIZE
from storage.atomic import atomic_write

NOISE = 0.05
"""Standard deviation of the noise that is added when a latent of unit variance is sampled."""

MOST_NOISE = 0.12
"""The decoder learns to ignore noise up to this standard deviation: a U-Net's latents are never exact."""

CROP = 64


def build() -> AutoencoderKL:
    """A fresh `AutoencoderKL` with 16 latent channels and a downsampling factor of 8."""
    levels = (16, 32, 64, 128)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def crops(
    drawn: NDArray[np.uint8], photos: Sequence[NDArray[np.uint8]], count: int, random: np.random.Generator
) -> Tensor:
    """`count` random crops, (count, 3, 64, 64) in [-1, 1]: nine in ten drawn, the rest photos or with swapped channels.

    Photos and swapped colours keep the autoencoder usable for pictures from outside the drawn world.
    """
    batch = np.empty((count, CROP, CROP, 3), np.uint8)
    for row in range(count):
        photo = bool(photos) and random.random() < 0.12
        source = photos[int(random.integers(len(photos)))] if photo else drawn[random.integers(len(drawn))]
        y, x = (random.integers(side - CROP + 1) for side in source.shape[:2])
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
    """Latent means, (n, 16, h / 8, w / 8), before any scaling."""
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
    quant.bias[:16] = scale * (quant.bias[:16] - mean)
    quant.weight[:16] *= scale
    quant.weight[16:], quant.bias[16:] = 0.0, 2 * math.log(NOISE)
    # post(z) = W z + b must now see z = z' / scale + mean.
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= scale


def main(
    drawn_set: Path, photo_folder: Path | None, start: Path | None, work: Path, out: Path, steps: int, batch: int,
    peak: float,
) -> None:  # fmt: skip
    rank, _ = join_processes()
    torch.manual_seed(rank)
    random = np.random.default_rng(rank)
    drawn, _ = pictures.load(drawn_set)
    drawn, held_out = drawn[:-64], torch.from_numpy(np.array(drawn[-64:])).permute(0, 3, 1, 2).float() / 127.5 - 1
    photos = [
        np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        for path in sorted(photo_folder.glob("*.jpg") if photo_folder else [])
        for side in (SIZE, 2 * SIZE)
    ]
    vae = AutoencoderKL.from_pretrained(start, dtype=torch.float32) if start else build()
    vae.to(memory_format=torch.channels_last)

    def loss(step: int) -> dict[str, Tensor]:
        picture = crops(drawn, photos, batch, random)
        std = MOST_NOISE * torch.rand(len(picture), 1, 1, 1)
        with autocast(torch.device("cpu")):
            latent = mean_of(vae, picture)
            drawing = vae.decode(latent + std * torch.randn_like(latent)).sample
        drawing, latent = drawing.float(), latent.float()
        pixel = F.l1_loss(drawing, picture) + 2 * F.mse_loss(drawing, picture)
        edge = F.l1_loss(edges(drawing), edges(picture))
        spread = (latent.pow(2).mean(dim=(0, 2, 3)) - 1).pow(2).mean()
        return {"loss": pixel + edge + 0.01 * spread, "pixel": pixel, "edge": edge, "spread": spread}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(module, AutoencoderKL)
        drawing = torch.cat([module.decode(mean_of(module, part)).sample for part in held_out.split(16)])
        pairs = torch.stack((held_out[:8], drawing[:8].clamp(-1, 1)), dim=1).flatten(0, 1)
        sheet = pairs.unflatten(0, (4, 4)).permute(0, 3, 1, 4, 2).reshape(4 * SIZE, 4 * SIZE, 3)
        with atomic_write(work / "sheet.png") as draft:
            Image.fromarray(((sheet + 1) * 127.5).round().byte().numpy()).save(draft)
        return {"psnr": psnr(drawing, held_out)}

    best = pretrain(vae, loss, work, steps=steps, learning_rate=peak, on_save=measure, weight_decay=0.0)
    if rank:
        return
    assert isinstance(best, AutoencoderKL)
    sample = torch.from_numpy(np.array(drawn[:512])).permute(0, 3, 1, 2).float() / 127.5 - 1
    normalise(best, sample.split(16))
    best.half().save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.pretraining.pictures")
    parser.add_argument("--photos", type=Path, help="folder of .jpg photos to learn textures from as well")
    parser.add_argument("--from", dest="start", type=Path, help="autoencoder to go on from")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.photos, arguments.start, arguments.work, arguments.out, arguments.steps,
        arguments.batch, arguments.learning_rate,
    )  # fmt: skip
