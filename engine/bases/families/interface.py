"""What differs between families of base models. The rest of the engine is the same for all of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from engine.bases.interfaces import Autoencoder, Denoiser, Parts
from engine.bases.prompts import MOST_WINDOWS, Prompt, read
from engine.bases.schedule import NoiseSchedule
from engine.recipe import ATTENTION, AlbumCrop, Method, Recipe
from engine.toon.lexicon import Lexicon
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
    tokens: tuple[int, ...] | None = None
    """How many of the tokens are each prompt's, where prompts have more or fewer windows; the rest are zeros. None
    where all are."""
    sizes: Tensor | None = None
    """(n, 4), float32: height and width of the original picture and its crop's top and left, in pixels, for families
    that are told (SDXL: arXiv 2307.01952, section 2.2). None: as large as the picture, and not cropped."""

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Any) -> "Conditioning":
        """The rows of a slice, a list of numbers or an index tensor."""
        sizes = None if self.sizes is None else self.sizes[rows]
        if self.tokens is None:
            return replace(self._each(lambda tensor: tensor[rows]), sizes=sizes)
        tokens = tuple(
            int(count)
            for count in torch.tensor(self.tokens)[torch.as_tensor(rows).cpu() if isinstance(rows, Tensor) else rows]
        )
        pooled = None if self.pooled_prompt_embeds is None else self.pooled_prompt_embeds[rows]
        return replace(_trimmed(self.prompt_embeds[rows], pooled, tokens), sizes=sizes)

    @property
    def device(self) -> torch.device:
        return self.prompt_embeds.device

    def to(self, target: torch.dtype | torch.device) -> "Conditioning":
        """The same in another dtype or on another device."""
        moved = self._each(lambda tensor: tensor.to(target))
        if self.sizes is None or isinstance(target, torch.dtype):
            return moved  # sizes stay float32: bfloat16 counts pixels above 256 in twos
        return replace(moved, sizes=self.sizes.to(target))

    def repeat(self, counts: Sequence[int]) -> "Conditioning":
        """Row n repeated counts[n] times in a row: `torch.repeat_interleave`."""
        rows = torch.repeat_interleave(torch.arange(len(self)), torch.tensor(list(counts)))
        return self[rows.to(self.device)]

    def zeros(self) -> "Conditioning":
        """Zeros of the same shape."""
        return self._each(torch.zeros_like)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        pooled = self.pooled_prompt_embeds
        return replace(
            self,
            prompt_embeds=change(self.prompt_embeds),
            pooled_prompt_embeds=None if pooled is None else change(pooled),
        )

    def aligned(self) -> "Conditioning":
        """The same with as many tokens for each prompt: windows are repeated up to the least common multiple.

        Attention to keys and values that are all repeated equally often is attention to them once, so each row is what
        it is alone; padding with zeros, or with empty windows, would change it.
        """
        if self.tokens is None:
            return self
        common = math.lcm(*self.tokens)
        rows = [row[:own].repeat(common // own, 1) for row, own in zip(self.prompt_embeds, self.tokens, strict=True)]
        return replace(self, prompt_embeds=torch.stack(rows), tokens=None)

    @staticmethod
    def join(batches: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of the batches, in order."""
        pooled = [batch.pooled_prompt_embeds for batch in batches if batch.pooled_prompt_embeds is not None]
        most = max(batch.prompt_embeds.shape[1] for batch in batches)
        embeds = [nn.functional.pad(one.prompt_embeds, (0, 0, 0, most - one.prompt_embeds.shape[1])) for one in batches]
        tokens = [count for one in batches for count in one.tokens or (one.prompt_embeds.shape[1],) * len(one)]
        joined = _trimmed(torch.cat(embeds), torch.cat(pooled) if pooled else None, tuple(tokens))
        sizes = [batch.sizes for batch in batches if batch.sizes is not None]
        return replace(joined, sizes=torch.cat(sizes) if len(sizes) == len(batches) else None)


def _trimmed(embeds: Tensor, pooled: Tensor | None, tokens: tuple[int, ...]) -> Conditioning:
    """The rows without the zeros that all of them have at the end."""
    most = max(tokens, default=embeds.shape[1])
    return Conditioning(embeds[:, :most], pooled, tokens if any(count != most for count in tokens) else None)


@dataclass(frozen=True)
class Encoded:
    """n windows through one text encoder."""

    hidden_states: Tensor
    """(n, tokens, width)."""
    pooled: Tensor | None = None
    """(n, width)."""


def encode_windows(
    base: Parts,
    prompts: Sequence[Prompt],
    encode: Callable[[str, Tensor], Encoded],
    most: int,
) -> Conditioning:
    """Prompt embeddings of the prompts by CLIP's text encoders: the hidden states of all windows one after another, and
    the pooled embedding of the first.

    Each call of a text encoder has one row for each prompt, in their order, since rows have adapters of their own.

    Args:
        encode: the text encoder of this name for ids (n, tokens).
        most: windows that are read.
    """
    readings = [[read(base.tokenizer(name), prompt, most).windows for prompt in prompts] for name in base.text_encoders]
    counts = [max(len(windows) for windows in several) for several in zip(*readings, strict=True)]
    states, pooled = list[Tensor](), None
    for number in range(max(counts)):
        parts = list[Tensor]()
        for name, rows in zip(base.text_encoders, readings, strict=True):
            # A prompt that has ended is read from its first window again: the call needs a row for it.
            windows = [row[number] if number < len(row) else row[0] for row in rows]
            ids = torch.tensor([window.ids for window in windows], device=base.device)
            encoded = encode(name, ids)
            parts.append(_weighed(encoded.hidden_states, [window.weights for window in windows]).to(base.dtype))
        states.append(torch.cat(parts, dim=-1))
        if number == 0 and encoded.pooled is not None:
            pooled = encoded.pooled.to(base.dtype)
    tokens = tuple(count * states[0].shape[1] for count in counts)
    embeds = torch.cat(states, dim=1)
    if len(states) > 1:
        ended = (
            torch.arange(embeds.shape[1], device=embeds.device) >= torch.tensor(tokens, device=embeds.device)[:, None]
        )
        embeds = embeds.masked_fill(ended[..., None], 0)
    return _trimmed(embeds, pooled, tokens)


MEAN_SHARE = 1e-3
"""Least share of a hidden state's mean in its size for which `_weighed` restores the mean. Below it the mean is only
rounding, as after a layer norm without bias."""


def _weighed(states: Tensor, weights: Sequence[Sequence[float]]) -> Tensor:
    """Hidden states (n, tokens, width) times the weights of their tokens, and then scaled so that each row's mean is as
    before: the WebUI's `EmphasisOriginal` (modules/sd_emphasis.py)."""
    if all(weight == 1 for row in weights for weight in row):
        return states
    factors = torch.tensor(weights, device=states.device, dtype=states.dtype)  # (n, tokens)
    weighed = states * factors[..., None]
    before, after = (tensor.float().mean(dim=(1, 2), keepdim=True) for tensor in (states, weighed))
    size = states.float().square().mean(dim=(1, 2), keepdim=True).sqrt()
    known = (
        (before.abs() > MEAN_SHARE * size)
        & (after.abs() > MEAN_SHARE * size)
        & (factors != 1).any(dim=1)[:, None, None]
    )
    return weighed * torch.where(known, before / torch.where(known, after, 1), 1).to(weighed.dtype)


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
    shapes: tuple[tuple[int, int], ...] | None = None
    """The shapes of pictures that the base can draw, as width to height, such as (2, 3), with its side as the shorter
    one; None for any size that `multiple` allows."""
    drawings: int = 0
    """How many drawings `draw_person` makes of a person in photos, which are learned in the photos' place; 0 if photos
    are learned as they are."""
    sample_captions: bool = False
    """Whether the engine can caption and draw this family's training world (`engine.toon.samples`), to distil from."""
    notice: Notice | None = None
    """The notice that users get with its pictures."""

    most_windows: int = MOST_WINDOWS
    """Windows of a prompt that are read, where it is read in windows."""

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

    weighs: ClassVar[bool] = True
    """Whether phrases of a prompt can have weights."""

    @abstractmethod
    def encode(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        """Prompt embeddings of the prompts, with gradients. What `unread` names is left out."""

    def encode_negative(self, base: Parts, prompts: Sequence[Prompt]) -> Conditioning:
        """As `encode`, for the negative prompts of classifier-free guidance, which are mostly empty."""
        return self.encode(base, prompts)

    @abstractmethod
    def predict(
        self, base: Parts, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The denoiser's prediction (n, c, h, w) for latents (n, c, h, w) in its dtype at timesteps (n,)."""

    @abstractmethod
    def unread(self, base: Parts, prompt: Prompt) -> str:
        """The end of the prompt that the text encoder does not read, or "" if it reads all of it."""

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

    def lexicon(self) -> Lexicon | None:
        """The words that the base knows; None where any word may be tried."""
        return None

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
