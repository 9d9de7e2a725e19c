"""The embedded base model in plain torch: text encoder, U-Net, VAE and tokenizer.

They compute what transformers' CLIPTextModel and CLIPTokenizer and diffusers' UNet2DConditionModel and AutoencoderKL
compute from the same files. The names of their weights are the same, so adapters work with either. Importing those two
libraries takes 2.7 s and 150 MiB, as much memory as learning a person here needs besides torch (220 MiB). Large models
are opened with the libraries, where that cost does not count (`engine.bases.loading`).

In the shapes below, B is the batch, T the tokens of a prompt, C the channels, and H and W the height and width of the
latents or pictures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.bases import interfaces
from engine.tensor_files import read_tensor
from engine.toon import WEIGHTS

DIFFUSION_WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Diffusers' name for a file of weights."""

TEXT_WEIGHTS = "model.safetensors"
"""Transformers' name for a file of weights."""


# Configurations: of each config.json the fields that decide something here, under the libraries' names


@dataclass(frozen=True)
class TextEncoderConfig:
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float


@dataclass(frozen=True)
class UNetConfig:
    sample_size: int
    """Height and width of the latents that the base was trained on."""
    in_channels: int
    out_channels: int
    block_out_channels: Sequence[int]
    """Channels at each resolution, from the finest to the coarsest."""
    down_block_types: Sequence[str]
    mid_block_type: str
    up_block_types: Sequence[str]
    """Blocks whose type contains "CrossAttn" attend to the prompt."""
    layers_per_block: int
    cross_attention_dim: int
    """Width of the prompt embeddings."""
    attention_head_dim: int
    """The number of heads; diffusers keeps this misnomer for the sake of old files."""
    norm_num_groups: int
    norm_eps: float


@dataclass(frozen=True)
class AutoencoderConfig:
    in_channels: int
    out_channels: int
    block_out_channels: Sequence[int]
    """Channels at each resolution, from the finest to the coarsest."""
    latent_channels: int
    norm_num_groups: int
    scaling_factor: float
    """The denoiser's latents are the VAE's, times this factor."""


Config = TypeVar("Config", TextEncoderConfig, UNetConfig, AutoencoderConfig)
Part = TypeVar("Part", bound=nn.Module)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def _opened(part: type[Part], config: type[Config], folder: Path, weights: str) -> Part:
    """The part in `folder`, on the CPU, in the dtype that it is stored in."""
    values = _read(folder / "config.json")
    with torch.device("meta"):
        module = part(config(**{field.name: values[field.name] for field in fields(config)}))
    module.load_state_dict(load_file(folder / weights), assign=True)
    return module


class EmbeddedPipeline:
    """The embedded base model: its parts under diffusers' names."""

    def __init__(self) -> None:
        self.config: Mapping[str, Any] = _read(WEIGHTS / "model_index.json")
        self.components: Mapping[str, Any] = {
            "unet": _opened(UNet, UNetConfig, WEIGHTS / "unet", DIFFUSION_WEIGHTS),
            "vae": _opened(Autoencoder, AutoencoderConfig, WEIGHTS / "vae", DIFFUSION_WEIGHTS),
            "text_encoder": _opened(TextEncoder, TextEncoderConfig, WEIGHTS / "text_encoder", TEXT_WEIGHTS),
            "tokenizer": PromptTokenizer(WEIGHTS / "tokenizer"),
            "scheduler": SimpleNamespace(config=_read(WEIGHTS / "scheduler" / "scheduler_config.json")),
        }


def read_unet_weight(name: str) -> Tensor:
    """One of the U-Net's weights, in the half precision that it is stored in."""
    return read_tensor(WEIGHTS / "unet" / DIFFUSION_WEIGHTS, name)


# Tokenizer


@dataclass(frozen=True)
class Tokens:
    """What the tokenizer returns."""

    input_ids: list[int] | Tensor


class PromptTokenizer:
    """CLIP's tokenizer, as far as this engine calls it."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = _read(folder / "tokenizer_config.json")
        self.model_max_length = int(config["model_max_length"])
        self._end = self._tokenizer.encode(config["eos_token"], add_special_tokens=False).ids[0]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The pieces of these ids; the last one of a word ends in "</w>"."""
        return [self._tokenizer.id_to_token(number) or "" for number in ids]

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        padding: str | None = None,
        truncation: bool = False,
        max_length: int = 0,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> Tokens:
        """The token ids of one prompt as a list; of several prompts as int64 (B, max_length), padded and cut off.

        Every argument means what it means to transformers. Several prompts need "max_length" padding and truncation.
        """
        if isinstance(prompts, str):
            return Tokens(self._tokenizer.encode(prompts, add_special_tokens=add_special_tokens).ids)
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(prompts))]
        rows = [ids if len(ids) <= max_length else [*ids[: max_length - 1], self._end] for ids in rows]
        return Tokens(torch.tensor([ids + [self._end] * (max_length - len(ids)) for ids in rows]))


# Attention


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Multi-head attention (B, N, C) of queries (B, N, C) to keys and values (B, M, C) (arXiv 1706.03762, section 3.2).

    Args:
        causal: position n attends to the positions up to n only.
    """
    # (B, N or M, C) to (B, heads, N or M, C / heads)
    query, key, value = (states.unflatten(2, (heads, -1)).transpose(1, 2) for states in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return attended.transpose(1, 2).flatten(2)  # (B, N, C)


# Text encoder


@dataclass(frozen=True)
class TextEncoderOutput:
    last_hidden_state: Tensor
    """(B, T, hidden_size)."""


class TextEncoder(interfaces.TextEncoder):
    """CLIP's text tower (arXiv 2103.00020): prompt embeddings for the U-Net."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.token_embedding

    def forward(self, input_ids: Tensor) -> TextEncoderOutput:
        """The prompt embeddings of token ids (B, T)."""
        hidden_states = self.encoder(self.embeddings(input_ids))  # (B, T, hidden_size)
        return TextEncoderOutput(self.final_layer_norm(hidden_states))


class CLIPTextEmbeddings(nn.Module):
    """Token embeddings plus learned position embeddings."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.token_embedding = _embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = _embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        token_embeds: Tensor = self.token_embedding(input_ids)  # (B, T, hidden_size)
        position_embeds: Tensor = self.position_embedding(positions)  # (T, hidden_size)
        return token_embeds + position_embeds


def _embedding(count: int, width: int) -> nn.Embedding:
    # nn.Embedding(count, width) fills the table with noise, for which torch imports its compiler: a second and 70 MiB.
    table: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(count, width), freeze=False)
    return table


class CLIPEncoder(nn.Module):
    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden_states: Tensor) -> Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class CLIPEncoderLayer(nn.Module):
    """A transformer block that normalises before attention and before the MLP."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config.hidden_size, config.intermediate_size)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))  # (B, T, C)
        hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return hidden_states


class CLIPAttention(nn.Module):
    """Causal self-attention: each token attends to itself and to those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        hidden_states = self.out_proj(attention(query, key, value, self.heads, causal=True))
        return hidden_states


class CLIPMLP(nn.Module):
    """Two linear layers with CLIP's approximation of GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.fc1(hidden_states)
        hidden_states = self.fc2(hidden_states * torch.sigmoid(1.702 * hidden_states))
        return hidden_states


# Blocks of U-Net and VAE


class ResnetBlock(nn.Module):
    """Two convolutions with a shortcut past them (arXiv 1512.03385). The U-Net's take the time embedding too."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, eps: float, temb_channels: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if temb_channels:
            self.time_emb_proj = nn.Linear(temb_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None) -> Tensor:
        """(B, out_channels, H, W) of hidden states (B, in_channels, H, W) and an activated time embedding (B, C)."""
        residual = hidden_states
        hidden_states = self.conv1(F.silu(self.norm1(hidden_states)))  # (B, out_channels, H, W)
        if temb is not None:
            hidden_states = hidden_states + self.time_emb_proj(temb)[:, :, None, None]
        hidden_states = self.conv2(F.silu(self.norm2(hidden_states)))
        if self.conv_shortcut is not None:
            residual = self.conv_shortcut(residual)
        return residual + hidden_states


class Downsample(nn.Module):
    """Halves height and width by a convolution of stride 2."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, hidden_states: Tensor) -> Tensor:
        if not self.conv.padding[0]:
            # The VAE pads at the right and at the bottom only.
            hidden_states = F.pad(hidden_states, (0, 1, 0, 1))
        hidden_states = self.conv(hidden_states)  # (B, C, H / 2, W / 2)
        return hidden_states


class Upsample(nn.Module):
    """Doubles height and width by nearest-neighbour interpolation, before a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.conv(F.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))  # (B, C, 2 H, 2 W)
        return hidden_states


# The U-Net's attention to latent positions and to the prompt


class Attention(nn.Module):
    """Attention to `context`: to the latents themselves, or to the prompt embeddings (cross-attention)."""

    def __init__(self, width: int, cross_attention_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(cross_attention_dim, width, bias=False)
        self.to_v = nn.Linear(cross_attention_dim, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, hidden_states: Tensor, context: Tensor) -> Tensor:
        query, key, value = self.to_q(hidden_states), self.to_k(context), self.to_v(context)
        hidden_states = self.to_out[0](attention(query, key, value, self.heads))  # (B, H W, C)
        return hidden_states


class GEGLU(nn.Module):
    """A linear layer gated by GELU (arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return hidden_states * F.gelu(gate)  # (B, H W, inner)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # Diffusers has a dropout layer in the middle, which has no weights.
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.net[2](self.net[0](hidden_states))
        return hidden_states


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward; each normalises first and is added to its input."""

    def __init__(self, width: int, cross_attention_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, cross_attention_dim, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, hidden_states: Tensor, prompt_embeds: Tensor) -> Tensor:
        normalised = self.norm1(hidden_states)
        hidden_states = self.attn1(normalised, normalised) + hidden_states  # (B, H W, C)
        hidden_states = self.attn2(self.norm2(hidden_states), prompt_embeds) + hidden_states
        hidden_states = self.ff(self.norm3(hidden_states)) + hidden_states
        return hidden_states


class SpatialTransformer(nn.Module):
    """A transformer block over latent positions: diffusers' Transformer2DModel."""

    def __init__(self, width: int, cross_attention_dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(width, cross_attention_dim, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, hidden_states: Tensor, prompt_embeds: Tensor) -> Tensor:
        """(B, C, H, W) of hidden states of this shape and prompt embeddings (B, T, cross_attention_dim)."""
        residual = hidden_states
        hidden_states = self.proj_in(self.norm(hidden_states))  # (B, C, H, W)
        shape = hidden_states.shape
        hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (B, H W, C)
        hidden_states = self.transformer_blocks[0](hidden_states, prompt_embeds)
        hidden_states = hidden_states.transpose(1, 2).reshape(shape)  # (B, C, H, W)
        hidden_states = self.proj_out(hidden_states)
        return hidden_states + residual


class TimestepEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep (arXiv 1706.03762, section 3.5), through two linear layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.frequencies = channels // 2
        self.linear_1, self.linear_2 = nn.Linear(channels, width), nn.Linear(width, width)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, width) of timesteps (B,)."""
        powers = torch.arange(self.frequencies, dtype=torch.float32, device=timestep.device) / self.frequencies
        angles = timestep.float()[:, None] * torch.exp(-math.log(10000) * powers)  # (B, channels / 2)
        embedding: Tensor = torch.cat((angles.cos(), angles.sin()), dim=1).to(dtype)  # (B, channels)
        embedding = self.linear_2(F.silu(self.linear_1(embedding)))
        return embedding


# The U-Net


class UNetBlock(nn.Module):
    """Resnet blocks at one resolution, each followed by a spatial transformer where the block attends to the prompt."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[SpatialTransformer]) -> None:
        super().__init__()
        # In this order, which is that of diffusers' parameters: fingerprints depend on it.
        self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)

    def attend(self, number: int, hidden_states: Tensor, prompt_embeds: Tensor) -> Tensor:
        """What the spatial transformer of this number makes of hidden states; the same where the block has none."""
        if len(self.attentions):
            hidden_states = self.attentions[number](hidden_states, prompt_embeds)
        return hidden_states


class DownBlock(UNetBlock):
    """One resolution on the way down."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[SpatialTransformer], downsample: int) -> None:
        super().__init__(resnets, attentions)
        self.downsamplers = nn.ModuleList([Downsample(downsample, padding=1)] if downsample else [])

    def forward(self, hidden_states: Tensor, temb: Tensor, prompt_embeds: Tensor) -> list[Tensor]:
        """The output of each layer, for the skip connections; the last one goes on."""
        outputs = []
        for number, resnet in enumerate(self.resnets):
            hidden_states = self.attend(number, resnet(hidden_states, temb), prompt_embeds)  # (B, C, H, W)
            outputs.append(hidden_states)
        for downsampler in self.downsamplers:
            outputs.append(downsampler(hidden_states))  # (B, C, H / 2, W / 2)
        return outputs


class MidBlock(UNetBlock):
    """The coarsest resolution: resnet block, spatial transformer, resnet block."""

    def forward(self, hidden_states: Tensor, temb: Tensor, prompt_embeds: Tensor) -> Tensor:
        hidden_states = self.attend(0, self.resnets[0](hidden_states, temb), prompt_embeds)
        hidden_states = self.resnets[1](hidden_states, temb)
        return hidden_states


class UpBlock(UNetBlock):
    """One resolution on the way up, with a skip connection to each of its layers."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[SpatialTransformer], upsample: int) -> None:
        super().__init__(resnets, attentions)
        self.upsamplers = nn.ModuleList([Upsample(upsample)] if upsample else [])

    def forward(self, hidden_states: Tensor, temb: Tensor, prompt_embeds: Tensor, *skips: Tensor) -> Tensor:
        for number, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            hidden_states = torch.cat((hidden_states, skip), dim=1)  # (B, C + C of the skip connection, H, W)
            hidden_states = self.attend(number, resnet(hidden_states, temb), prompt_embeds)  # (B, C, H, W)
        for upsampler in self.upsamplers:
            hidden_states = upsampler(hidden_states)  # (B, C, 2 H, 2 W)
        return hidden_states


@dataclass(frozen=True)
class UNetOutput:
    sample: Tensor
    """The prediction, of the latents' shape."""


class UNet(interfaces.Denoiser):
    """The denoiser: a U-Net that attends to the prompt at some resolutions (arXiv 2112.10752)."""

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, layers, groups = config.block_out_channels, config.layers_per_block, config.norm_num_groups
        temb_channels = 4 * widths[0]

        def resnet(in_channels: int, out_channels: int) -> ResnetBlock:
            return ResnetBlock(in_channels, out_channels, groups, config.norm_eps, temb_channels)

        def attentions(width: int, count: int, block_type: str) -> list[SpatialTransformer]:
            if "CrossAttn" not in block_type:
                return []
            return [
                SpatialTransformer(width, config.cross_attention_dim, config.attention_head_dim, groups)
                for _ in range(count)
            ]

        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], temb_channels)

        # Down: from the finest to the coarsest resolution. `skips` are the channels of each layer's output.
        down_blocks, skips = list[DownBlock](), [widths[0]]
        for block_type, width in zip(config.down_block_types, widths, strict=True):
            resnets = [resnet(skips[-1], width), *(resnet(width, width) for _ in range(layers - 1))]
            last = len(down_blocks) == len(widths) - 1
            down_blocks.append(DownBlock(resnets, attentions(width, layers, block_type), 0 if last else width))
            skips += [width] * (layers if last else layers + 1)
        self.down_blocks = nn.ModuleList(down_blocks)

        # Up: back again. Each layer takes the output of the layer below and one skip connection, the latest first.
        up_blocks, below = list[UpBlock](), widths[-1]
        for block_type, width in zip(config.up_block_types, reversed(widths), strict=True):
            resnets = []
            for _ in range(layers + 1):
                resnets.append(resnet(below + skips.pop(), width))
                below = width
            up_blocks.append(UpBlock(resnets, attentions(width, layers + 1, block_type), width if skips else 0))
        self.up_blocks = nn.ModuleList(up_blocks)

        # The middle comes after both in the order of diffusers' parameters, on which fingerprints depend.
        middle = widths[-1]
        self.mid_block = MidBlock(
            [resnet(middle, middle), resnet(middle, middle)], attentions(middle, 1, config.mid_block_type)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self._checkpointing = False

    @classmethod
    def from_config(cls, config: UNetConfig) -> Self:
        """A U-Net with fresh weights, under diffusers' name for this."""
        return cls(config)

    def enable_gradient_checkpointing(self) -> None:
        self._checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        self._checkpointing = False

    def forward(self, sample: Tensor, timestep: Tensor, prompt_embeds: Tensor) -> UNetOutput:
        """The prediction for latents (B, in_channels, H, W) at timesteps (B,).

        Args:
            prompt_embeds: (B, T, cross_attention_dim).
        """

        def run(block: nn.Module, *inputs: Tensor) -> Any:
            if self._checkpointing and torch.is_grad_enabled():
                return checkpoint(block, *inputs, use_reentrant=False)
            return block(*inputs)

        # 1. Time embedding. All resnet blocks apply the same activation to it, so it is applied once.
        temb = F.silu(self.time_embedding(timestep, sample.dtype))  # (B, temb_channels)

        # 2. Down; every output is kept for its skip connection.
        skips: list[Tensor] = [self.conv_in(sample)]  # (B, C, H, W)
        for block in self.down_blocks:
            skips += run(block, skips[-1], temb, prompt_embeds)

        # 3. Middle
        hidden_states: Tensor = run(self.mid_block, skips[-1], temb, prompt_embeds)

        # 4. Up
        for block in self.up_blocks:
            assert isinstance(block, UpBlock)
            hidden_states = run(block, hidden_states, temb, prompt_embeds, *(skips.pop() for _ in block.resnets))

        # 5. Out
        hidden_states = self.conv_out(F.silu(self.conv_norm_out(hidden_states)))  # (B, out_channels, H, W)
        return UNetOutput(hidden_states)


# The VAE


class AutoencoderBlock(nn.Module):
    """Resnet blocks at one resolution of the VAE."""

    def __init__(self, *resnets: ResnetBlock) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)

    def forward(self, hidden_states: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden_states = resnet(hidden_states)  # (B, C, H, W)
        return hidden_states


class DownEncoderBlock(AutoencoderBlock):
    def __init__(self, resnet: ResnetBlock, downsample: int) -> None:
        super().__init__(resnet)
        self.downsamplers = nn.ModuleList([Downsample(downsample, padding=0)] if downsample else [])

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = super().forward(hidden_states)
        for downsampler in self.downsamplers:
            hidden_states = downsampler(hidden_states)  # (B, C, H / 2, W / 2)
        return hidden_states


class UpDecoderBlock(AutoencoderBlock):
    def __init__(self, first: ResnetBlock, second: ResnetBlock, upsample: int) -> None:
        super().__init__(first, second)
        self.upsamplers = nn.ModuleList([Upsample(upsample)] if upsample else [])

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = super().forward(hidden_states)
        for upsampler in self.upsamplers:
            hidden_states = upsampler(hidden_states)  # (B, C, 2 H, 2 W)
        return hidden_states


def _resnet(config: AutoencoderConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, config.norm_num_groups, 1e-6)


class Encoder(nn.Module):
    """From pictures to the mean and log variance of their latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        blocks, before = list[DownEncoderBlock](), widths[0]
        for width in widths:
            last = len(blocks) == len(widths) - 1
            blocks.append(DownEncoderBlock(_resnet(config, before, width), 0 if last else width))
            before = width
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = AutoencoderBlock(*(_resnet(config, before, before) for _ in range(2)))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, 2 * config.latent_channels, 3, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, 2 latent_channels, H / 8, W / 8) of pictures (B, 3, H, W)."""
        hidden_states = self.conv_in(hidden_states)
        for block in (*self.down_blocks, self.mid_block):
            hidden_states = block(hidden_states)
        hidden_states = self.conv_out(F.silu(self.conv_norm_out(hidden_states)))
        return hidden_states


class Decoder(nn.Module):
    """From latents to pictures."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        blocks, before = list[UpDecoderBlock](), widths[0]
        for width in widths:
            last = len(blocks) == len(widths) - 1
            resnets = _resnet(config, before, width), _resnet(config, width, width)
            blocks.append(UpDecoderBlock(*resnets, 0 if last else width))
            before = width
        self.up_blocks = nn.ModuleList(blocks)
        self.mid_block = AutoencoderBlock(*(_resnet(config, widths[0], widths[0]) for _ in range(2)))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, config.out_channels, 3, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Pictures (B, 3, 8 H, 8 W) of latents (B, latent_channels, H, W)."""
        hidden_states = self.conv_in(hidden_states)
        for block in (self.mid_block, *self.up_blocks):
            hidden_states = block(hidden_states)
        hidden_states = self.conv_out(F.silu(self.conv_norm_out(hidden_states)))
        return hidden_states


@dataclass(frozen=True)
class LatentDistribution:
    mean: Tensor
    std: Tensor
    """Each (B, latent_channels, H / 8, W / 8)."""


@dataclass(frozen=True)
class EncoderOutput:
    latent_dist: LatentDistribution


@dataclass(frozen=True)
class DecoderOutput:
    sample: Tensor
    """(B, 3, H, W), about in [-1, 1]."""


class Autoencoder(interfaces.Autoencoder):
    """The VAE (arXiv 2112.10752, section 3.1), without attention: pictures to latents of an eighth of their size."""

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, pictures: Tensor) -> EncoderOutput:
        mean, log_variance = self.quant_conv(self.encoder(pictures)).chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return EncoderOutput(LatentDistribution(mean, std))

    def decode(self, latents: Tensor) -> DecoderOutput:
        return DecoderOutput(self.decoder(self.post_quant_conv(latents)))
