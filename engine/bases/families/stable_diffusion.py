"""Stable Diffusion 1.x and 2.x."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.bases.families.interface import Conditioning, Encoded, Family, encode_windows
from engine.bases.interfaces import Denoiser, Parts
from engine.bases.prompts import Prompt, read
from engine.bases.schedule import Diffusion, NoiseSchedule
from engine.recipe import ATTENTION, Method, Recipe


@dataclass(frozen=True)
class StableDiffusion(Family):
    """A U-Net conditioned on the last hidden states of one CLIP text encoder."""

    def schedule(self, config: Mapping[str, Any]) -> NoiseSchedule:
        return Diffusion(config)

    def encode(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        def encode(name: str, ids: Tensor) -> Encoded:
            return Encoded(base.text_encoders[name](ids).last_hidden_state)

        return encode_windows(base, prompts, encode, self.most_windows)

    def predict(
        self, base: Parts, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return denoiser(noisy, timestep, conditioning.prompt_embeds).sample

    def unread(self, base: Parts, prompt: Prompt) -> str:
        unread = [read(base.tokenizer(name), prompt, self.most_windows).unread for name in self.text_encoders]
        return max(unread, key=len)

    def side(self, base: Parts) -> int:
        return int(base.unet.config.sample_size) * self.vae_scale_factor(base)

    def latent_channels(self, base: Parts) -> int:
        return int(base.unet.config.in_channels)

    def vae_scale_factor(self, base: Parts) -> int:
        return int(2 ** (len(base.vae.config.block_out_channels) - 1))

    def multiple(self, base: Parts) -> int:
        # The U-Net halves the latents once for each of its levels but the last.
        return int(self.vae_scale_factor(base) * 2 ** (len(base.unet.config.block_out_channels) - 1))


RECIPES: Mapping[Method, tuple[int, Recipe]] = {
    # The seed: 50 to 100 steps for each image at 2e-6. diffusers' train_dreambooth.py: batch 1, prior weight 1.
    "dreambooth": (75, Recipe("dreambooth", 0, 2e-6, 1, 1, 1.0, crop="face")),
    # diffusers' train_dreambooth_lora.py and train_dreambooth_lora_sdxl.py: 1e-4, 500 steps on 5 pictures.
    "lora": (100, Recipe("lora", 0, 1e-4, 1, 1, 1.0, crop="face")),
}

SD1 = StableDiffusion(name="sd1", guidance=7.5, draw_steps=30, adapter_targets=ATTENTION, recipes=RECIPES)

SD2 = StableDiffusion(name="sd2", guidance=7.5, draw_steps=30, adapter_targets=ATTENTION, recipes=RECIPES)
"""A larger text encoder, linear projections, and v-prediction in the 768-pixel models (the scheduler says so)."""
