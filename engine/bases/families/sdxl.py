"""Stable Diffusion XL (arXiv 2307.01952)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.bases.families.interface import Conditioning, Parts, has_room, tokens_of
from engine.bases.families.stable_diffusion import RECIPES, StableDiffusion
from engine.recipe import ATTENTION


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    """A U-Net that hears two text encoders side by side, the second one's vector of the whole prompt, and the sizes of
    the picture."""

    text_encoders: ClassVar[dict[str, str]] = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}

    def encode(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        heard = []
        for encoder, tokenizer in self.text_encoders.items():
            tokens = tokens_of(base.parts[tokenizer], prompts, base.device)
            answer = base.parts[encoder](tokens, output_hidden_states=True)
            # The last layer but one, without its norm (section 2.1 and the reference implementation).
            heard.append(answer.hidden_states[-2].to(base.dtype))
        return Conditioning(torch.cat(heard, dim=-1), answer.text_embeds.to(base.dtype))

    def negative(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        """The empty prompt is silence where the model was trained so (force_zeros_for_empty_prompt)."""
        words = self.encode(base, prompts)
        if not base.parts.get("force_zeros_for_empty_prompt", True):
            return words
        silence = words.zeros()
        return Conditioning.join([(words if prompt else silence)[n : n + 1] for n, prompt in enumerate(prompts)])

    def predict(self, base: Parts, denoiser: Any, noisy: Tensor, timestep: Tensor, words: Conditioning) -> Tensor:
        # Original size, crop and target size (section 2.2), in pixels: the pictures are whole and uncropped.
        height, width = (base.latent_scale * side for side in noisy.shape[2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=noisy.device, dtype=noisy.dtype)
        said = {"text_embeds": words.pooled, "time_ids": sizes.expand(len(noisy), -1)}
        return denoiser(noisy, timestep, words.states, added_cond_kwargs=said).sample  # type: ignore[no-any-return]

    def room(self, base: Parts, prompt: str) -> bool:
        return all(has_room(base.parts[tokenizer], prompt) for tokenizer in self.text_encoders.values())

    def usable(self, base: Parts) -> None:
        super().usable(base)
        config: Any = base.parts["unet"].config
        if config.addition_embed_type != "text_time":
            raise ValueError("its U-Net hears no picture sizes")


SDXL = StableDiffusionXL(name="sdxl", guidance=5.0, draw_steps=30, adapter_targets=ATTENTION, recipes=RECIPES)
"""The guidance scale is that of diffusers' pipeline."""
