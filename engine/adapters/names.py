"""The names of a base's layers in adapter files of other programs.

A file's key is a layer's name and an ending. Programs write names with dots or underscores, with prefixes for the parts
of a model, and number a U-Net's blocks in diffusers' way or in that of the first Stable Diffusion code (SGM). All of
them are compared with underscores alone, as kohya's scripts write them.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from engine.adapters.applied import plain_name
from engine.bases.base import BaseModel

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

FLUX2_OUTSIDE = {
    "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}  # fmt: skip
"""FLUX.2's layers outside its blocks."""

FLUX2_SWAPPED = "norm_out.linear"
"""The layer whose outputs are scale and shift here, and shift and scale in FLUX.2's own code (`swap_scale_shift` in
diffusers/loaders/single_file_utils.py)."""

SGM_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
"""The layers of a ResNet block in SGM's naming."""

SGM_OUTSIDE = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "conv_norm_out": "out.0",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
"""A U-Net's layers outside its blocks in SGM's naming."""

OLD_TEXT_ATTENTION = {
    "self_attn_q_proj": "self_attn_to_q", "self_attn_k_proj": "self_attn_to_k", "self_attn_v_proj": "self_attn_to_v",
    "self_attn_out_proj": "self_attn_to_out",
}  # fmt: skip
"""A text encoder's attention in older files of diffusers (`DIFFUSERS_OLD_TO_PEFT` in its state_dict_utils.py)."""

DENOISER_PREFIXES = (
    "unet", "transformer", "lora_unet", "lora_transformer", "diffusion_model", "model_diffusion_model", "lycoris",
    "base_model_model", "base_model_model_unet", "base_model_model_transformer", "",
)  # fmt: skip
"""What precedes a denoiser's layers: diffusers', kohya's and OneTrainer's, ComfyUI's and ai-toolkit's, lycoris-lora's,
peft's and none."""

TEXT_PREFIXES = {
    0: ("text_encoder", "lora_te", "lora_te1", "clip_l_transformer", "text_encoders_clip_l_transformer",
        "text_encoders_clip_h_transformer"),
    1: ("text_encoder_2", "lora_te2", "clip_g_transformer", "text_encoders_clip_g_transformer"),
}  # fmt: skip
"""What precedes the layers of the first and of the second text encoder."""

ANY_TEXT_PREFIXES = ("lycoris", "base_model_model", "")
"""What precedes the layers of any text encoder."""


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
            if theirs := flux2_name(name):
                names[part, name] = f"diffusion_model.{theirs}"
        elif part == "unet":
            theirs = sgm_name(name, base.unet.config) if base.family.name == "sdxl" else name
            names[part, name] = "lora_unet_" + theirs.replace(".", "_")
        else:
            start = {"text_encoder_2": "lora_te2"}.get(part, "lora_te1" if len(base.text_encoders) > 1 else "lora_te")
            names[part, name] = f"{start}_{with_text_model(name)}".replace(".", "_")
    return names


def with_text_model(name: str) -> str:
    """The name of a text encoder's layer as transformers 4 has it. Programs on transformers 5, where some encoders have
    no `text_model`, remove it (`_load_lora_into_text_encoder` in diffusers/loaders/lora_base.py)."""
    return name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"


def flux2_name(name: str) -> str | None:
    """A transformer layer's name in FLUX.2's own code; None for one that is fused there."""
    if block := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name):
        theirs = (FLUX2_SINGLE if block[1] else FLUX2).get(block[3])
        return theirs and f"{'single' if block[1] else 'double'}_blocks.{block[2]}.{theirs}"
    return FLUX2_OUTSIDE.get(name)


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


def sgm_name(name: str, config: Any) -> str:
    """A U-Net layer's name in SDXL's own code and kohya's scripts, which number input, middle and output blocks.

    Args:
        name: diffusers' name.
        config: the U-Net's.
    """
    layers = config.layers_per_block
    match name.split("."):
        case ["down_blocks", level, "downsamplers", "0", *_]:
            return f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.op"
        case ["up_blocks", level, "upsamplers", "0", *_]:
            attends = "Attn" in config.up_block_types[int(level)]
            return f"output_blocks.{int(level) * (layers + 1) + layers}.{1 + attends}.conv"
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
            return SGM_OUTSIDE.get(name, name)
    if block == "resnets":
        rest = [SGM_RESNET.get(rest[0], rest[0]), *rest[1:]]
    return ".".join([start, *map(str, indices), *rest])


class FileNames:
    """Finds the layers of a base by the names that they have in files."""

    def __init__(self, base: BaseModel) -> None:
        self._by_part: dict[str, dict[str, tuple[Layer, ...]]] = {part: {} for part in base.adaptable}
        self._prefixes: list[tuple[str, str]] = []
        for layer in layers_of(base):
            part, name = layer
            own = self._by_part[part]
            names = _denoiser_names(base, name) if part == base.family.denoiser else _text_names(name)
            own |= {other.replace(".", "_"): (layer,) for other in names}
        for name, several in fused_foreign_names(base).items():
            fused = name.removeprefix("diffusion_model.").replace(".", "_")
            self._by_part[base.family.denoiser][fused] = several
        self._prefixes += [(prefix, base.family.denoiser) for prefix in DENOISER_PREFIXES]
        for number, part in enumerate(part for part in base.adaptable if part != base.family.denoiser):
            self._prefixes += [(prefix, part) for prefix in (*TEXT_PREFIXES.get(number, ()), *ANY_TEXT_PREFIXES)]

    def candidates(self, name: str) -> Iterator[tuple[Layer, ...]]:
        """The layers that a name in a file may mean, the likeliest first; several layers where it is a fused one."""
        plain = canonical(name)
        for prefix, part in self._prefixes:
            start = f"{prefix}_" if prefix else ""
            if plain.startswith(start) and (found := self._by_part[part].get(plain[len(start) :])):
                yield found

    def elsewhere(self, name: str) -> bool:
        """Whether this is a name of a model's part that the base does not have, or that cannot have adapters here."""
        starts = {prefix for prefixes in TEXT_PREFIXES.values() for prefix in prefixes}
        own = {prefix for prefix, part in self._prefixes if prefix and part in self._by_part}
        others = starts - own | {
            "text_encoder_3",
            "lora_te3",
            "text_encoders",
            "vae",
            "first_stage_model",
            "bundle_emb",
        }
        return canonical(name).startswith(tuple(f"{other}_" for other in others))


def canonical(name: str) -> str:
    """A layer's name in a file with underscores alone, without the attention processors of diffusers' older files."""
    return name.replace(".processor", "").replace(".base_layer", "").replace(".", "_")


def _denoiser_names(base: BaseModel, name: str) -> list[str]:
    names = [name, name.removesuffix(".0") if name.endswith("to_out.0") else name]
    if base.family.denoiser == "unet":
        names.append(sgm_name(name, base.unet.config))
    elif theirs := flux2_name(name):
        names.append(theirs)
    return names


def _text_names(name: str) -> list[str]:
    bare = name.removeprefix("text_model.")
    names = [name, bare, f"text_model.{bare}"]
    for new, old in OLD_TEXT_ATTENTION.items():
        names += [other.replace(".", "_").replace(new, old) for other in names if new in other.replace(".", "_")]
    return names
