"""A base model in one file, as the sites that share them have it: the original layout, read from safetensors alone."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from engine.adapters import Attached
from engine.base import BaseModel
from engine.errors import InputError
from engine.exchange import in_blocks
from engine.generation import draw
from tests.engine.tiny import asked, assert_same, load

OUTSIDE = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "conv_norm_out": "out.0",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip

OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj", "self_attn": "attn", "final_layer_norm": "ln_final",
}  # fmt: skip


def open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's weights as OpenCLIP has them, whose queries, keys and values are one matrix."""
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        key = key.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            key = key.replace(ours, theirs)
        if projected := re.match(r"(.+\.attn\.)([qkv])_proj\.(weight|bias)", key):
            if projected[2] == "q":
                qkv = [state[f"text_model.{_back(projected[1])}{which}_proj.{projected[3]}"] for which in "qkv"]
                named[f"{projected[1]}in_proj_{projected[3]}"] = torch.cat(qkv)
        elif key == "text_projection.weight":
            named["text_projection"] = tensor.T
        else:
            named[key] = tensor
    return named


def _back(start: str) -> str:
    return start.replace("transformer.resblocks", "encoder.layers").replace("attn.", "self_attn.")


def original(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline) -> dict[str, Tensor]:
    """The weights under the names of CompVis' or Stability's own code."""
    named: dict[str, Tensor] = {}
    layers = pipeline.unet.config.layers_per_block
    for key, tensor in pipeline.unet.state_dict().items():
        name, _, end = key.rpartition(".")
        if sampler := re.match(r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.conv", name):
            level = int(sampler[2])
            if sampler[1] == "down":
                theirs = f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
            else:
                attends = pipeline.unet.config.up_block_types[level].startswith("Cross")
                theirs = f"output_blocks.{level * (layers + 1) + layers}.{2 if attends else 1}.conv"
        else:
            theirs = OUTSIDE.get(name) or in_blocks(name, layers)
        named[f"model.diffusion_model.{theirs}.{end}"] = tensor
    levels = len(pipeline.vae.config.block_out_channels)
    for key, tensor in pipeline.vae.state_dict().items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "attentions" in key:
            key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            key = key.replace("to_out.0", "proj_out").replace("to_q", "q").replace("to_k", "k").replace("to_v", "v")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        named[f"first_stage_model.{key}"] = tensor
    second = getattr(pipeline, "text_encoder_2", None)
    start = "conditioner.embedders.0." if second else "cond_stage_model."
    for key, tensor in pipeline.text_encoder.state_dict().items():
        named[f"{start}transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    if second:
        for key, tensor in open_clip(second.state_dict()).items():
            named[f"conditioner.embedders.1.model.{key}"] = tensor
    return {key: tensor.contiguous() for key, tensor in named.items()}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_single_file_draws_what_its_folder_draws(folders, family: str, tmp_path: Path, exact) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders(family), dtype=torch.float32)
    save_file(original(pipeline), tmp_path / "model.safetensors")
    # The configurations lie beside it, without weights; from the hub they would be fetched.
    for file in folders(family).rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            copy = tmp_path / "model" / file.relative_to(folders(family))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    base, folder = load(tmp_path / "model.safetensors"), load(folders(family))
    assert base.family.name == family
    assert_same(draw(base, Attached(base), asked())[0].image, draw(folder, Attached(folder), asked())[0].image)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, name: str) -> None:
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (opened,))

    torch.save(Trap(), tmp_path / name)
    with pytest.raises(InputError, match="base_unusable"):
        BaseModel.load(str(tmp_path / name))
    assert not opened.exists()
