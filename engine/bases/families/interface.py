"""What differs between families of base models. Everything else in the engine is the same for all."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from engine.bases.schedule import NoiseSchedule
from engine.recipe import Method, Recipe


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser hears of n prompts."""

    states: Tensor
    """(n, tokens, width)."""
    pooled: Tensor | None = None
    """(n, width of the whole prompt's vector), in families that have one."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Any) -> "Conditioning":
        return self._each(lambda tensor: tensor[rows])

    @property
    def device(self) -> torch.device:
        return self.states.device

    def to(self, target: torch.dtype | torch.device) -> "Conditioning":
        """The same in another dtype or on another device."""
        return self._each(lambda tensor: tensor.to(target))

    def repeat(self, counts: Sequence[int]) -> "Conditioning":
        """Each prompt as many times in a row as its number in `counts` says."""
        rows = torch.repeat_interleave(torch.arange(len(self)), torch.tensor(list(counts)))
        return self[rows.to(self.device)]

    def zeros(self) -> "Conditioning":
        """Silence of the same shape."""
        return self._each(torch.zeros_like)

    def _each(self, change: Any) -> "Conditioning":
        return replace(self, states=change(self.states), pooled=None if self.pooled is None else change(self.pooled))

    @staticmethod
    def join(parts: Sequence["Conditioning"]) -> "Conditioning":
        """All prompts of the parts, in order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)


class Parts(Protocol):
    """What a family's code works on: a loaded base model."""

    parts: Mapping[str, Any]
    """The pipeline's components under diffusers' names."""
    latent_scale: int
    """Pixels of a picture's side to one place of the latents."""
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Family(ABC):
    """One kind of base model and what it wants."""

    name: str
    guidance: float
    """Default classifier-free guidance scale."""
    draw_steps: int
    """Default number of denoising steps."""
    adapter_targets: tuple[str, ...]
    """Ends of the names of the denoiser's modules that a LoRA adapter is put on."""
    recipes: Mapping[Method, tuple[int, Recipe]]
    """Steps for each photo and the other values, by method."""
    instance_prompts: tuple[str, ...] = ("a photo of {instance}",)
    """What the album's pictures are learned under; `{instance}` is token and class noun."""
    prior_prompts: tuple[str, ...] = ("a photo of {noun}",)
    """What class pictures are drawn with; `{noun}` is the class noun."""
    few: Path | None = None
    """The few-step adapter that comes with the base model (`engine.learning.distillation`)."""
    cartoon: bool = False
    """Whether it only draws cartoons, which people must be told."""

    denoiser: ClassVar[str] = "unet"
    """Name of the part that is asked at every step, and so the prefix of its adapters' keys."""
    text_encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    """The text encoders and their tokenizers."""
    text_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    """The text encoder's layers that a LoRA is put on, as in diffusers' train_dreambooth_lora.py; empty where plain
    diffusers would not load one."""

    @abstractmethod
    def schedule(self, config: Mapping[str, Any]) -> NoiseSchedule:
        """The noise schedule of a scheduler's configuration."""

    @abstractmethod
    def encode(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        """What the denoiser hears of the prompts, with gradients; what does not fit is cut off, as the models do."""

    def negative(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        """As `encode`, for what guidance leads away from; most often that is nothing, the empty prompt."""
        return self.encode(base, prompts)

    @abstractmethod
    def predict(self, base: Parts, denoiser: Any, noisy: Tensor, timestep: Tensor, words: Conditioning) -> Tensor:
        """The denoiser's answer (n, c, h, w) to latents (n, c, h, w) in its dtype at timesteps (n,)."""

    @abstractmethod
    def room(self, base: Parts, prompt: str) -> bool:
        """Whether the whole prompt is within the text encoder's length."""

    def to_latents(self, vae: Any, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """The VAE's mean and standard deviation, scaled and arranged as the denoiser wants them (n, c, h, w)."""
        factor = vae.config.scaling_factor
        return mean * factor, deviation * factor

    def from_latents(self, vae: Any, latents: Tensor) -> Tensor:
        """What the VAE decodes, of the denoiser's latents (n, c, h, w)."""
        return latents / vae.config.scaling_factor  # type: ignore[no-any-return]

    @abstractmethod
    def side(self, base: Parts) -> int:
        """Pixels of the side of the pictures that the base was trained on."""

    @abstractmethod
    def latent_channels(self, base: Parts) -> int:
        """Channels of the denoiser's latents."""

    @abstractmethod
    def pixels_per_latent(self, base: Parts) -> int:
        """Pixels of a picture's side to one place of the latents."""

    @abstractmethod
    def multiple(self, base: Parts) -> int:
        """What a picture's sides in pixels must be multiples of."""

    def captions(self, picture: Image.Image, instance: str) -> Sequence[str]:
        """What a drawing may be learned under beside `instance_prompts`: wordings that tell what is to be seen in it
        besides `instance`. Empty where nobody can tell."""
        return ()

    def usable(self, base: Parts) -> None:
        """Raise ValueError where this one model lacks what the family needs."""
        for part in (self.denoiser, "vae", *self.text_encoders, *self.text_encoders.values()):
            if base.parts.get(part) is None:
                raise ValueError(f"it has no {part}")


def tokens_of(tokenizer: Any, prompts: Sequence[str], device: torch.device) -> Tensor:
    """Numbers of the prompts' tokens (n, tokens), padded to the encoder's length and cut off there."""
    numbers: Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    return numbers.to(device)


def has_room(tokenizer: Any, prompt: str) -> bool:
    """Whether the tokenizer's model reads the whole prompt."""
    return bool(len(tokenizer(prompt, verbose=False).input_ids) <= tokenizer.model_max_length)
