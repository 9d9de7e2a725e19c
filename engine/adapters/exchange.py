"""Import and export of adapters: diffusers' names, and those of kohya's scripts, the WebUI and ComfyUI.

Both directions use one table of each layer's name in the other programs. A name that is not in the table is refused,
never skipped. Only safetensors files are read.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.adapters.adapters import LORA_METADATA, TOKEN_PREFIX, AdapterFacts, AdapterKind, below, read_file, write
from engine.adapters.applied import plain_name, scale_of, weight_of
from engine.adapters.lora import config_of
from engine.bases.base import BaseModel
from engine.tensor_files import read_metadata, read_tensors
from storage.atomic import atomic_write
from storage.errors import UserError

Format = Literal["diffusers", "kohya"]

ROLES = {
    ".lora_A.weight": "down", ".lora_down.weight": "down", ".lora_B.weight": "up", ".lora_up.weight": "up",
    ".alpha": "alpha", ".dora_scale": "magnitude", ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}  # fmt: skip
"""The endings of the keys in all programs' files, and which tensor of a LoRA each holds."""

Layer = tuple[str, str]
"""A part of the base, such as "unet", and the name of a layer in it."""

FLUX2 = {
    "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2", "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2",
}  # fmt: skip
FLUX2_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
FLUX2_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
"""The transformer's layers in FLUX.2's own naming, which ComfyUI reads; three of diffusers' layers are one there."""

SDXL_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
"""The layers of a ResNet block in SDXL's own naming."""


def layers_of(base: BaseModel) -> dict[Layer, nn.Module]:
    """Every layer that can have a LoRA."""
    return {
        (part, plain_name(name)): layer
        for part, module in base.adaptable.items()
        for name, layer in module.named_modules()
        if "lora_" not in name and isinstance(getattr(layer, "base_layer", layer), nn.Linear | nn.Conv2d)
    }


def foreign_names(base: BaseModel) -> dict[Layer, str]:
    """Each layer's name in kohya's scripts, the WebUI and ComfyUI; `fused_foreign_names` has those that are fused."""
    names = {}
    for part, name in layers_of(base):
        if part == "transformer":
            if block := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name):
                blocks = "single_blocks" if block[1] else "double_blocks"
                theirs = (FLUX2_SINGLE if block[1] else FLUX2).get(block[3])
                if theirs:
                    names[part, name] = f"diffusion_model.{blocks}.{block[2]}.{theirs}"
        elif part == "unet":
            theirs = sdxl_block_name(name, base.unet.config.layers_per_block) if base.family.name == "sdxl" else name
            names[part, name] = "lora_unet_" + theirs.replace(".", "_")
        else:
            start = {"text_encoder_2": "lora_te2"}.get(part, "lora_te1" if len(base.text_encoders) > 1 else "lora_te")
            names[part, name] = f"{start}_text_model_" + name.removeprefix("text_model.").replace(".", "_")
    return names


def fused_foreign_names(base: BaseModel) -> dict[str, tuple[Layer, ...]]:
    """Layers that the other programs fuse: their name there, and the layers here whose outputs it concatenates."""
    if base.family.denoiser != "transformer":
        return {}
    return {
        f"diffusion_model.double_blocks.{number}.{theirs}": tuple(
            ("transformer", f"transformer_blocks.{number}.{name}") for name in ours
        )
        for number in range(len(list(base.unet.get_submodule("transformer_blocks").children())))
        for theirs, ours in FLUX2_FUSED.items()
    }


def sdxl_block_name(name: str, layers: int) -> str:
    """A U-Net layer's name in SDXL's own code and kohya's scripts, which number input, middle and output blocks.

    Args:
        name: diffusers' name.
        layers: the U-Net's `layers_per_block`.
    """
    match name.split("."):
        case ["down_blocks", level, "resnets" | "attentions" as block, number, *rest]:
            indices = [1 + int(level) * (layers + 1) + int(number), int(block == "attentions")]
            start = "input_blocks"
        case ["up_blocks", level, "resnets" | "attentions" as block, number, *rest]:
            indices = [int(level) * (layers + 1) + int(number), int(block == "attentions")]
            start = "output_blocks"
        case ["mid_block", "resnets" | "attentions" as block, number, *rest]:
            indices = [1 if block == "attentions" else 2 * int(number)]
            start = "middle_block"
        case _:
            return name
    if block == "resnets":
        rest = [SDXL_RESNET.get(rest[0], rest[0]), *rest[1:]]
    return ".".join([start, *map(str, indices), *rest])


def export(base: BaseModel, adapter: Path, form: Format, out: Path) -> int:
    """Write the LoRA in `adapter` to `out` under the names of `form`. Returns its number of layers.

    Raises:
        UserError: `missing_avatar`, `bad_adapter`, `not_a_lora` for full DreamBooth, or `word_stays` for a learned
            token embedding in a format that cannot hold one.
    """
    facts, tensors, config = read_file(adapter)
    if facts.method != "lora":
        raise UserError("not_a_lora", folder=adapter)
    facts.check_base(base)
    known = layers_of(base)
    pairs = {layer: found for layer in known if (found := _pair(tensors, config, layer))}
    if form == "diffusers":
        _save(tensors, out, {LORA_METADATA: json.dumps(config)})
        return len(pairs)
    if any(key.startswith(TOKEN_PREFIX) for key in tensors):
        raise UserError("word_stays", folder=adapter)
    names, written = foreign_names(base), dict[str, Tensor]()
    for layer, (down, up, scale, magnitude) in pairs.items():
        if layer[0] == "transformer":
            if layer in names:
                written |= {f"{names[layer]}.lora_A.weight": down, f"{names[layer]}.lora_B.weight": up * scale}
            continue
        written |= {
            f"{names[layer]}.lora_down.weight": down,
            f"{names[layer]}.lora_up.weight": up,
            f"{names[layer]}.alpha": torch.tensor(scale * len(down)),
        }
        if magnitude is not None:
            written[f"{names[layer]}.dora_scale"] = magnitude.reshape(-1, *[1] * (down.ndim - 1))
    for name, several in fused_foreign_names(base).items():
        if any(layer in pairs for layer in several):
            down, up = _fused([pairs.get(layer) for layer in several], [known[layer] for layer in several])
            written |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    _save(written, out, {"ss_network_module": "networks.lora"})
    return len(pairs)


Pair = tuple[Tensor, Tensor, float, Tensor | None]
"""A layer's LoRA: A (r, in, ...), B (out, r, ...), the scale of B A, and DoRA's magnitudes (out,)."""


def _pair(tensors: Mapping[str, Tensor], config: Mapping[str, Any], layer: Layer) -> Pair | None:
    part, name = layer
    down = tensors.get(f"{part}.{name}.lora_A.weight")
    if down is None:
        return None
    own = below(config, f"{part}.")
    magnitude = tensors.get(f"{part}.{name}.lora_magnitude_vector")
    if magnitude is None:
        magnitude = tensors.get(f"{part}.{name}.lora_magnitude_vector.weight")
    return down, tensors[f"{part}.{name}.lora_B.weight"], scale_of(own, name, len(down)), magnitude


def _fused(pairs: list[Pair | None], layers: list[nn.Module]) -> tuple[Tensor, Tensor]:
    """A and B of one fused layer: the A of these layers concatenated, their B as a block diagonal, scales included.

    Args:
        pairs: of each layer; None without a LoRA.
    """
    downs = [pair[0] for pair in pairs if pair]
    ups = [
        pair[1] * pair[2] if pair else torch.zeros(weight_of(layer).shape[0], 0, dtype=downs[0].dtype)
        for pair, layer in zip(pairs, layers, strict=True)
    ]
    return torch.cat(downs), torch.block_diag(*ups)


def _save(tensors: Mapping[str, Tensor], out: Path, metadata: dict[str, str]) -> None:
    with atomic_write(out) as draft:
        save_file(
            {key: tensor.half().contiguous() for key, tensor in tensors.items()}, draft, {"format": "pt"} | metadata
        )


def import_lora(base: BaseModel, file: Path, facts: AdapterFacts, out: Path) -> int:
    """Write another program's LoRA file as an adapter of this engine. Returns its number of layers.

    Raises:
        UserError: `no_file`, or `bad_adapter` where the file is no LoRA for this base.
    """
    if not file.is_file():
        raise UserError("no_file", file=file)
    try:
        tensors, config = read_tensors(file), json.loads(read_metadata(file).get(LORA_METADATA, "{}"))
        tokens = {key: tensors.pop(key) for key in list(tensors) if key.startswith(TOKEN_PREFIX)}
        pairs = _known(base, tensors, config)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("bad_adapter", folder=file, reason=str(error)[:160]) from error
    kept: dict[str, Tensor] = dict(tokens)
    configs: dict[str, Any] = {}
    for (part, name), (down, up, scale, magnitude) in pairs.items():
        kept |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up * scale}
        if magnitude is not None:
            kept[f"{part}.{name}.lora_magnitude_vector"] = magnitude
    for part in {part for part, _ in pairs}:
        ranks = {name: len(pair[0]) for (owner, name), pair in pairs.items() if owner == part}
        own = config_of(ranks, ranks, dora=any(pairs[part, name][3] is not None for name in ranks))
        configs |= {f"{part}.{key}": value for key, value in own.items()}
    write(kept, facts, out, {LORA_METADATA: json.dumps(configs)})
    return len(pairs)


def _known(base: BaseModel, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[Layer, Pair]:
    """The file's LoRA by layer of this base. Raises ValueError for an unknown key or a wrong shape."""
    layers = layers_of(base)
    aliases: dict[str, tuple[Layer, ...]] = dict(fused_foreign_names(base))
    elsewhere = foreign_names(base)
    for layer in layers:
        part, name = layer
        bare = name.removeprefix("text_model.")
        aliases |= {f"{part}.{name}": (layer,), f"{part}.{bare}": (layer,), f"{part}.text_model.{bare}": (layer,)}
        aliases[f"diffusion_model.{name}"] = (layer,)
        if part == "unet":
            aliases["lora_unet_" + name.replace(".", "_")] = (layer,)
        if layer in elsewhere:
            aliases[elsewhere[layer]] = (layer,)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        end = next((end for end in ROLES if key.endswith(end)), None)
        if end is None or key.removesuffix(end) not in aliases:
            raise ValueError(f"{key} belongs to no layer of this base")
        found.setdefault(key.removesuffix(end), {})[ROLES[end]] = tensor
    if not found:
        raise ValueError("it is empty")
    pairs: dict[Layer, Pair] = {}
    for name, own in found.items():
        if not {"down", "up"} <= own.keys():
            raise ValueError(f"{name} lacks a factor")
        fused = aliases[name]
        ups = own["up"].chunk(len(fused))
        for layer, up in zip(fused, ups, strict=True):
            weight, down = weight_of(layers[layer]), own["down"]
            if down.shape[1:] != weight.shape[1:] or (up.shape[0], up.shape[1]) != (weight.shape[0], down.shape[0]):
                raise ValueError(f"{name} has other sizes in this base")
            settings = {key.removeprefix(f"{layer[0]}."): value for key, value in config.items()}
            scale = float(own["alpha"]) / len(down) if "alpha" in own else scale_of(settings, layer[1], len(down))
            magnitude = own.get("magnitude")
            pairs[layer] = down.clone(), up, scale, None if magnitude is None else magnitude.flatten()
    return pairs


def imported_facts(base: BaseModel, kind: AdapterKind, token: str = "", noun: str = "") -> AdapterFacts:
    """The facts of an adapter that another program trained."""
    return AdapterFacts(token, noun, "lora", base.source, {"imported": True}, 0, kind, base.fingerprint)
