"""FLUX.2 [klein] 4B, a flow-matching transformer.

Chosen among the families of diffusers 0.42 that a 24 GB card holds: its licence is Apache 2.0 for weights and code (SD
3.5's is not; Lumina 2's text encoder has another licence), transformer and text encoder take 16 GB in bfloat16 where
Z-Image's take 20, every prompt has the same number of tokens, so that the requests of several people fit one batch, and
a sibling distilled to four steps takes the same adapters.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engine.bases.families.interface import Conditioning, Family
from engine.bases.interfaces import Autoencoder, Denoiser, Parts
from engine.bases.prompts import Prompt
from engine.bases.schedule import Flow, NoiseSchedule
from engine.recipe import Recipe

TOKENS = 512
"""Tokens of every prompt; shorter ones are padded, and the transformer attends to the padding too."""

LAYERS = (9, 18, 27)
"""Layers of the language model whose hidden states are concatenated (diffusers' pipeline_flux2_klein.py)."""


@dataclass(frozen=True)
class Klein(Family):
    """A transformer over latents in patches of 2 x 2, conditioned on a language model's hidden states."""

    denoiser = "transformer"
    weighs: ClassVar[bool] = False
    text_targets: ClassVar[tuple[str, ...]] = ()

    def schedule(self, config: Mapping[str, Any]) -> NoiseSchedule:
        return Flow(config)

    def encode(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        tokenizer, model = base.parts["tokenizer"], base.parts["text_encoder"]
        tokens = tokenizer(
            [_as_message(tokenizer, prompt.text) for prompt in prompts],
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
        )
        output = model.model(
            input_ids=tokens.input_ids.to(base.device),
            attention_mask=tokens.attention_mask.to(base.device),
            output_hidden_states=True,
            use_cache=False,
        )
        return Conditioning(torch.cat([output.hidden_states[layer] for layer in LAYERS], dim=-1).to(base.dtype))

    def predict(
        self, base: Parts, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning
    ) -> Tensor:
        height, width = noisy.shape[2:]
        prompt_embeds = conditioning.prompt_embeds
        predicted = denoiser(
            hidden_states=noisy.flatten(2).transpose(1, 2),  # (n, h w, c)
            encoder_hidden_states=prompt_embeds,
            timestep=timestep.expand(len(noisy)).to(noisy.dtype) / 1000,
            img_ids=_positions(noisy.device, height, width, 1),
            txt_ids=_positions(noisy.device, 1, 1, prompt_embeds.shape[1]),
            guidance=None,
        ).sample
        latents: Tensor = predicted.transpose(1, 2).unflatten(2, (height, width))  # (n, h w, c) to (n, c, h, w)
        return latents

    def unread(self, base: Parts, prompt: Prompt) -> str:
        # A language model numbers the places of one text, so it is not read in windows.
        tokenizer, text = base.parts["tokenizer"], prompt.text.strip()
        message = _as_message(tokenizer, text)
        start = message[: message.rindex(text)]

        def length(end: int) -> int:
            return len(tokenizer(start + text[:end], verbose=False).input_ids)

        ends = [0, *(word.end() for word in re.finditer(r"\S+", text))]
        return text[ends[bisect_right(ends, TOKENS, key=length) - 1] :].strip()

    def to_latents(self, vae: Autoencoder, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        channel_mean, channel_std = _statistics(vae, mean)
        return (_patches(mean) - channel_mean) / channel_std, _patches(std) / channel_std

    def from_latents(self, vae: Autoencoder, latents: Tensor) -> Tensor:
        channel_mean, channel_std = _statistics(vae, latents)
        return nn.functional.pixel_shuffle(latents * channel_std + channel_mean, 2)

    def side(self, base: Parts) -> int:
        return int(base.vae.config.sample_size)

    def latent_channels(self, base: Parts) -> int:
        return int(base.unet.config.in_channels)

    def vae_scale_factor(self, base: Parts) -> int:
        return int(2 ** len(base.vae.config.block_out_channels))

    def multiple(self, base: Parts) -> int:
        return self.vae_scale_factor(base)


def _as_message(tokenizer: Any, prompt: str) -> str:
    message = [{"role": "user", "content": prompt}]
    templated: str = tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return templated


def _positions(device: torch.device, height: int, width: int, tokens: int) -> Tensor:
    """Coordinates (positions, 4) for rotary embeddings: time, row, column, number in the text."""
    axes = (torch.arange(1), torch.arange(height), torch.arange(width), torch.arange(tokens))
    return torch.cartesian_prod(*axes).to(device)


def _patches(latents: Tensor) -> Tensor:
    """(n, c, h, w) to (n, 4 c, h / 2, w / 2): each 2 x 2 square becomes channels."""
    return nn.functional.pixel_unshuffle(latents, 2)


def _statistics(vae: Autoencoder, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents' channels, each (1, 4 c, 1, 1): the running ones of a batch norm."""
    norm: Any = vae.bn
    mean = norm.running_mean.reshape(1, -1, 1, 1).to(like)
    std = (norm.running_var + vae.config.batch_norm_eps).sqrt().reshape(1, -1, 1, 1).to(like)
    return mean, std


KLEIN = Klein(
    name="klein",
    # The undistilled model's (diffusers' pipeline); the distilled sibling's are in KLEIN_DISTILLED.
    guidance=4.0,
    draw_steps=50,
    # Both streams' attention, and the single blocks' layers, which hold attention and feed-forward in one.
    adapter_targets=(
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        "attn.to_qkv_mlp_proj", "attn.to_out",
    ),
    # ai-toolkit's: rank 16 at 1e-4. Full fine-tuning wants more than 24 GB.
    recipes={
        "lora": (100, Recipe("lora", 0, 1e-4, 1, 1, 1.0, crop="face")),
        "dreambooth": (75, Recipe("dreambooth", 0, 2e-6, 1, 1, 1.0, crop="face")),
    },
)  # fmt: skip

KLEIN_DISTILLED = replace(KLEIN, guidance=1.0, draw_steps=4)
"""Guidance is distilled into it, and it draws in four steps."""
