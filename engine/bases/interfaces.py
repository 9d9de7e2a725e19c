"""What the engine asks of a base model's parts, whichever library they come from.

Embedded parts (`engine.bases.embedded`) extend these classes. Those of diffusers and transformers have the same methods
under the same names, and `engine.bases.opening` hands them out under these types. `torch.nn.Module` is a class, which a
protocol cannot extend: what is a module is therefore declared as a class here, and the rest as protocols.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Config = Any
"""A part's configuration: a dataclass of `engine.bases.embedded`, diffusers' FrozenDict or transformers' configuration.
All have their values as attributes."""


class Sample(Protocol):
    """What a denoiser or a VAE's decoder returns."""

    @property
    def sample(self) -> Tensor:
        """A denoiser's prediction, or decoded pictures."""


class Denoiser(nn.Module):
    """A U-Net, or the transformer in its place. Families call it with different arguments (`Family.predict`)."""

    config: Config
    __call__: Callable[..., Sample]

    def enable_gradient_checkpointing(self) -> None:
        """Compute inner states again in the backward pass instead of keeping them (arXiv 1604.06174)."""
        raise NotImplementedError

    def disable_gradient_checkpointing(self) -> None:
        """Keep inner states for the backward pass."""
        raise NotImplementedError


class LatentDistribution(Protocol):
    """A VAE's Gaussian over latents, each (n, c, h / 8, w / 8)."""

    @property
    def mean(self) -> Tensor:
        """Means."""

    @property
    def std(self) -> Tensor:
        """Standard deviations."""


class EncoderOutput(Protocol):
    """What a VAE's encoder returns."""

    @property
    def latent_dist(self) -> LatentDistribution:
        """The distribution of the latents."""


class Autoencoder(nn.Module):
    """The VAE: from pictures to latents and back."""

    config: Config

    def encode(self, pictures: Tensor) -> EncoderOutput:
        """The distribution of the latents of pictures (n, 3, h, w) in [-1, 1]."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Sample:
        """Pictures (n, 3, h, w), about in [-1, 1], of latents."""
        raise NotImplementedError


class TextEncoderOutput(Protocol):
    """What every text encoder returns; families that read more of it say so."""

    @property
    def last_hidden_state(self) -> Tensor:
        """(n, tokens, width)."""


class TextEncoder(nn.Module):
    """Turns token ids (n, tokens) into prompt embeddings."""

    config: Config
    __call__: Callable[..., TextEncoderOutput]

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding table."""
        raise NotImplementedError


class Tokenizer(Protocol):
    """Turns prompts into token ids, called as transformers' tokenizers are."""

    model_max_length: int

    def __hash__(self) -> int:
        """Tokenizers are keys: the ids of prompts are kept (`engine.bases.prompts.read`)."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The pieces of these ids. In CLIP's tokenizers the last one of a word ends in "</w>"."""

    def __call__(self, prompts: Any, **options: Any) -> Any:
        """Its `input_ids` are a list of one prompt's ids, or a tensor (n, tokens)."""


class Pipeline(Protocol):
    """An opened base model, as diffusers' pipelines have it."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The values of model_index.json, without the configurations of the components."""

    @property
    def components(self) -> Mapping[str, Any]:
        """The parts under diffusers' names."""


class Parts(Protocol):
    """What the code of a family reads of a loaded base model (`engine.bases.base.BaseModel`)."""

    parts: Mapping[str, Any]
    """The pipeline's configuration and components under diffusers' names."""
    vae_scale_factor: int
    """Pixels of a picture's side for each latent position."""
    device: torch.device
    dtype: torch.dtype
    """The denoiser's dtype."""

    @property
    def unet(self) -> Denoiser:
        """The denoiser."""

    @property
    def vae(self) -> Autoencoder:
        """The autoencoder."""

    @property
    def text_encoders(self) -> Mapping[str, TextEncoder]:
        """The text encoders under diffusers' names."""

    def tokenizer(self, text_encoder: str) -> Tokenizer:
        """The tokenizer of the text encoder of this name."""
