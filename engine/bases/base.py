"""The resident base model: loaded once, shared by training and drawing."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.bases.families import Conditioning, Family, family_of
from engine.bases.interfaces import Autoencoder, Denoiser, Pipeline, TextEncoder, Tokenizer
from engine.bases.opening import EMBEDDED, WeightReader, open_pipeline, stored_weights
from engine.bases.prompts import Prompt
from engine.bases.quantised import free_bytes, quantise, too_large
from engine.bases.schedule import NoiseSchedule
from engine.device import precision
from engine.device.fast import one_core, small
from engine.device.precision import best_device, resting_dtype
from storage.errors import UserError

LARGEST_SIDE = 1536
"""The longest side of a picture, in pixels."""

DtypeChoice = Callable[["BaseModel"], torch.dtype | None]
"""Chooses the denoiser's dtype in memory for a base; None for the device's usual one."""


def drawing_dtype(base: "BaseModel") -> torch.dtype:
    """The denoiser's dtype in memory for drawing: the one that autocast would cast its weights to at every step.

    Each drawing with a small denoiser copies its weights (`engine.device.packed`), with adapters added to them
    (`engine.adapters.applied`). The copies are exact if they are rounded only once, so it stays float32.
    """
    return torch.float32 if small(base) else precision.compute_dtype(base.device)


FINGERPRINT_SAMPLES = 256
"""Values sampled of each weight for the fingerprint: training a model changes nearly all of them."""

PROMPT_BATCH = 32
"""Prompts of a set that are encoded at once."""


class BaseModel:
    """The parts of one text-to-image model of any family, on one device.

    On CUDA the denoiser and the text encoders have the compute dtype. On the CPU they are float32, unless
    `denoiser_dtype` chooses another for the denoiser, and compute in mixed precision. The VAE is always float32, since
    those of SD 1.x and SDXL overflow in float16.
    """

    def __init__(
        self, pipeline: Pipeline, source: str, device: torch.device, denoiser_dtype: DtypeChoice = lambda base: None
    ) -> None:
        self.source, self.device = source, device
        self.parts: Mapping[str, Any] = {**pipeline.config, **pipeline.components}
        denoiser = pipeline.components.get("unet") or pipeline.components.get("transformer")
        if denoiser is None:
            raise ValueError("it has neither U-Net nor transformer")
        self.unet: Denoiser = denoiser
        """The denoiser: a U-Net, or the transformer in its place."""
        self.family: Family = family_of(denoiser.config, pipeline.config)
        self.family.check_parts(self)
        usual_dtype = resting_dtype(device)
        self.size = sum(weight.numel() for weight in denoiser.parameters())
        """The number of the denoiser's parameters; counted once, since each training step asks."""
        large: list[nn.Module] = [self.unet, *self.text_encoders.values()]
        self.fingerprint = fingerprint_of(large)
        """Tells base models apart, independent of where they are stored and of their dtype here."""
        free = free_bytes(device)
        self.quantised = free is not None and too_large(large, usual_dtype, free)
        """Whether memory is so short that the linear layers are stored in eight bits."""
        if self.quantised:
            for module in large:
                quantise(module)
        # Move and cast in one call: a device may not hold float32 copies of all parts.
        _frozen(self.vae, device, torch.float32)
        self.cast_denoiser(denoiser_dtype(self) or usual_dtype)
        for encoder in self.text_encoders.values():
            _frozen(encoder, device, usual_dtype)
        self.schedule: NoiseSchedule = self.family.schedule(_config_of(self.parts["scheduler"]))
        self.vae_scale_factor = self.family.vae_scale_factor(self)
        """Pixels of a picture's side for each latent position."""
        self.multiple = self.family.multiple(self)
        """The sides of a picture in pixels are multiples of this."""
        self.side: int = self.family.side(self)
        """Pixels of the side of the pictures that this base was trained on."""
        self.learned_tokens: Sequence[Any] = ()
        """The learned tokens that apply to each row of prompts now (`engine.adapters.learned_token`)."""

    @classmethod
    def load(
        cls,
        source: str | None = None,
        device: torch.device | None = None,
        denoiser_dtype: DtypeChoice = lambda base: None,
    ) -> "BaseModel":
        """Load a diffusers folder, a hub id or a single .safetensors file; None or "embedded" is the embedded base.

        Args:
            denoiser_dtype: chooses the denoiser's dtype in memory.
        Raises:
            UserError: `base_unusable` if there is no such model or its family is not supported, or as `denoiser_dtype`.
        """
        source = source or EMBEDDED
        try:
            return cls(open_pipeline(source), source, device or best_device(), denoiser_dtype)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise UserError("base_unusable", base=source, reason=reason) from error

    def cast_denoiser(self, dtype: torch.dtype) -> None:
        """Cast the denoiser to `dtype` in place. Weights that have it already are not copied."""
        self.dtype = dtype
        _frozen(self.unet, self.device, dtype)

    def cast(self, dtype: torch.dtype) -> None:
        """Cast denoiser and text encoders to `dtype` in place."""
        self.cast_denoiser(dtype)
        for encoder in self.text_encoders.values():
            _frozen(encoder, self.device, dtype)

    def original_weights(self) -> WeightReader:
        """The denoiser's weights before any training, read again from the source, on the CPU."""
        return stored_weights(self.source, self.unet, self.family.denoiser)

    @property
    def vae(self) -> Autoencoder:
        """The autoencoder.

        Raises:
            KeyError: it was released.
        """
        vae: Autoencoder = self.parts["vae"]
        return vae

    @property
    def text_encoders(self) -> dict[str, TextEncoder]:
        """The text encoders that were not released, under diffusers' names."""
        return {name: self.parts[name] for name in self.family.text_encoders if name in self.parts}

    @property
    def text_encoder(self) -> TextEncoder:
        """The first of the text encoders."""
        return next(iter(self.text_encoders.values()))

    def tokenizer(self, text_encoder: str) -> Tokenizer:
        """The tokenizer of the text encoder of this name."""
        tokenizer: Tokenizer = self.parts[self.family.text_encoders[text_encoder]]
        return tokenizer

    @property
    def adaptable(self) -> dict[str, Denoiser | TextEncoder]:
        """The parts that adapters may change, under the names that prefix their keys in diffusers' files."""
        text_encoders = self.text_encoders if self.family.text_targets else {}
        return {self.family.denoiser: self.unet, **text_encoders}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """The prompt embeddings of the prompts, as they are; brackets do not weigh. What `unread` names is left out."""
        return self.family.encode(self, [Prompt.literal(prompt) for prompt in prompts])

    @torch.no_grad()
    def encode_weighted(self, prompts: Sequence[str]) -> Conditioning:
        """As `encode_prompts`, with the weights that `Prompt.parse` reads in brackets."""
        return self.family.encode(self, [Prompt.parse(prompt) for prompt in prompts])

    def encode_set(self, prompts: Sequence[str]) -> Conditioning:
        """As `encode_prompts`, for thousands of prompts: `PROMPT_BATCH` at a time, which bounds memory."""
        starts = range(0, len(prompts), PROMPT_BATCH)
        return Conditioning.join([self.encode_prompts(prompts[start : start + PROMPT_BATCH]) for start in starts])

    def embed_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """As `encode_prompts`, with gradients to the text encoders' adapters."""
        return self.family.encode(self, [Prompt.literal(prompt) for prompt in prompts])

    @torch.no_grad()
    def encode_negatives(self, prompts: Sequence[str]) -> Conditioning:
        """As `encode_weighted`, for the negative prompts of guidance: some families take zeros for the empty prompt."""
        return self.family.encode_negative(self, [Prompt.parse(prompt) for prompt in prompts])

    def predict(self, denoiser: Denoiser, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction, float32 (n, c, h, w), for latents (n, c, h, w) at timesteps (n,)."""
        dtype = self.dtype if denoiser is self.unet else self.dtype_of(denoiser)
        aligned = conditioning.aligned().to(dtype)
        return self.family.predict(self, denoiser, noisy.to(dtype), timestep, aligned).float()

    @staticmethod
    def dtype_of(module: nn.Module) -> torch.dtype:
        """The dtype of this part's own weights, and so of its inputs."""
        return next(tensor.dtype for name, tensor in module.named_parameters() if "lora_" not in name)

    def unread(self, prompt: str) -> str:
        """The end of a prompt with weights that this base does not read, or "" if it reads all of it."""
        return self.family.unread(self, Prompt.parse(prompt))

    def unread_caption(self, caption: str) -> str:
        """As `unread`, for a text whose brackets are text."""
        return self.family.unread(self, Prompt.literal(caption))

    def weights_ignored(self, prompt: str) -> bool:
        """Whether the prompt has weights, and this base has none."""
        return not self.family.weighs and Prompt.parse(prompt).weighted

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (n, c, h, w), scaled for the denoiser."""
        arrays = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 127.5 - 1
        rows = torch.from_numpy(arrays).permute(0, 3, 1, 2).to(self.device)
        posteriors = [self.vae.encode(row[None]).latent_dist for row in rows]
        return self.family.to_latents(
            self.vae,
            torch.cat([posterior.mean for posterior in posteriors]),
            torch.cat([posterior.std for posterior in posteriors]),
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The pictures of latents (n, c, h, w), decoded one at a time, which bounds memory."""
        pictures = []
        for latent in latents.float():
            decoded = self.vae.decode(self.family.from_latents(self.vae, latent[None])).sample[0]
            with one_core(self):  # two cores would wait for each other far longer than the rounding takes
                array = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            pictures.append(Image.fromarray(array))
        return pictures

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a picture of `width` x `height` pixels."""
        return (self.family.latent_channels(self), height // self.vae_scale_factor, width // self.vae_scale_factor)

    def release(self, *parts: str) -> None:
        """Drop the VAE or text encoders for good, to free their memory."""
        self.parts = {name: part for name, part in self.parts.items() if name not in parts}

    @property
    def sizes(self) -> Sequence[tuple[int, int]] | None:
        """The sizes in pixels, width and height, that this base can draw; None for any that `check_size` allows."""
        if self.family.shapes is None:
            return None
        return [(self.side * w // min(w, h), self.side * h // min(w, h)) for w, h in self.family.shapes]

    @property
    def usual_sizes(self) -> Sequence[tuple[int, int]]:
        """The sizes to offer to people, the base's own first: those of `sizes`, or its square and a portrait and a
        landscape of about as many pixels, as SDXL was trained (arXiv 2307.01952, section 2.3)."""
        if self.sizes is not None:
            return self.sizes
        long, short = (self.multiple * round(self.side * part / self.multiple) for part in (1.5**0.5, 1.5**-0.5))
        return [(self.side, self.side), (short, long), (long, short)]

    def drawable_size(self, width: int, height: int) -> tuple[int, int]:
        """This size, or where the base can draw only some sizes, the one of the most similar shape.

        Raises:
            UserError: `bad_size` for a size that it refuses.
        """
        if self.sizes is None or min(width, height) < 1:
            self.check_size(width, height)
            return width, height
        return min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1] * height / width)))

    def check_size(self, *sides: int) -> int:
        """The first of these sides in pixels, if the base can draw all of them.

        Raises:
            UserError: `bad_size`.
        """
        for side in sides:
            if side % self.multiple or not self.multiple <= side <= LARGEST_SIDE:
                raise UserError("bad_size", multiple=self.multiple, low=self.multiple, high=LARGEST_SIDE, value=side)
        return sides[0]


def _config_of(scheduler: Any) -> dict[str, Any]:
    """The scheduler's configuration, with the name of its class, which diffusers leaves out of some."""
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


def _frozen(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    # By torch's own method: diffusers' warns of every cast, whether or not some layers must stay float32.
    nn.Module.to(module, device, dtype).eval().requires_grad_(False)


def fingerprint_of(parts: Sequence[nn.Module]) -> str:
    """Sixteen hexadecimal digits: a hash of the shapes of all weights, in their order, and of a sample of their values.

    Names are left out, since libraries change them. Take it before weights are cast or quantised.
    """
    digest = hashlib.sha256()
    for part in parts:
        for parameter in part.parameters():
            flat = parameter.detach().flatten()
            digest.update(str(tuple(parameter.shape)).encode())
            digest.update(flat[:: max(1, len(flat) // FINGERPRINT_SAMPLES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def plain_parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The module's own parameters, without those of LoRAs, under the names that they have without LoRAs."""
    for name, parameter in module.named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter.detach()
