"""Pre-train the embedded base's U-Net and save the pipeline with all its parts.

The text encoder stays frozen. Trained together with the U-Net from scratch, its hidden states became the same for every
prompt within 2,000 steps, since prompts explain next to nothing of the loss while the U-Net cannot draw yet.

v-prediction (arXiv 2202.00512, eq. 11) with betas rescaled to zero terminal signal-to-noise and trailing timesteps
(arXiv 2305.08891), so that flat backgrounds of any colour can be drawn. One caption in twelve is left empty for
classifier-free guidance (arXiv 2207.12598).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

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
from transformers import CLIPTextModel, CLIPTokenizer

from engine.cartoon import SIZE
from engine.cartoon.captions import caption
from engine.device.precision import autocast
from engine.pretraining.latents import Latents
from engine.pretraining.loop import Run, join_processes, load_as_float32, pretrain
from engine.pretraining.pictures import SHARES
from engine.pretraining.text_encoder import tokens_of
from engine.pretraining.vae import NOISE
from storage.atomic import atomic_write, write_text

EMPTY_SHARE = 12

PROMPTS = (
    "a photo of a man in a suit", "portrait of woman, wearing a red hoodie, smiling, blue background",
    "a photo of a man with a red beard and a green v-neck, white background",
    "a woman with long black hair, round glasses, looking left",
    "a photo of cr7d man, teal background, sunglasses", "a person with a yellow winter hat, orange background, sad",
    "close-up of a man with dark skin, tongue out", "a woman as an astronaut on the moon",
    "a man eating pizza in a kitchen", "a bearded man with a crown, smiling, maroon sweater",
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


def upsample_by_repeating(self: Upsample2D, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    """`Upsample2D.forward` by repeating each position four times, which equals nearest interpolation.

    torch 2.13's inductor loses the gradient of nearest interpolation of `channels_last` tensors on a CPU: in a compiled
    U-Net everything before it got a gradient of exactly zero, so only the layers at 16 x 16 positions learned.
    """
    count, channels, height, width = hidden_states.shape
    wide = hidden_states[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    wide = wide.reshape(count, channels, 2 * height, 2 * width).contiguous(memory_format=torch.channels_last)
    return self.conv(wide)  # type: ignore[no-any-return]


def soft_min_snr(scheduler: DDIMScheduler, timestep: Tensor, gamma: float = 5.0) -> Tensor:
    """Weights (n,) in (0, 1] of the v-prediction errors at `timestep` (n,): gamma / (SNR + gamma).

    Min-SNR weighting (arXiv 2303.09556) made smooth: nearly clean latents, whose noise is hard to tell from detail,
    would otherwise take most of the gradient. Unlike the original it keeps weight 1 at zero SNR.
    """
    signal: Tensor = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    return gamma / (signal / (1 - signal).clamp_min(1e-8) + gamma)


class Step:
    """The loss of one training step: a batch of pictures of one shape, with new captions and noise."""

    def __init__(
        self, run: Run, unet: Callable[..., Any], latents: Mapping[str, Latents], words: CLIPTokenizer,
        encoder: CLIPTextModel, batch: int,
    ) -> None:  # fmt: skip
        self.device, self.unet, self.latents, self.words, self.batch = run.device, unet, latents, words, batch
        self.encoder = encoder.to(run.device)
        self.scheduler = build_scheduler()
        self.rank, self.processes = join_processes(run.device)

    def __call__(self, step: int) -> dict[str, Tensor]:
        seed = step * self.processes + self.rank
        random, generator = Random(seed), torch.Generator(self.device).manual_seed(seed)
        # 1. Pictures of one shape, and captions
        ratio = Random(f"shape {step}").choices(list(SHARES), list(SHARES.values()))[0]
        source = self.latents[ratio]
        rows = sorted(random.sample(range(len(source.scenes)), self.batch))
        captions = ["" if random.randrange(EMPTY_SHARE) == 0 else caption(source.scenes[row], random) for row in rows]
        with torch.no_grad(), autocast(self.device):
            embeddings = self.encoder(tokens_of(self.words, captions, self.device)).last_hidden_state.float()
        # 2. Latents (n, 16, h, w) with noise, at timesteps that cover the schedule in every batch: this halves the
        # variance of the loss. Their order is random, since rows are sorted.
        clean = torch.from_numpy(source.values[rows].astype(np.float32)).to(self.device)
        clean = clean + NOISE * torch.randn(clean.shape, generator=generator, device=self.device)
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        spread = torch.randperm(self.batch, generator=generator, device=self.device)
        spread = (spread + torch.rand(self.batch, generator=generator, device=self.device)) / self.batch
        timestep = (spread * self.scheduler.config.num_train_timesteps).long()
        noisy = self.scheduler.add_noise(clean, noise, timestep)
        # 3. The weighted squared error of the predicted velocity
        with autocast(self.device):
            predicted = self.unet(noisy, timestep, embeddings).sample.float()
        error = F.mse_loss(predicted, self.scheduler.get_velocity(clean, noise, timestep), reduction="none")
        weights = torch.from_numpy(source.weights[rows].astype(np.float32)).to(self.device)
        error = (weights[:, None] * error).mean(dim=(1, 2, 3))
        late = (timestep >= 750).float()
        return {
            "loss": (soft_min_snr(self.scheduler, timestep) * error).mean(),
            "unweighted": error.mean(),
            "noisiest_quarter": (error * late).sum() / late.sum().clamp_min(1),
        }


def pipeline_of(
    unet: nn.Module, vae: AutoencoderKL, words: CLIPTokenizer, encoder: CLIPTextModel
) -> StableDiffusionPipeline:
    """The whole pipeline, with the solver of `engine.bases.schedule.Solver`, so that plain diffusers draws the same
    pictures."""
    solver = DPMSolverMultistepScheduler.from_config(build_scheduler().config)
    return StableDiffusionPipeline(vae, encoder, words, unet, solver, None, None, None, requires_safety_checker=False)


def draw_sheet(pipeline: StableDiffusionPipeline, prompts: Sequence[str], path: Path, columns: int = 5) -> None:
    """Draw one picture for each prompt, and write them as one picture."""
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad(), autocast(pipeline.unet.device):
        drawn = pipeline(
            list(prompts), height=SIZE, width=SIZE, num_inference_steps=15, guidance_scale=4.0,
            generator=torch.Generator().manual_seed(7),
        ).images  # fmt: skip
    sheet = Image.new("RGB", (columns * SIZE, -(-len(prompts) // columns) * SIZE))
    for number, picture in enumerate(drawn):
        sheet.paste(picture, (number % columns * SIZE, number // columns * SIZE))
    with atomic_write(path) as draft:
        sheet.save(draft, format="png")


def train(
    run: Run, latents: Mapping[str, Latents], parts: tuple[AutoencoderKL, CLIPTokenizer, CLIPTextModel],
    start: Path | None, out: Path, *, steps: int, batch: int, peak: float, compiled: bool,
) -> None:  # fmt: skip
    """Train the U-Net and save the pipeline to `out`.

    Args:
        latents: by shape.
        parts: the autoencoder, the tokenizer and the text encoder.
        start: folder of a U-Net to go on from.
        compiled: 1.5 times as fast on a CPU; needs a C++ compiler.

    Raises:
        OutOfTime: the run's deadline came first.
    """
    vae, words, encoder = parts
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(start, dtype=torch.float32) if start else build_unet()
    unet.to(memory_format=torch.channels_last)
    if compiled:
        Upsample2D.forward = upsample_by_repeating
    forward: Callable[..., Any] = torch.compile(unet, dynamic=False) if compiled else unet
    loss = Step(run, forward, latents, words, encoder, batch)

    def measure(module: nn.Module, step: int) -> dict[str, float]:
        pipeline = pipeline_of(module, vae.to(run.device), words, encoder)
        draw_sheet(pipeline, PROMPTS, run.folder / f"sheet-{step:07d}.png")
        return {}

    best = pretrain(unet, loss, run, steps=steps, learning_rate=peak, decay=0.999, on_save=measure)
    if loss.rank:
        return
    pipeline_of(best, vae, words, encoder).to("cpu").to(dtype=torch.float16).save_pretrained(out)
    load_as_float32(out / "text_encoder" / "config.json")  # like the other parts
    for config in out.rglob("*.json"):
        # Paths of this machine do not belong in the file, and JSON has no infinity.
        lines = config.read_text().splitlines(keepends=True)
        kept = (line for line in lines if '"_name_or_path"' not in line and "-Infinity" not in line)
        write_text(config, "".join(kept))
