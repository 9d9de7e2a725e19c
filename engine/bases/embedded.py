"""The embedded base's parts in plain torch.

They compute what diffusers' UNet2DConditionModel and AutoencoderKL and transformers' CLIPTextModel and CLIPTokenizer
compute of the same files, under the same names, so adapters go from one to the other. Only importing those libraries
takes 2.7 s and 150 MiB, as much as everything else that learning a person here holds (torch has 220 MiB); the real
models of real families, where that is nothing, are theirs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.toon import WEIGHTS

DIFFUSION = "diffusion_pytorch_model"
"""What diffusers calls a file of weights."""


class Config(dict[str, Any]):
    """A part's config.json, whose values are attributes too, as in diffusers."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class EmbeddedPipeline:
    """The whole base as `BaseModel` takes it: a diffusers pipeline's `config` and `components`."""

    def __init__(self) -> None:
        self.config: Mapping[str, Any] = _read(WEIGHTS / "model_index.json")
        self.components: Mapping[str, Any] = {
            "unet": UNet.open(WEIGHTS / "unet"),
            "vae": Autoencoder.open(WEIGHTS / "vae"),
            "text_encoder": TextEncoder.open(WEIGHTS / "text_encoder", "model"),
            "tokenizer": PromptTokenizer(WEIGHTS / "tokenizer"),
            "scheduler": SimpleNamespace(config=_read(WEIGHTS / "scheduler" / "scheduler_config.json")),
        }


def unet_weight(name: str) -> Tensor:
    """One of the U-Net's weights, in the half precision that it lies there in: no more of its file is read."""
    with safe_open(WEIGHTS / "unet" / f"{DIFFUSION}.safetensors", "pt") as file:
        weight: Tensor = file.get_tensor(name)
    return weight


def _read(path: Path) -> Config:
    return Config(json.loads(path.read_text()))


class _Part(nn.Module):
    """What has a configuration and a file of weights."""

    config: Config

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = Config(config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """One with fresh weights."""
        return cls(config)

    @classmethod
    def open(cls, folder: Path, file: str = DIFFUSION) -> Self:
        """The one in `folder`, on the CPU in the dtype that it lies there in."""
        with torch.device("meta"):
            part = cls(_read(folder / "config.json"))
        part.load_state_dict(load_file(folder / f"{file}.safetensors"), assign=True)
        return part

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class PromptTokenizer:
    """CLIP's tokenizer of one folder, as far as this engine asks one."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = _read(folder / "tokenizer_config.json")
        self.model_max_length = int(config.model_max_length)
        self._end = self._tokenizer.encode(config.eos_token, add_special_tokens=False).ids[0]

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
    ) -> SimpleNamespace:
        """The numbers of one prompt's tokens; of several, with "max_length" of padding and of truncation, int64
        (n, max_length). Every argument means what it means to transformers."""
        if isinstance(prompts, str):
            return SimpleNamespace(input_ids=self._tokenizer.encode(prompts, add_special_tokens=add_special_tokens).ids)
        read = [encoding.ids for encoding in self._tokenizer.encode_batch(list(prompts))]
        rows = [ids if len(ids) <= max_length else [*ids[: max_length - 1], self._end] for ids in read]
        return SimpleNamespace(input_ids=torch.tensor([ids + [self._end] * (max_length - len(ids)) for ids in rows]))


class TextEncoder(_Part):
    """CLIP's text tower (arXiv 2103.00020): what a U-Net hears of a prompt."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(self.config)
        self.encoder = _TextLayers(self.config)
        self.final_layer_norm = nn.LayerNorm(self.config.hidden_size, self.config.layer_norm_eps)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of the tokens' vectors."""
        table: nn.Embedding = self.embeddings.token_embedding
        return table

    def forward(self, tokens: Tensor) -> SimpleNamespace:
        """The last hidden states (n, tokens, width) of tokens' numbers (n, tokens)."""
        return SimpleNamespace(last_hidden_state=self.final_layer_norm(self.encoder(self.embeddings(tokens))))


class _Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        # Tables of their own would be filled with noise, for which torch imports its compiler: a second and 70 MiB.
        sizes = config.vocab_size, config.max_position_embeddings
        tables: Any = (nn.Embedding.from_pretrained(torch.empty(n, config.hidden_size), freeze=False) for n in sizes)
        self.token_embedding, self.position_embedding = tables

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.token_embedding(tokens) + self.position_embedding(places)  # type: ignore[no-any-return]


class _TextLayers(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TextLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers:
            states = layer(states)
        return states


class _TextLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.self_attn = _TextAttention(width, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(width, config.layer_norm_eps)
        self.mlp = _TextForward(width, config.intermediate_size)
        self.layer_norm2 = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.self_attn(self.layer_norm1(states))
        return states + self.mlp(self.layer_norm2(states))  # type: ignore[no-any-return]


class _TextAttention(nn.Module):
    """Each token hears those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.out_proj(  # type: ignore[no-any-return]
            attended(self.q_proj(states), self.k_proj(states), self.v_proj(states), self._heads, causal=True)
        )


class _TextForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        inner = self.fc1(states)
        return self.fc2(inner * torch.sigmoid(1.702 * inner))  # type: ignore[no-any-return]


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Attention of (n, places, width) to (n, others, width) in heads of equal width (arXiv 1706.03762, section 3.2)."""
    query, key, value = (one.unflatten(2, (heads, -1)).transpose(1, 2) for one in (query, key, value))
    heard = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return heard.transpose(1, 2).flatten(2)


class _Residual(nn.Module):
    """Two convolutions beside a way past them; a U-Net's know the time."""

    def __init__(self, channels: int, out: int, groups: int, eps: float, time: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, states: Tensor, time: Tensor | None = None) -> Tensor:
        changed = self.conv1(F.silu(self.norm1(states)))
        if time is not None:
            changed = changed + self.time_emb_proj(time)[:, :, None, None]
        changed = self.conv2(F.silu(self.norm2(changed)))
        return (states if self.conv_shortcut is None else self.conv_shortcut(states)) + changed  # type: ignore[no-any-return]


class _Halved(nn.Module):
    """Half as many places to each side."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, states: Tensor) -> Tensor:
        # Unpadded ones, the autoencoder's, want a place more at the right and below.
        return self.conv(states if self.conv.padding[0] else F.pad(states, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class _Doubled(nn.Module):
    """Twice as many places to each side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, states: Tensor) -> Tensor:
        return self.conv(F.interpolate(states, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, width: int, heard: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(heard, width, bias=False), nn.Linear(heard, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, states: Tensor, heard: Tensor) -> Tensor:
        return self.to_out[0](  # type: ignore[no-any-return]
            attended(self.to_q(states), self.to_k(heard), self.to_v(heard), self._heads)
        )


class _Gated(nn.Module):
    """GEGLU (arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, states: Tensor) -> Tensor:
        inner, gate = self.proj(states).chunk(2, dim=-1)
        return inner * F.gelu(gate)  # type: ignore[no-any-return]


class _Forward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # What stands between the two in diffusers has no weights.
        self.net = nn.ModuleList([_Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, states: Tensor) -> Tensor:
        return self.net[2](self.net[0](states))  # type: ignore[no-any-return]


class _Transformer(nn.Module):
    def __init__(self, width: int, heard: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = _Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = _Attention(width, heard, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = _Forward(width)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        normal = self.norm1(states)
        states = self.attn1(normal, normal) + states
        states = self.attn2(self.norm2(states), words) + states
        return self.ff(self.norm3(states)) + states  # type: ignore[no-any-return]


class _Hearing(nn.Module):
    """Where the places of a picture look at each other and at the words."""

    def __init__(self, width: int, heard: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_Transformer(width, heard, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        inner = self.proj_in(self.norm(states))
        # To (n, places, width), and back.
        rows = self.transformer_blocks[0](inner.flatten(2).transpose(1, 2), words)
        return self.proj_out(rows.transpose(1, 2).reshape(inner.shape)) + states  # type: ignore[no-any-return]


class _Time(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self._half = channels // 2
        self.linear_1, self.linear_2 = nn.Linear(channels, width), nn.Linear(width, width)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, width), of timesteps (n,): cosines and sines (arXiv 1706.03762, section 3.5) through two layers."""
        powers = torch.arange(self._half, dtype=torch.float32, device=timestep.device) / self._half
        angles = timestep.float()[:, None] * torch.exp(-math.log(10000) * powers)
        waves = torch.cat((angles.cos(), angles.sin()), dim=1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))  # type: ignore[no-any-return]


class _Level(nn.Module):
    """One resolution of the U-Net on one of its sides, or the middle."""

    attentions: nn.ModuleList

    def __init__(self, residuals: list[_Residual], attentions: list[_Hearing]) -> None:
        super().__init__()
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(residuals)

    def _heard(self, number: int, states: Tensor, words: Tensor) -> Tensor:
        return self.attentions[number](states, words) if hasattr(self, "attentions") else states


class _Down(_Level):
    def __init__(self, residuals: list[_Residual], attentions: list[_Hearing], halved: int) -> None:
        super().__init__(residuals, attentions)
        self.downsamplers = nn.ModuleList([_Halved(halved, 1)] if halved else [])

    def forward(self, states: Tensor, time: Tensor, words: Tensor) -> list[Tensor]:
        """What came out of each of its layers, the last of which goes on."""
        came = []
        for number, residual in enumerate(self.resnets):
            states = self._heard(number, residual(states, time), words)
            came.append(states)
        return came + [halved(states) for halved in self.downsamplers]


class _Middle(_Level):
    def forward(self, states: Tensor, time: Tensor, words: Tensor) -> Tensor:
        return self.resnets[1](self._heard(0, self.resnets[0](states, time), words), time)  # type: ignore[no-any-return]


class _Up(_Level):
    def __init__(self, residuals: list[_Residual], attentions: list[_Hearing], doubled: int) -> None:
        super().__init__(residuals, attentions)
        self.upsamplers = nn.ModuleList([_Doubled(doubled)] if doubled else [])

    def forward(self, states: Tensor, time: Tensor, words: Tensor, *past: Tensor) -> Tensor:
        for number, (residual, one) in enumerate(zip(self.resnets, past, strict=True)):
            states = self._heard(number, residual(torch.cat((states, one), dim=1), time), words)
        for doubled in self.upsamplers:
            states = doubled(states)
        return states


class UNet(_Part):
    """The denoiser: a U-Net with attention to the words at some of its levels (arXiv 2112.10752)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        own = self.config
        widths, layers, groups = own.block_out_channels, own.layers_per_block, own.norm_num_groups
        time = 4 * widths[0]

        def residual(channels: int, out: int) -> _Residual:
            return _Residual(channels, out, groups, own.norm_eps, time)

        def hearing(width: int, count: int, kind: str) -> list[_Hearing]:
            if not kind.startswith(("CrossAttn", "UNetMid")):
                return []
            return [_Hearing(width, own.cross_attention_dim, own.attention_head_dim, groups) for _ in range(count)]

        self.conv_in = nn.Conv2d(own.in_channels, widths[0], 3, padding=1)
        self.time_embedding = _Time(widths[0], time)
        downs, past = list[_Down](), [widths[0]]
        for kind, width in zip(own.down_block_types, widths, strict=True):
            residuals = [residual(past[-1], width), *(residual(width, width) for _ in range(layers - 1))]
            last = len(downs) == len(widths) - 1
            downs.append(_Down(residuals, hearing(width, layers, kind), 0 if last else width))
            past += [width] * (layers if last else layers + 1)
        self.down_blocks = nn.ModuleList(downs)
        ups, before = list[_Up](), widths[-1]
        for kind, width in zip(own.up_block_types, reversed(widths), strict=True):
            residuals = []
            for _ in range(layers + 1):
                residuals.append(residual(before + past.pop(), width))
                before = width
            ups.append(_Up(residuals, hearing(width, layers + 1, kind), width if past else 0))
        self.up_blocks = nn.ModuleList(ups)
        middle = widths[-1]
        self.mid_block = _Middle(
            [residual(middle, middle), residual(middle, middle)], hearing(middle, 1, own.mid_block_type)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], own.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], own.out_channels, 3, padding=1)
        self._checkpointing = False

    def enable_gradient_checkpointing(self) -> None:
        """Keep no level's inner states for the way back, but compute them again (arXiv 1604.06174)."""
        self._checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep them again."""
        self._checkpointing = False

    def forward(self, noisy: Tensor, timestep: Tensor, words: Tensor) -> SimpleNamespace:
        """The answer (n, c, h, w) to latents of this shape at timesteps (n,) and to words (n, tokens, width)."""

        def through(level: nn.Module, *given: Tensor) -> Any:
            if self._checkpointing and torch.is_grad_enabled():
                return checkpoint(level, *given, use_reentrant=False)
            return level(*given)

        # All residuals ask for the time behind the same nonlinearity.
        time = F.silu(self.time_embedding(timestep, noisy.dtype))
        states = self.conv_in(noisy)
        past = [states]
        for level in self.down_blocks:
            past += through(level, past[-1], time, words)
        states = through(self.mid_block, past[-1], time, words)
        for level in self.up_blocks:
            assert isinstance(level, _Up)
            states = through(level, states, time, words, *(past.pop() for _ in level.resnets))
        return SimpleNamespace(sample=self.conv_out(F.silu(self.conv_norm_out(states))))


class _Residuals(nn.Module):
    """One resolution of the autoencoder on one of its sides, or the middle."""

    def __init__(self, *residuals: _Residual) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(residuals)

    def forward(self, states: Tensor) -> Tensor:
        for residual in self.resnets:
            states = residual(states)
        for changed in (*getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())):
            states = changed(states)
        return states


class _Encoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for width in widths:
            level = _Residuals(_Residual(before, width, groups, 1e-6))
            if len(self.down_blocks) < len(widths) - 1:
                level.downsamplers = nn.ModuleList([_Halved(width, 0)])
            self.down_blocks.append(level)
            before = width
        self.mid_block = _Residuals(*(_Residual(before, before, groups, 1e-6) for _ in range(2)))
        self.conv_norm_out = nn.GroupNorm(groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, 2 * config.latent_channels, 3, padding=1)

    def forward(self, states: Tensor) -> Tensor:
        states = self.conv_in(states)
        for level in (*self.down_blocks, self.mid_block):
            states = level(states)
        return self.conv_out(F.silu(self.conv_norm_out(states)))  # type: ignore[no-any-return]


class _Decoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        before = widths[0]
        self.conv_in = nn.Conv2d(config.latent_channels, before, 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for width in widths:
            level = _Residuals(_Residual(before, width, groups, 1e-6), _Residual(width, width, groups, 1e-6))
            if len(self.up_blocks) < len(widths) - 1:
                level.upsamplers = nn.ModuleList([_Doubled(width)])
            self.up_blocks.append(level)
            before = width
        self.mid_block = _Residuals(*(_Residual(widths[0], widths[0], groups, 1e-6) for _ in range(2)))
        self.conv_norm_out = nn.GroupNorm(groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, config.out_channels, 3, padding=1)

    def forward(self, states: Tensor) -> Tensor:
        states = self.conv_in(states)
        for level in (self.mid_block, *self.up_blocks):
            states = level(states)
        return self.conv_out(F.silu(self.conv_norm_out(states)))  # type: ignore[no-any-return]


class Autoencoder(_Part):
    """From pictures to latents and back, without attention."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        channels = self.config.latent_channels
        self.encoder, self.decoder = _Encoder(self.config), _Decoder(self.config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, pictures: Tensor) -> SimpleNamespace:
        """The distribution of the latents, `mean` and `std` each (n, c, h / 8, w / 8), of (n, 3, h, w) in [-1, 1]."""
        mean, log_variance = self.quant_conv(self.encoder(pictures)).chunk(2, dim=1)
        deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=deviation))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        """Pictures (n, 3, 8 h, 8 w), about in [-1, 1], of latents (n, c, h, w)."""
        return SimpleNamespace(sample=self.decoder(self.post_quant_conv(latents)))
