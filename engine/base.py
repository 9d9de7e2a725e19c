"""The resident base model: loaded once, shared by training and drawing."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from engine.errors import InputError
from engine.family import Family, family_of
from engine.precision import best_device, compute_dtype
from engine.toon import WEIGHTS

LARGEST_SIDE = 1536
"""Pixels of the largest picture's side."""


class BaseModel:
    """Tokenizer, text encoder, VAE, U-Net and noise schedule of one Stable Diffusion, on one device.

    On CUDA the U-Net and the text encoder rest in the compute dtype; on the CPU they stay float32 and compute in
    mixed precision. The VAE is always float32, since SD 1.x overflows float16 there.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, source: str, device: torch.device) -> None:
        self.source, self.device = source, device
        self.dtype = compute_dtype(device) if device.type == "cuda" else torch.float32
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        self.text_encoder: CLIPTextModel = pipeline.text_encoder.to(device).eval().requires_grad_(False)
        self.vae: AutoencoderKL = pipeline.vae.to(device).eval().requires_grad_(False)
        self.unet: UNet2DConditionModel = pipeline.unet.to(device).eval().requires_grad_(False)
        if self.dtype != torch.float32:
            self.text_encoder.to(self.dtype)
            self.unet.to(self.dtype)
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.family: Family = family_of(self.unet.config)
        self.latent_scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.side: int = self.unet.config.sample_size * self.latent_scale
        """Pixels of the side of the pictures that this base was trained on."""
        self.words: dict[str, Any] = {}
        """Learned embeddings of tokens (`engine.words`), by the adapter that they belong to."""

    @classmethod
    def load(cls, source: str | None = None, device: torch.device | None = None) -> "BaseModel":
        """Load a diffusers folder or hub id; None is the embedded base.

        Raises:
            InputError: `base_unusable` if there is no such model or its family is not supported.
        """
        name = source or str(WEIGHTS)
        for progress in (diffusers_logging, transformers_logging):
            progress.disable_progress_bar()
        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                name,
                dtype=torch.float32,
                safety_checker=None,
                requires_safety_checker=False,
                use_safetensors=True,
            )
            return cls(pipeline, source or "embedded", device or best_device())
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise InputError("base_unusable", base=source or "embedded", reason=reason) from error

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (n, tokens, width) in the U-Net's dtype; what does not fit is cut off, as CLIP does."""
        return self.embed_prompts(prompts)

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """As `encode_prompts`, with gradients to the text encoder's adapters."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True,
            max_length=self.tokenizer.model_max_length, return_tensors="pt",
        ).input_ids  # fmt: skip
        return self.text_encoder(tokens.to(self.device)).last_hidden_state.to(self.dtype)  # type: ignore[no-any-return]

    def fits(self, prompt: str) -> bool:
        """Whether the whole prompt is within the text encoder's length."""
        return bool(len(self.tokenizer(prompt, verbose=False).input_ids) <= self.tokenizer.model_max_length)

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (n, channels, h / 8, w / 8), scaled as the U-Net wants."""
        arrays = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 127.5 - 1
        rows = torch.from_numpy(arrays).permute(0, 3, 1, 2).to(self.device)
        posteriors = [self.vae.encode(row[None]).latent_dist for row in rows]
        factor = self.vae.config.scaling_factor
        return (
            torch.cat([posterior.mean for posterior in posteriors]) * factor,
            torch.cat([posterior.std for posterior in posteriors]) * factor,
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of the latents, one at a time, which bounds memory."""
        pictures = []
        for latent in latents.float():
            decoded = self.vae.decode(latent[None] / self.vae.config.scaling_factor).sample[0]
            array = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            pictures.append(Image.fromarray(array))
        return pictures

    @cached_property
    def fingerprint(self) -> str:
        """Ten hexadecimal digits that differ between base models, from some of the U-Net's weights."""
        digest = hashlib.sha256()
        for name, parameter in plain_parameters(self.unet):
            if name.startswith(("conv_in", "conv_out", "time_embedding")):
                digest.update(parameter.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:10]

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a picture of `width` x `height` pixels."""
        return (self.unet.config.in_channels, height // self.latent_scale, width // self.latent_scale)

    @property
    def multiple(self) -> int:
        """Sides in pixels are multiples of this: the U-Net halves the latents once for each level but the last."""
        return int(self.latent_scale * 2 ** (len(self.unet.config.block_out_channels) - 1))

    def release(self, *parts: str) -> None:
        """Let go of `vae` or `text_encoder` for good, to free their memory; whoever asks for them later finds None."""
        for part in parts:
            setattr(self, part, None)

    def check_size(self, *sides: int) -> int:
        """The first of these sides in pixels, if the U-Net can draw all of them.

        Raises:
            InputError: `bad_size`.
        """
        multiple = self.multiple
        for side in sides:
            if side % multiple or not multiple <= side <= LARGEST_SIDE:
                raise InputError("bad_size", multiple=multiple, low=multiple, high=LARGEST_SIDE, value=side)
        return sides[0]


def plain_parameters(unet: UNet2DConditionModel) -> Iterator[tuple[str, Tensor]]:
    """The U-Net's own parameters under their plain names, whether or not LoRAs are attached."""
    for name, parameter in unet.named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter.detach()
