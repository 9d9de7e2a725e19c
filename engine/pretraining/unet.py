"""Pre-train the embedded base's U-Net and save the pipeline with all its parts:
`python -m engine.pretraining.unet --set DIR --vae DIR --tokenizer DIR --text-encoder DIR --work DIR --out DIR`.

Ran once; kept so that it can be repeated.

The text encoder (engine.pretraining.text_encoder) stays frozen. Trained together with the U-Net from scratch, its
hidden states became the same for every prompt within 2,000 steps, since prompts explain next to nothing of the loss
while the U-Net cannot draw yet.

v-prediction (arXiv 2202.00512, eq. 11) with betas rescaled to zero terminal signal-to-noise and trailing timesteps
(arXiv 2305.08891), so that flat backgrounds of any colour can be drawn. One caption in twelve is left empty for
classifier-free guidance (arXiv 2207.12598).
"""

import argparse
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.upsampling import Upsample2D
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from engine.device.precision import autocast
from engine.pretraining import pictures, text_encoder
from engine.pretraining.loop import join_processes, load_as_float32, pretrain
from engine.pretraining.vae import NOISE, mean_of
from engine.toon import world
from engine.toon.captions import caption
from engine.toon.world import Look, Person, Scene
from storage.atomic import atomic_write, write_text

EMPTY_SHARE = 12

PROMPTS = (
    "a photo of a man in a suit", "portrait of woman, wearing a red hoodie, smiling, blue background",
    "a photo of a man with a red beard and a green v-neck, white background", 
    "a woman with long black hair, round glasses",
    "a photo of cr7d man, purple background, sunglasses", "a person with a yellow winter hat, orange background, sad",
    "close-up of a man with dark skin, tongue out", "a woman from afar in blue overalls, pink background, eyes closed",
)  # fmt: skip
"""Drawn at every checkpoint, to look at."""


def build_unet(width: int = 192) -> UNet2DConditionModel:
    """A fresh U-Net for 16 x 16 latents of 16 channels, 12 million parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=16,
        out_channels=16,
        block_out_channels=(96, width, width),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=6,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def build_scheduler() -> DDIMScheduler:
    """Zero terminal SNR, v-prediction and trailing timesteps; noisier than Stable Diffusion, whose last beta is 0.012.

    Flat areas are the same in many latents at once, and remain visible through much noise. With Stable Diffusion's
    betas, one step at timestep 500 was enough to recognise a face, so half of all steps, in training and in drawing,
    decided nothing.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.03,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


@torch.no_grad()
def encode_set(folder: Path, vae: AutoencoderKL) -> np.ndarray:
    """Latent means of the drawn set, float16 (count, 16, 16, 16), computed once and kept in its folder."""
    path = folder / "latents.npy"
    if not path.exists():
        drawn, _ = pictures.load(folder)
        with atomic_write(path) as draft:
            latents = np.lib.format.open_memmap(draft, "w+", np.float16, (len(drawn), 16, 16, 16))
            for start in range(0, len(drawn), 32):
                picture = torch.from_numpy(np.array(drawn[start : start + 32])).permute(0, 3, 1, 2).float() / 127.5 - 1
                with autocast(torch.device("cpu")):
                    latent = mean_of(vae, picture)
                latents[start : start + 32] = latent.half().numpy()
            latents.flush()
    return np.load(path)  # type: ignore[no-any-return]


def upsample_by_repeating(self: Upsample2D, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    """`Upsample2D.forward` by repeating each position four times, which equals nearest interpolation.

    torch 2.13's inductor loses the gradient of nearest interpolation of `channels_last` tensors on a CPU: in a compiled
    U-Net everything before it got a gradient of exactly zero, so only the layers at 16 x 16 positions learned.
    """
    count, channels, height, width = hidden_states.shape
    wide = hidden_states[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    wide = wide.reshape(count, channels, 2 * height, 2 * width).contiguous(memory_format=torch.channels_last)
    return self.conv(wide)  # type: ignore[no-any-return]


@cache
def emphasis(tilt: str, distance: str, faces: float = 5.0, heads: float = 1.5) -> Tensor:
    """Weights (16, 16), mean 1, of the squared errors in a latent: larger where expressions and heads differ.

    Eyes and mouths fill a twentieth of the picture, and half of what prompts ask for is there. Hair and beards, whose
    outlines came out as mixtures, are most of a person's identity. Their positions in a pose are found by rendering one
    person with every variant: to the weight 1 of a latent position, the standard deviation of its pixels between the
    variants, relative to the largest, adds up to `faces` and `heads`.
    """
    person, look = Person("man", "sides", "black", "pale", "none"), Look("t-shirt", "white", "white")
    look = replace(look, tilt=tilt, distance=distance)
    expressions = [
        Scene(person, replace(look, eyes=eyes, mouth=mouth), grain=0)
        for eyes, mouth in zip_longest(world.EYES, world.MOUTHS, fillvalue="neutral")
    ]
    heads_of = [
        Scene(replace(person, hair_style=style, facial_hair=beard), look, grain=0)
        for styles in world.HAIR_STYLES_OF.values()
        for style, beard in zip_longest(styles, world.FACIAL_HAIRS, fillvalue="none")
    ]
    weights = 1 + faces * _deviation(expressions) + heads * _deviation(heads_of)
    return weights / weights.mean()


def _deviation(scenes: list[Scene]) -> Tensor:
    """Standard deviation of each latent position's pixels between the scenes (16, 16), 0 to 1. Equal grains needed."""
    drawn = np.stack([np.asarray(world.render(scene), np.float32) for scene in scenes])
    deviation = torch.from_numpy(drawn).std(dim=0).mean(dim=-1)  # (128, 128)
    cells = F.avg_pool2d(deviation[None], 8)[0]  # (16, 16)
    return (cells / cells.max()).sqrt()


def soft_min_snr(scheduler: DDIMScheduler, timestep: Tensor, gamma: float = 5.0) -> Tensor:
    """Weights (n,) in (0, 1] of the v-prediction errors at `timestep` (n,): gamma / (SNR + gamma).

    Min-SNR weighting (arXiv 2303.09556) made smooth: nearly clean latents, whose noise is hard to tell from detail,
    would otherwise take most of the gradient. Unlike the original it keeps weight 1 at zero SNR.
    """
    signal: Tensor = scheduler.alphas_cumprod[timestep]
    return gamma / (signal / (1 - signal).clamp_min(1e-8) + gamma)


def main(
    drawn_set: Path, vae_folder: Path, tokenizer: Path, encoder_folder: Path, start: Path | None, work: Path, out: Path,
    steps: int, batch: int, peak: float, compiled: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    rank, processes = join_processes()
    words = CLIPTokenizer.from_pretrained(tokenizer)
    vae = AutoencoderKL.from_pretrained(vae_folder, dtype=torch.float32)
    _, scenes = pictures.load(drawn_set)
    latents = encode_set(drawn_set, vae)
    scheduler, encoder = build_scheduler(), text_encoder.load(encoder_folder)
    unet = UNet2DConditionModel.from_pretrained(start, dtype=torch.float32) if start else build_unet()
    unet.to(memory_format=torch.channels_last)
    weights = torch.stack([emphasis(scene.look.tilt, scene.look.distance) for scene in scenes])
    if compiled:
        Upsample2D.forward = upsample_by_repeating
    forward = torch.compile(unet) if compiled else unet

    def loss(step: int) -> dict[str, Tensor]:
        # Every step of every process has its own random numbers, also after a resume.
        random = Random(step * processes + rank)
        torch.manual_seed(step * processes + rank)
        rows = [random.randrange(len(scenes)) for _ in range(batch)]
        prompts = ["" if random.randrange(EMPTY_SHARE) == 0 else caption(scenes[row], random) for row in rows]
        tokens = words(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            embeddings = encoder(tokens).last_hidden_state
        clean = torch.from_numpy(latents[rows].astype(np.float32))
        clean = clean + NOISE * torch.randn_like(clean)
        noise = torch.randn_like(clean)
        # Stratified timesteps: every batch covers the full schedule, which halves the loss's variance.
        spread = (torch.arange(batch) + torch.rand(batch)) / batch
        timestep = (spread * scheduler.config.num_train_timesteps).long()
        noisy = scheduler.add_noise(clean, noise, timestep)
        with autocast(torch.device("cpu")):
            predicted = forward(noisy, timestep, embeddings).sample
        error = F.mse_loss(predicted.float(), scheduler.get_velocity(clean, noise, timestep), reduction="none")
        error = (weights[rows, None] * error).mean(dim=(1, 2, 3))
        return {
            "loss": (soft_min_snr(scheduler, timestep) * error).mean(),
            "unweighted": error.mean(),
            "noisiest_quarter": error[-(batch // 4) :].mean(),
        }

    def pipeline_of(module: nn.Module) -> StableDiffusionPipeline:
        # The steps of `engine.bases.schedule.Solver`, so that plain diffusers draws the same pictures.
        solver = DPMSolverMultistepScheduler.from_config(scheduler.config)
        return StableDiffusionPipeline(
            vae, encoder, words, module, solver, None, None, None, requires_safety_checker=False
        )

    def measure(module: nn.Module, step: int) -> dict[str, float]:
        pipeline = pipeline_of(module)
        pipeline.set_progress_bar_config(disable=True)
        drawn = pipeline(
            list(PROMPTS), height=128, width=128, num_inference_steps=15, guidance_scale=4.0,
            generator=torch.Generator().manual_seed(7),
        ).images  # fmt: skip
        sheet = Image.new("RGB", (len(PROMPTS) * 128, 128))
        for number, picture in enumerate(drawn):
            sheet.paste(picture, (number * 128, 0))
        with atomic_write(work / f"sheet-{step:06d}.png") as draft:
            sheet.save(draft)
        return {}

    best = pretrain(unet, loss, work, steps=steps, learning_rate=peak, decay=0.999, save_every=500, on_save=measure)
    if rank:
        return
    pipeline_of(best).to(dtype=torch.float16).save_pretrained(out)
    load_as_float32(out / "text_encoder" / "config.json")  # like the other parts
    for config in out.rglob("*.json"):
        # Paths of this machine do not belong in the file, and JSON has no infinity.
        lines = config.read_text().splitlines(keepends=True)
        kept = (line for line in lines if '"_name_or_path"' not in line and "-Infinity" not in line)
        write_text(config, "".join(kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.pretraining.pictures")
    parser.add_argument("--vae", type=Path, required=True, help="folder written by engine.pretraining.vae")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by engine.pretraining.tokenizer")
    parser.add_argument(
        "--text-encoder", type=Path, required=True, help="folder written by engine.pretraining.text_encoder"
    )
    parser.add_argument("--from", dest="start", type=Path, help="U-Net to go on from")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--compile", action="store_true", help="1.5 times as fast on a CPU; needs a C++ compiler")
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.vae, arguments.tokenizer, arguments.text_encoder, arguments.start, arguments.work,
        arguments.out, arguments.steps, arguments.batch, arguments.learning_rate, arguments.compile,
    )  # fmt: skip
