"""Every kind of adapter file that people have, each written by hand and compared with its change merged by hand.

`python -m tests.engine.file_kinds` writes each kind, imports it, and prints what became of it: the relative error of
the denoiser's prediction, as a share of the change that the adapter makes, or the refusal. With `--drawings DIR` it
also draws some kinds with the imported file and with the merged weights, side by side. Formulas are written out densely
here, apart from the engine's low ranks.
"""

import argparse
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.adapters.adapters import FILE, LORA_METADATA, Attached
from engine.adapters.exchange import import_lora, imported_facts
from engine.bases.base import BaseModel
from engine.device import precision
from engine.drawing.drawing import draw
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine import tiny

LIMIT = 1e-3
"""The largest relative error of a kind that is read."""

ALPHA = 2.0
RANK = 4


@dataclass
class Written:
    """A file's content, and the weights that its adapter makes."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    merged: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """By part and layer: the whole weight."""
    beside: dict[str, str] = field(default_factory=dict)
    """Other files in the same folder."""


Writer = Callable[[BaseModel], Written]


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    family: str
    write: Writer
    refused: str = ""
    """Words of the refusal; empty where the kind is read."""
    noted: str = ""
    """Words of the note that it is imported with."""


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_of(base: BaseModel, part: str, name: str) -> Tensor:
    weight: Tensor = base.adaptable[part].get_submodule(name).weight
    return weight.detach().float()


def seed_of(name: str) -> int:
    return sum((number + 1) * ord(letter) for number, letter in enumerate(name))


def lora_factors(weight: Tensor, seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """A (r, in ...) and B (out, r, ...) whose product is about a third of the weight."""
    down = random(seed, rank, *weight.shape[1:])
    up = random(seed + 1, len(weight), rank, *[1] * (weight.ndim - 2))
    return down, up * (0.3 * weight.norm() / (up.flatten(1) @ down.flatten(1)).norm()).clamp(min=1e-2)


def product(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


Named = Mapping[tuple[str, str], str]
"""The layers that a file adapts, and their names in it."""


def plain(
    named: Named,
    base: BaseModel,
    *,
    ends: tuple[str, str] = (".lora_down.weight", ".lora_up.weight"),
    alpha: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Written:
    """A LoRA under these names and endings, with alpha or without."""
    written = Written()
    for (part, name), theirs in named.items():
        weight = weight_of(base, part, name)
        down, up = (factor.to(dtype) for factor in lora_factors(weight, seed_of(name)))
        written.tensors |= {theirs + ends[0]: down, theirs + ends[1]: up}
        if alpha:
            written.tensors[f"{theirs}.alpha"] = torch.tensor(ALPHA)
        scale = ALPHA / RANK if alpha else 1.0
        written.merged[part, name] = weight + scale * product(down.float(), up.float())
    return written


def composed(kind: Callable[[Tensor, int], tuple[dict[str, Tensor], Tensor]], named: Named, base: BaseModel) -> Written:
    """An adapter of `kind`: (weight, seed) to the tensors by their endings, and the dense change."""
    written = Written()
    for (part, name), theirs in named.items():
        weight = weight_of(base, part, name)
        tensors, change = kind(weight, seed_of(name))
        written.tensors |= {f"{theirs}.{end}": tensor for end, tensor in tensors.items()}
        written.merged[part, name] = weight + change
    return written


def sized(weight: Tensor, change: Tensor) -> float:
    """The factor that makes a change about a third of the weight."""
    return float(0.3 * weight.norm() / change.norm())


def locon_mid(weight: Tensor, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    kernel = weight.shape[2:]
    down, mid = random(seed, RANK, weight.shape[1], 1, 1), random(seed + 1, RANK, RANK, *kernel)
    up = random(seed + 2, len(weight), RANK, 1, 1)
    change = torch.einsum("om,mnhw,ni->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    up = up * sized(weight, change)
    change = ALPHA / RANK * torch.einsum("om,mnhw,ni->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    return {
        "lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(ALPHA),
    }, change  # fmt: skip


def loha(weight: Tensor, seed: int, tucker: bool = False, rank: int = RANK) -> tuple[dict[str, Tensor], Tensor]:
    out, into = len(weight), weight[0].numel()
    tensors: dict[str, Tensor] = {"alpha": torch.tensor(ALPHA)}
    halves = []
    for number in (1, 2):
        if tucker:
            a, b = random(seed, rank, out), random(seed + 1, rank, weight.shape[1])
            t = random(seed + 2, rank, rank, *weight.shape[2:])
            tensors[f"hada_t{number}"] = t
            half = torch.einsum("ijhw,jr,ip->prhw", t, b, a)
        else:
            a, b = random(seed, out, rank), random(seed + 1, rank, into)
            half = (a @ b).reshape(weight.shape)
        tensors |= {f"hada_w{number}_a": a, f"hada_w{number}_b": b}
        halves.append(half)
        seed += 3
    factor = sized(weight, halves[0] * halves[1])
    tensors["hada_w1_a"] = tensors["hada_w1_a"] * factor
    return tensors, ALPHA / rank * factor * halves[0] * halves[1]


def lokr(
    weight: Tensor, seed: int, *, full: bool = False, first: bool = False, tucker: bool = False, factor: int = 4
) -> tuple[dict[str, Tensor], Tensor]:
    """w1 of factor x factor, and w2 whole (`full`) or of low rank; with w1 of low rank too (`first`)."""
    out, into, kernel = len(weight) // factor, weight.shape[1] // factor, weight.shape[2:]
    rank, tensors = 2, {"alpha": torch.tensor(ALPHA)}
    w1 = random(seed, factor, factor)
    if first:
        tensors |= {"lokr_w1_a": w1[:, :rank].contiguous(), "lokr_w1_b": random(seed + 1, rank, factor)}
        w1 = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    else:
        tensors["lokr_w1"] = w1
    if full:
        w2 = tensors["lokr_w2"] = random(seed + 2, out, into, *kernel)
    elif tucker:
        a, b, t = random(seed + 2, rank, out), random(seed + 3, rank, into), random(seed + 4, rank, rank, *kernel)
        tensors |= {"lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": t}
        w2 = torch.einsum("ijhw,jr,ip->prhw", t, b, a)
    else:
        a, b = random(seed + 2, out, rank), random(seed + 3, rank, into * math.prod(kernel))
        tensors |= {"lokr_w2_a": a, "lokr_w2_b": b}
        w2 = (a @ b).reshape(out, into, *kernel)
    change = torch.kron(w1.reshape(*w1.shape, *[1] * len(kernel)), w2.contiguous())
    size = sized(weight, change)
    key = "lokr_w1_a" if first else "lokr_w1"
    tensors[key] = tensors[key] * size
    # lycoris-lora has no scale where neither matrix has a low rank.
    return tensors, change * size * (1.0 if full and not first else ALPHA / rank)


def dora(
    inner: Callable[[Tensor, int], tuple[dict[str, Tensor], Tensor]], axis: int, weight: Tensor, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """An inner adapter whose weight is scaled to magnitudes of its outputs (axis 0) or inputs (axis 1)."""
    tensors, change = inner(weight, seed)
    dims = [dim for dim in range(weight.ndim) if dim != axis]
    magnitudes = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
    magnitudes = magnitudes * (1 + 0.2 * random(seed + 9, *magnitudes.shape))
    moved = weight + change
    norms = torch.linalg.vector_norm(moved, dim=dims, keepdim=True)
    return tensors | {"dora_scale": magnitudes}, moved * magnitudes / norms - weight


def lora(weight: Tensor, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    down, up = lora_factors(weight, seed)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
    return tensors, ALPHA / RANK * product(down, up)


# The layers, and their names in files.


def layers(base: BaseModel, part: str, *ends: str) -> list[str]:
    """The part's linear layers and convolutions whose names end so."""
    return [
        name
        for name, layer in base.adaptable[part].named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(ends or ("",))
    ]


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def kohya(base: BaseModel, ends: tuple[str, ...] = ATTENTION, text: str = "lora_te_text_model_") -> Named:
    named = {("unet", name): "lora_unet_" + name.replace(".", "_") for name in layers(base, "unet", *ends)}
    if text:
        own = layers(base, "text_encoder", *TEXT)
        named |= {("text_encoder", name): text + name.removeprefix("text_model.").replace(".", "_") for name in own}
    return named


SGM_TINY_XL = {
    "conv_in": "input_blocks_0_0", "conv_out": "out_2", "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2", "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2", "down_blocks.0.resnets.0.conv1": "input_blocks_1_0_in_layers_2",
    "down_blocks.0.resnets.0.time_emb_proj": "input_blocks_1_0_emb_layers_1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_2_0_op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks_3_0_skip_connection",
    "down_blocks.1.attentions.0.proj_in": "input_blocks_3_1_proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v": "input_blocks_3_1_transformer_blocks_1_attn2_to_v",
    "mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": "middle_block_1_transformer_blocks_0_ff_net_0_proj",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0":
        "output_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_1_2_conv",
    "up_blocks.1.resnets.0.conv1": "output_blocks_2_0_in_layers_2",
}  # fmt: skip
"""Layers of the tiny SDXL, and their names in kohya's scripts: of every sort there is."""


def kohya_xl(base: BaseModel, prefix: str = "lora_unet_", dotted: bool = False) -> Named:
    named = {}
    for name, theirs in SGM_TINY_XL.items():
        if dotted:
            theirs = _dotted(theirs)
        named["unet", name] = prefix + theirs
    return named


def _dotted(name: str) -> str:
    """SGM's own dotted name of one with underscores."""
    for words in ("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "in_layers", "out_layers",
                  "emb_layers", "skip_connection", "transformer_blocks", "proj_in", "to_out", "to_v"):  # fmt: skip
        name = name.replace(words, words.replace("_", "-"))
    return name.replace("_", ".").replace("-", "_")


def kohya_xl_text(base: BaseModel) -> Named:
    named = dict(kohya_xl(base))
    for number, part in ((1, "text_encoder"), (2, "text_encoder_2")):
        for name in layers(base, part, *TEXT):
            bare = name.removeprefix("text_model.").replace(".", "_")
            named[part, name] = f"lora_te{number}_text_model_{bare}"
    return named | {("text_encoder_2", "text_projection"): "lora_te2_text_projection"}


def scripts(base: BaseModel) -> Written:
    """The names of diffusers' older training scripts: attention processors, and `.lora_linear_layer`."""
    unet = {
        ("unet", name): "unet." + name.replace(".to_", ".processor.to_").removesuffix(".0") for name in
        layers(base, "unet", *ATTENTION)
    }  # fmt: skip
    written = plain(unet, base, ends=("_lora.down.weight", "_lora.up.weight"), alpha=False)
    text = {
        ("text_encoder", name): "text_encoder.text_model." + name.removeprefix("text_model.")
        for name in layers(base, "text_encoder", *TEXT)
    }
    more = plain(text, base, ends=(".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"), alpha=False)
    return Written(written.tensors | more.tensors, {}, written.merged | more.merged)


def prefixed(prefix: str, base: BaseModel, family_part: str = "unet", ends: tuple[str, ...] = ATTENTION) -> Named:
    return {(family_part, name): prefix + name for name in layers(base, family_part, *ends)}


def patterns(base: BaseModel, config: Mapping[str, Any], alphas: Callable[[str], float]) -> Written:
    """peft's configuration in the header, and `alphas`: what its patterns mean for a layer."""
    written = Written(metadata={LORA_METADATA: json.dumps({f"unet.{key}": value for key, value in config.items()})})
    for name in layers(base, "unet", *ATTENTION):
        weight = weight_of(base, "unet", name)
        down, up = lora_factors(weight, seed_of(name))
        written.tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
        written.merged["unet", name] = weight + alphas(name) / RANK * product(down, up)
    return written


CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "use_rslora": False, "use_dora": False}


def first_match(base: BaseModel) -> Written:
    wanted = {r"attn1\.to_[qk]": 8, "to_q": 1, r"mid_block.*\.to_v": 2}

    def alpha(name: str) -> float:
        if name.endswith(("attn1.to_q", "attn1.to_k")):
            return 8
        return 1 if name.endswith("to_q") else 2 if name.startswith("mid_block") and name.endswith("to_v") else 4

    return patterns(base, CONFIG | {"alpha_pattern": wanted}, alpha)


def saved_again(base: BaseModel) -> Written:
    """As diffusers writes it when it saves what it loaded: whole names after "^"."""
    names = layers(base, "unet", *ATTENTION)
    wanted = {f"^{name}": 1 + number % 3 for number, name in enumerate(names)}
    return patterns(base, CONFIG | {"alpha_pattern": wanted}, lambda name: wanted[f"^{name}"])


def text_patterns(base: BaseModel) -> Written:
    """Patterns of a text encoder as transformers 4 names its layers."""
    names = layers(base, "text_encoder", "q_proj", "fc1")
    wanted = {f"^text_model.{name.removeprefix('text_model.')}": 1 + number for number, name in enumerate(names)}
    config = {f"text_encoder.{key}": value for key, value in (CONFIG | {"alpha_pattern": wanted}).items()}
    written = Written(metadata={LORA_METADATA: json.dumps(config)})
    for number, name in enumerate(names):
        weight = weight_of(base, "text_encoder", name)
        down, up = lora_factors(weight, seed_of(name))
        start = f"text_encoder.text_model.{name.removeprefix('text_model.')}"
        written.tensors |= {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up}
        written.merged["text_encoder", name] = weight + (1 + number) / RANK * product(down, up)
    return written


def peft_folder(base: BaseModel) -> Written:
    """`PeftModel.save_pretrained`: the configuration lies beside the file."""
    written = plain(prefixed("base_model.model.", base), base, ends=(".lora_A.weight", ".lora_B.weight"), alpha=False)
    for part, name in written.merged:
        weight = weight_of(base, part, name)
        written.merged[part, name] = weight + 3 * (written.merged[part, name] - weight)
    written.beside["adapter_config.json"] = json.dumps(CONFIG | {"lora_alpha": 3 * RANK})
    return written


FLUX2_TINY = {
    "transformer_blocks.0.attn.to_out.0": "double_blocks.0.img_attn.proj",
    "transformer_blocks.0.attn.to_add_out": "double_blocks.0.txt_attn.proj",
    "transformer_blocks.0.ff.linear_in": "double_blocks.0.img_mlp.0",
    "transformer_blocks.0.ff_context.linear_out": "double_blocks.0.txt_mlp.2",
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": "single_blocks.0.linear1",
    "single_transformer_blocks.1.attn.to_out": "single_blocks.1.linear2",
}  # fmt: skip
FLUX2_TINY_OUTSIDE = {
    "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
}  # fmt: skip
QKV = {
    "double_blocks.0.img_attn.qkv": ("to_q", "to_k", "to_v"),
    "double_blocks.0.txt_attn.qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def flux2(
    base: BaseModel,
    kind: Callable[[Tensor, int], tuple[dict[str, Tensor], Tensor]] = lora,
    *,
    prefix: str = "diffusion_model.",
    underscores: bool = False,
    outside: bool = False,
) -> Written:
    """FLUX.2's own names: queries, keys and values are one layer, and the last modulation is shift before scale."""

    def named(name: str) -> str:
        return prefix + (name.replace(".", "_") if underscores else name)

    written = composed(kind, {("transformer", ours): named(theirs) for ours, theirs in
                              (FLUX2_TINY | (FLUX2_TINY_OUTSIDE if outside else {})).items()}, base)  # fmt: skip
    for theirs, ours in QKV.items():
        names = [f"transformer_blocks.0.attn.{one}" for one in ours]
        weights = [weight_of(base, "transformer", name) for name in names]
        tensors, change = kind(torch.cat(weights), seed_of(theirs))
        written.tensors |= {f"{named(theirs)}.{end}": tensor for end, tensor in tensors.items()}
        for name, weight, own in zip(names, weights, change.chunk(3), strict=True):
            written.merged["transformer", name] = weight + own
    if outside:
        weight = weight_of(base, "transformer", "norm_out.linear")
        scale, shift = weight.chunk(2)
        tensors, change = kind(torch.cat([shift, scale]), 77)
        written.tensors |= {f"{named('final_layer.adaLN_modulation.1')}.{end}": one for end, one in tensors.items()}
        of_shift, of_scale = change.chunk(2)
        written.merged["transformer", "norm_out.linear"] = weight + torch.cat([of_scale, of_shift])
    return written


def with_more(inner: Writer, more: Mapping[str, Tensor], base: BaseModel) -> Written:
    written = inner(base)
    written.tensors |= more
    return written


def sd1_plain(base: BaseModel) -> Written:
    return plain(kohya(base), base)


def without_a_number(base: BaseModel) -> Written:
    written = sd1_plain(base)
    next(iter(written.tensors.values()))[0, 0] = math.nan
    return written


def infinite_halves(base: BaseModel) -> Written:
    """In half precision, whose tensors are copied as they are."""
    written = plain(kohya(base), base, dtype=torch.float16)
    list(written.tensors.values())[-2].flatten()[3] = -math.inf
    return written


def wrong_magnitudes(base: BaseModel) -> Written:
    written = composed(partial(dora, lora, 0), kohya(base, text=""), base)
    key = next(key for key in written.tensors if key.endswith("dora_scale"))
    written.tensors[key] = torch.ones(len(written.tensors[key]) + 1, 1)
    return written


def of_kind(end: str, base: BaseModel) -> Written:
    return Written({f"{name}.{end}": torch.zeros(2, 2) for name in kohya(base, text="").values()})


CONVOLVED = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "to_q", "proj_in")
SPATIAL = ("resnets.0.conv1", "resnets.0.conv2", "samplers.0.conv")
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def _sd1(kind: Callable[[Tensor, int], tuple[dict[str, Tensor], Tensor]], ends: tuple[str, ...] = CONVOLVED) -> Writer:
    return lambda base: composed(kind, kohya(base, ends, ""), base)


KINDS = (
    Kind("kohya: LoRA", "sd1", sd1_plain),
    Kind("kohya: text encoder of transformers 5", "sd1", lambda base: plain(kohya(base, text="lora_te_"), base)),
    Kind("kohya: lora_te1 on one encoder", "sd1", lambda base: plain(kohya(base, text="lora_te1_text_model_"), base)),
    Kind("kohya: LoCon", "sd1", _sd1(lora)),
    Kind("kohya: SDXL, every sort of layer", "sdxl", lambda base: plain(kohya_xl_text(base), base)),
    Kind("SGM: diffusion_model.input_blocks, SDXL", "sdxl",
         lambda base: plain(kohya_xl(base, "diffusion_model.", True), base)),
    Kind("SGM: diffusion_model.input_blocks, SD 1", "sd1",
         lambda base: plain({("unet", "down_blocks.1.resnets.0.conv1"): "diffusion_model.input_blocks.3.0.in_layers.2",
                             ("unet", "up_blocks.0.upsamplers.0.conv"): "diffusion_model.output_blocks.1.2.conv"},
                            base)),
    Kind("diffusers: lora_A", "sd1", lambda base: plain(prefixed("unet.", base), base, alpha=False,
                                                        ends=(".lora_A.weight", ".lora_B.weight"))),
    Kind("diffusers: .lora.down", "sd1", lambda base: plain(prefixed("unet.", base), base, alpha=False,
                                                            ends=(".lora.down.weight", ".lora.up.weight"))),
    Kind("diffusers: processors, lora_linear_layer", "sd1", scripts),
    Kind("diffusers: alpha_pattern, first match", "sd1", first_match),
    Kind("diffusers: saved again, ^", "sd1", saved_again),
    Kind("diffusers: patterns of transformers 4", "sd1", text_patterns),
    Kind("peft: adapter_config.json", "sd1", peft_folder),
    Kind("peft: base_model.model, .default", "sd1",
         lambda base: plain(prefixed("base_model.model.", base), base, alpha=False,
                            ends=(".lora_A.default.weight", ".lora_B.default.weight")), noted="adapter_config.json"),
    Kind("peft: bare names", "sd1", lambda base: plain(prefixed("", base), base, alpha=False,
                                                       ends=(".lora_A.weight", ".lora_B.weight"))),
    Kind("lycoris: lycoris_ names", "sd1",
         lambda base: composed(lora, {key: "lycoris_" + name.replace(".", "_") for key, name in
                                      prefixed("", base).items()}, base)),
    Kind("LoCon with a middle factor", "sd1", _sd1(locon_mid, SPATIAL)),
    Kind("LoHa", "sd1", _sd1(loha)),
    Kind("LoHa of a rank whose square exceeds the layer", "sd1", _sd1(partial(loha, rank=12))),
    Kind("LoHa, Tucker", "sd1", _sd1(partial(loha, tucker=True), SPATIAL)),
    Kind("LoKr", "sd1", _sd1(lokr)),
    Kind("LoKr, full matrices", "sd1", _sd1(partial(lokr, full=True))),
    Kind("LoKr, both of low rank", "sd1", _sd1(partial(lokr, first=True))),
    Kind("LoKr, full and low rank", "sd1", _sd1(partial(lokr, first=True, full=True))),
    Kind("LoKr, Tucker", "sd1", _sd1(partial(lokr, tucker=True), SPATIAL)),
    Kind("DoRA of outputs", "sd1", _sd1(partial(dora, lora, 0))),
    Kind("DoRA of inputs", "sd1", _sd1(partial(dora, lora, 1))),
    Kind("DoRA of inputs, SDXL", "sdxl", lambda base: composed(partial(dora, lora, 1), kohya_xl(base), base)),
    Kind("LoHa, DoRA of inputs", "sd1", _sd1(partial(dora, loha, 1))),
    Kind("LoKr, DoRA of outputs", "sd1", _sd1(partial(dora, lokr, 0))),
    *(Kind(str(dtype).removeprefix("torch."), "sd1", lambda base, dtype=dtype: plain(kohya(base), base, dtype=dtype))
      for dtype in (torch.bfloat16, torch.float16, *FLOAT8)),
    Kind("FLUX.2: diffusion_model, lora_A", "klein", lambda base: flux2(base, outside=True)),
    Kind("FLUX.2: kohya and musubi-tuner", "klein",
         lambda base: flux2(base, prefix="lora_unet_", underscores=True, outside=True)),
    Kind("FLUX.2: diffusers' names", "klein",
         lambda base: plain(prefixed("transformer.", base, "transformer", ("",)), base, alpha=False,
                            ends=(".lora_A.weight", ".lora_B.weight"))),
    Kind("FLUX.2: LoKr on fused layers", "klein", partial(flux2, kind=lokr)),
    Kind("FLUX.2: DoRA of outputs on fused layers", "klein", partial(flux2, kind=partial(dora, lora, 0))),
    Kind("FLUX.2: DoRA of inputs on fused layers", "klein", partial(flux2, kind=partial(dora, lora, 1))),
    Kind("beside: a bundled embedding", "sd1",
         partial(with_more, sd1_plain, {"bundle_emb.cr7d.string_to_param.*": torch.zeros(2, 32)}), noted="bundle_emb"),
    Kind("beside: changes of norms", "sd1",
         partial(with_more, sd1_plain, {"lora_unet_conv_norm_out.w_norm": torch.zeros(32)}), noted="norms and biases"),
    Kind("beside: a second text encoder", "sd1",
         partial(with_more, sd1_plain, {f"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_{way}.weight":
                                        torch.zeros(2, 2) for way in ("down", "up")}), noted="lora_te2"),
    Kind("refused: a number that is not finite", "sd1", without_a_number, "not finite"),
    Kind("refused: an infinite number in half precision", "sd1", infinite_halves, "not finite"),
    Kind("refused: magnitudes of another length", "sd1", wrong_magnitudes, "magnitudes"),
    Kind("refused: another base's layers", "sd1", lambda base: Written(
        {f"lora_unet_double_blocks_0_img_attn_proj.lora_{way}.weight": torch.zeros(2, 2) for way in ("down", "up")}),
         "no layer of this base"),
    Kind("refused: OFT", "sd1", partial(of_kind, "oft_blocks"), "OFT"),
    Kind("refused: (IA)^3", "sd1", partial(of_kind, "on_input"), "(IA)^3"),
    Kind("refused: full difference", "sd1", partial(of_kind, "diff"), "full difference"),
    Kind("refused: GLoRA", "sd1", partial(of_kind, "a1.weight"), "GLoRA"),
    Kind("refused: a checkpoint", "sd1", lambda base: Written({"cond_stage_model.x.weight": torch.zeros(2)}),
         "no LoRA"),
)  # fmt: skip


def prediction(base: BaseModel, denoiser: Any, rows: int = 1) -> Tensor:
    """What the denoiser predicts for noise and a prompt, the same in each of `rows` rows."""
    latents = random(3, 1, *base.latent_shape(tiny.SIDE, tiny.SIDE)).expand(rows, -1, -1, -1)
    with torch.no_grad():
        conditioning = base.encode_prompts(["a man"] * rows)
        return base.predict(denoiser, latents, torch.full((rows,), 500), conditioning)


@contextmanager
def merged(base: BaseModel, weights: Mapping[tuple[str, str], Tensor]) -> Iterator[None]:
    """Within, the base has these weights."""
    own = {key: base.adaptable[key[0]].get_submodule(key[1]).weight for key in weights}
    before = {key: weight.detach().clone() for key, weight in own.items()}
    for key, weight in own.items():
        weight.data.copy_(weights[key])
    try:
        yield
    finally:
        for key, weight in own.items():
            weight.data.copy_(before[key])


@dataclass(frozen=True)
class Outcome:
    """What became of a file."""

    error: float = math.nan
    """Of the prediction, relative to what the adapter changes."""
    refusal: str = ""
    notes: tuple[str, ...] = ()


def outcome(kind: Kind, base: BaseModel, folder: Path) -> Outcome:
    """Write a file of this kind, import it, and compare what the base predicts with it."""
    written = kind.write(base)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.beside.items():
        (folder / name).write_text(text)
    file = folder / "theirs.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in written.tensors.items()}, file, written.metadata or None)
    try:
        found = import_lora(base, file, imported_facts(base, "style"), folder / "ours" / FILE)
    except UserError as error:
        return Outcome(refusal=sentence(error))
    attached = Attached(base)
    plain_prediction = prediction(base, base.unet)
    adapter = [(folder / "ours", 1.0)]
    # Alone, when changed copies of the weights are used, and in a batch with a row without an adapter.
    answers = []
    for rows in ([adapter], [adapter, []]):
        with attached.applied([attached.checked(row) for row in rows]) as denoiser:
            answers.append(prediction(base, denoiser, len(rows))[:1])
    with merged(base, written.merged):
        wanted = prediction(base, base.unet)
    change = (wanted - plain_prediction).norm()
    return Outcome(max(float((ours - wanted).norm() / change) for ours in answers), notes=found.notes)


DRAWN = (
    "LoKr", "LoKr, full matrices", "LoHa", "DoRA of outputs", "DoRA of inputs", "FLUX.2: kohya and musubi-tuner",
)  # fmt: skip
"""The kinds that are drawn."""


def drawings(kind: Kind, base: BaseModel, folder: Path) -> tuple[Image.Image, Image.Image, Image.Image]:
    """A picture drawn with the imported file, the same with the merged weights, and the same without an adapter."""
    outcome(kind, base, folder)
    ours = draw(base, Attached(base), tiny.asked(folder / "ours"))[0].image
    with merged(base, kind.write(base).merged):
        reference = draw(base, Attached(base), tiny.asked())[0].image
    return ours, reference, draw(base, Attached(base), tiny.asked())[0].image


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures side by side, three times as large."""
    side = 3 * tiny.SIDE
    whole = Image.new("RGB", (side * len(pictures), side))
    for number, picture in enumerate(pictures):
        whole.paste(picture.resize((side, side), Image.Resampling.NEAREST), (side * number, 0))
    return whole


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=Path, help="folder for pictures: imported, merged by hand, no adapter")
    pictures = parser.parse_args().drawings
    precision.compute_dtype = lambda device: torch.float32  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        bases = {family: tiny.load(tiny.save(family, Path(folder) / family)) for family in ("sd1", "sdxl", "klein")}
        for number, kind in enumerate(KINDS):
            found = outcome(kind, bases[kind.family], Path(folder) / str(number))
            result = "refused" if found.refusal else "right" if found.error <= LIMIT else "WRONG"
            told = found.refusal or f"{found.error:.1e}"
            if pictures and kind.name in DRAWN:
                pictures.mkdir(parents=True, exist_ok=True)
                name = re.sub(r"\W+", "-", kind.name)
                sheet(drawings(kind, bases[kind.family], Path(folder) / f"drawn-{number}")).save(
                    pictures / f"{name}.png"
                )
            print(f"{kind.name:<48} {kind.family:<6} {result:<8} {told} {' '.join(found.notes)}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
