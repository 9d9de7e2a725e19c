"""Stable Diffusion XL (arXiv 2307.01952)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.bases.families.interface import Conditioning, Encoded, encode_windows
from engine.bases.families.stable_diffusion import RECIPES, StableDiffusion
from engine.bases.interfaces import Denoiser, Parts
from engine.bases.prompts import Prompt
from engine.recipe import ATTENTION


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    """A U-Net conditioned on the concatenated hidden states of two text encoders, on the pooled embedding of the second
    one, and on the picture's sizes."""

    text_encoders: ClassVar[dict[str, str]] = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}

    def encode(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        def encode(name: str, ids: Tensor) -> Encoded:
            output: Any = base.text_encoders[name](ids, output_hidden_states=True)
            # The last layer but one, without its norm (section 2.1 and the reference implementation).
            return Encoded(output.hidden_states[-2], getattr(output, "text_embeds", None))

        return encode_windows(base, prompts, encode, self.most_windows)

    def encode_negative(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        """Zeros for the empty prompt where the model was trained so (force_zeros_for_empty_prompt)."""
        encoded = self.encode(base, prompts)
        if not base.parts.get("force_zeros_for_empty_prompt", True):
            return encoded
        zeros = encoded.zeros()
        return Conditioning.join([(encoded if prompt.text else zeros)[n : n + 1] for n, prompt in enumerate(prompts)])

    def predict(
        self, base: Parts, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning
    ) -> Tensor:
        # Original size, crop and target size (section 2.2), in pixels. What is drawn looks as if it never had another.
        target = noisy.new_tensor([base.vae_scale_factor * side for side in noisy.shape[2:]], dtype=torch.float32)
        original = conditioning.sizes
        if original is None:
            original = torch.cat((target, torch.zeros_like(target))).expand(len(noisy), -1)  # (n, 4)
        time_ids = torch.cat((original, target.expand(len(noisy), -1)), dim=1)  # (n, 6)
        added = {"text_embeds": conditioning.pooled_prompt_embeds, "time_ids": time_ids}
        return denoiser(noisy, timestep, conditioning.prompt_embeds, added_cond_kwargs=added).sample

    def check_parts(self, base: Parts) -> None:
        super().check_parts(base)
        if base.unet.config.addition_embed_type != "text_time":
            raise ValueError("its U-Net takes no picture sizes")


SDXL = StableDiffusionXL(name="sdxl", guidance=5.0, draw_steps=30, adapter_targets=ATTENTION, recipes=RECIPES)
"""The guidance scale is that of diffusers' pipeline."""
