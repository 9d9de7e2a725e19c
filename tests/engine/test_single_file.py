"""A base model in one file, as the sites that share them have it: the original layout, read from safetensors alone."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
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
}  # fmt: skip


def original(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """The weights under the names of CompVis' own code."""
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
    for key, tensor in pipeline.text_encoder.state_dict().items():
        bare = key.removeprefix("text_model.")
        named[f"cond_stage_model.transformer.text_model.{bare}"] = tensor
    return {key: tensor.contiguous() for key, tensor in named.items()}


def test_a_single_file_draws_what_its_folder_draws(folders, tmp_path: Path, exact) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folders("sd1"), dtype=torch.float32)
    save_file(original(pipeline), tmp_path / "model.safetensors")
    # The configurations lie beside it, without weights; from the hub they would be fetched.
    for file in folders("sd1").rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            copy = tmp_path / "model" / file.relative_to(folders("sd1"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    base, folder = load(tmp_path / "model.safetensors"), load(folders("sd1"))
    assert base.family.name == "sd1"
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
