"""What differs between families of base models. The rest of the engine is the same for all of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from engine.bases.interfaces import Autoencoder, Denoiser, Parts, Tokenizer
from engine.bases.schedule import NoiseSchedule
from engine.recipe import ATTENTION, AlbumCrop, Method, Recipe
from storage.looks import Looks

LikenessMeasure = Literal["face", "judge"]
"""How pictures are compared with an album: by face descriptors, or by the judge of the drawn world."""

Notice = Literal["cartoon"]
"""The code of a notice about a base's pictures. The chats and the command line have its text."""


@dataclass(frozen=True)
class Conditioning:
    """The prompt embeddings of n prompts, as the denoiser takes them."""

    prompt_embeds: Tensor
    """(n, tokens, width)."""
    pooled_prompt_embeds: Tensor | None = None
    """(n, width): the pooled embedding of each prompt, in families that have one."""

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Any) -> "Conditioning":
        """The rows of a slice, a list of numbers or an index tensor."""
        return self._each(lambda tensor: tensor[rows])

    @property
    def device(self) -> torch.device:
        return self.prompt_embeds.device

    def to(self, target: torch.dtype | torch.device) -> "Conditioning":
        """The same in another dtype or on another device."""
        return self._each(lambda tensor: tensor.to(target))

    def repeat(self, counts: Sequence[int]) -> "Conditioning":
        """Row n repeated counts[n] times in a row: `torch.repeat_interleave`."""
        rows = torch.repeat_interleave(torch.arange(len(self)), torch.tensor(list(counts)))
        return self[rows.to(self.device)]

    def zeros(self) -> "Conditioning":
        """Zeros of the same shape."""
        return self._each(torch.zeros_like)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        pooled = self.pooled_prompt_embeds
        return Conditioning(change(self.prompt_embeds), None if pooled is None else change(pooled))

    @staticmethod
    def join(batches: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of the batches, in order."""
        pooled = [batch.pooled_prompt_embeds for batch in batches if batch.pooled_prompt_embeds is not None]
        return Conditioning(
            torch.cat([batch.prompt_embeds for batch in batches]), torch.cat(pooled) if pooled else None
        )


@dataclass(frozen=True)
class Family(ABC):
    """One family of base models: its defaults, and how its parts are called."""

    name: str
    guidance: float
    """Default classifier-free guidance scale."""
    draw_steps: int
    """Default number of denoising steps."""
    adapter_targets: tuple[str, ...]
    """A LoRA adapts the denoiser's modules whose names end in one of these."""
    recipes: Mapping[Method, tuple[int, Recipe]]
    """By method: steps for each photo, and the recipe's other values."""
    style_targets: tuple[str, ...] | None = ATTENTION
    """As `adapter_targets`, for a style's LoRA; None for `adapter_targets`."""
    instance_prompts: tuple[str, ...] = ("a photo of {instance}",)
    """Prompts of the album's pictures in training; `{instance}` is token and class noun."""
    prior_prompts: tuple[str, ...] = ("a photo of {noun}",)
    """Prompts that class pictures are drawn with; `{noun}` is the class noun."""
    few_step_adapter: Path | None = None
    """The few-step adapter that comes with the base model (`engine.learning.distillation`)."""
    album_crop: AlbumCrop = "none"
    """How an album is prepared."""
    captions_drawings: bool = False
    """Whether `captions` describes pictures that are drawings."""
    likeness: LikenessMeasure = "face"
    """How likeness is measured."""
    prompt_score: bool = False
    """Whether the engine's own CLIP knows what this family draws, and so can score how pictures follow prompts."""
    nouns: frozenset[str] | None = None
    """The class nouns that the base can draw; None for any."""
    drawings: int = 0
    """How many drawings `draw_person` makes of a person in photos, which are learned in the photos' place; 0 if photos
    are learned as they are."""
    sample_captions: bool = False
    """Whether the engine can caption and draw this family's training world (`engine.toon.samples`), to distil from."""
    notice: Notice | None = None
    """The notice that users get with its pictures."""

    denoiser: ClassVar[str] = "unet"
    """The denoiser's name among the pipeline's components, and the prefix of its adapters' keys."""
    text_encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    """Names of the text encoders, each with its tokenizer's."""
    text_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    """As `adapter_targets`, for the text encoders: those of diffusers' train_dreambooth_lora.py. Empty where plain
    diffusers would not load such a LoRA."""

    @abstractmethod
    def schedule(self, config: Mapping[str, Any]) -> NoiseSchedule:
        """The noise schedule for the configuration of a scheduler."""

    @abstractmethod
    def encode(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        """Prompt embeddings of the prompts, with gradients. A prompt that is too long is cut off."""

    def encode_negative(self, base: Parts, prompts: Sequence[str]) -> Conditioning:
        """As `encode`, for the negative prompts of classifier-free guidance, which are mostly empty."""
        return self.encode(base, prompts)

    @abstractmethod
    def predict(
        self, base: Parts, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The denoiser's prediction (n, c, h, w) for latents (n, c, h, w) in its dtype at timesteps (n,)."""

    @abstractmethod
    def fits_prompt(self, base: Parts, prompt: str) -> bool:
        """Whether the prompt fits the text encoder, which cuts off longer ones."""

    def to_latents(self, vae: Autoencoder, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE, each scaled and arranged for the denoiser (n, c, h, w)."""
        factor = vae.config.scaling_factor
        return mean * factor, std * factor

    def from_latents(self, vae: Autoencoder, latents: Tensor) -> Tensor:
        """The denoiser's latents (n, c, h, w), scaled and arranged for the VAE's decoder."""
        factor: float = vae.config.scaling_factor
        return latents / factor

    @abstractmethod
    def side(self, base: Parts) -> int:
        """Pixels of the side of the pictures that the base was trained on."""

    @abstractmethod
    def latent_channels(self, base: Parts) -> int:
        """Channels of the denoiser's latents."""

    @abstractmethod
    def vae_scale_factor(self, base: Parts) -> int:
        """Pixels of a picture's side for each latent position."""

    @abstractmethod
    def multiple(self, base: Parts) -> int:
        """The sides of a picture in pixels must be multiples of this."""

    def captions(self, picture: Image.Image, instance: str) -> Sequence[str]:
        """Captions of a drawing for training, in addition to `instance_prompts`: `instance` and what else the picture
        shows. Empty if `captions_drawings` is false, or the picture cannot be described."""
        return ()

    def draw_person(
        self, looks: Looks, noun: str, instance: str, seed: int
    ) -> tuple[list[Image.Image], list[Sequence[str]]]:
        """`drawings` pictures of a person who looks like this, and training captions of each.

        Args:
            noun: the class noun.
            instance: token and class noun, which the captions begin with.
            seed: of everything that is not the person: clothes, backgrounds, expressions.
        """
        return [], []

    def check_parts(self, base: Parts) -> None:
        """Check that this one model has the parts that the family needs.

        Raises:
            ValueError: a part is missing, or of a kind that is not supported.
        """
        for part in (self.denoiser, "vae", *self.text_encoders, *self.text_encoders.values()):
            if base.parts.get(part) is None:
                raise ValueError(f"it has no {part}")


def token_ids(tokenizer: Tokenizer, prompts: Sequence[str], device: torch.device) -> Tensor:
    """Token ids of the prompts (n, tokens), padded to the text encoder's length and cut off there.

    The last prompts' are kept: nearly every drawing has the same empty negative prompt. Do not change the tensor.
    """
    return _token_ids(tokenizer, tuple(prompts)).to(device)


@lru_cache(maxsize=64)
def _token_ids(tokenizer: Tokenizer, prompts: tuple[str, ...]) -> Tensor:
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    ids: Tensor = tokens.input_ids
    return ids


def fits_tokenizer(tokenizer: Tokenizer, prompt: str) -> bool:
    """Whether the prompt has at most as many tokens as the text encoder takes."""
    return len(tokenizer(prompt, verbose=False).input_ids) <= tokenizer.model_max_length
