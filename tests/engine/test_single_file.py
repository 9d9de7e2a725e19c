"""A base model in one file, as the sites that share them have it: the original layout, read from safetensors alone."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, Flux2KleinPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from engine.adapters.adapters import Attached
from engine.adapters.names import FLUX2, FLUX2_FUSED, FLUX2_OUTSIDE, FLUX2_SINGLE, sgm_name
from engine.bases.base import BaseModel, plain_parameters
from engine.drawing.drawing import draw
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine.tiny import asked, assert_same, load

OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj", "self_attn": "attn", "final_layer_norm": "ln_final",
}  # fmt: skip


def open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's weights as OpenCLIP has them, whose queries, keys and values are one matrix."""
    named: dict[str, Tensor] = {}
    state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    for key, tensor in state.items():
        for ours, theirs in OPEN_CLIP.items():
            key = key.replace(ours, theirs)
        if projected := re.match(r"(.+\.attn\.)([qkv])_proj\.(weight|bias)", key):
            if projected[2] == "q":
                qkv = [state[f"{_back(projected[1])}{which}_proj.{projected[3]}"] for which in "qkv"]
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
    for key, tensor in pipeline.unet.state_dict().items():
        name, _, end = key.rpartition(".")
        theirs = sgm_name(name, pipeline.unet.config)
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
    if pipeline.text_encoder.config.hidden_act == "gelu":  # OpenCLIP's, as in Stable Diffusion 2.x
        return {key: tensor.contiguous() for key, tensor in named.items()} | {
            f"{start}model.{key}": tensor.contiguous()
            for key, tensor in open_clip(pipeline.text_encoder.state_dict()).items()
        }
    for key, tensor in pipeline.text_encoder.state_dict().items():
        named[f"{start}transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    if second:
        for key, tensor in open_clip(second.state_dict()).items():
            named[f"conditioner.embedders.1.model.{key}"] = tensor
    return {key: tensor.contiguous() for key, tensor in named.items()}


KLEIN_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm", "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm", "attn.norm_added_k": "txt_attn.norm.key_norm",
}  # fmt: skip
KLEIN_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}


def original_klein(pipeline: Flux2KleinPipeline) -> dict[str, Tensor]:
    """The transformer's weights under the names of FLUX.2's own code, which has nothing else in its file."""
    named: dict[str, Tensor] = {}
    state = pipeline.transformer.state_dict()
    for key, tensor in state.items():
        name, _, end = key.rpartition(".")
        if name == "norm_out.linear":
            scale, shift = tensor.chunk(2)
            named[f"final_layer.adaLN_modulation.1.{end}"] = torch.cat([shift, scale])
        elif block := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name):
            start = f"{'single' if block[1] else 'double'}_blocks.{block[2]}."
            norms, plain = (KLEIN_SINGLE_NORMS, FLUX2_SINGLE) if block[1] else (KLEIN_NORMS, FLUX2)
            if block[3] in norms:
                named[f"{start}{norms[block[3]]}.scale"] = tensor
            elif block[3] in plain:
                named[f"{start}{plain[block[3]]}.{end}"] = tensor
            for theirs, ours in FLUX2_FUSED.items():
                if block[3] == ours[0]:
                    several = [state[key.replace(ours[0], part)] for part in ours]
                    named[f"{start}{theirs}.{end}"] = torch.cat(several)
        else:
            named[f"{FLUX2_OUTSIDE[name]}.{end}"] = tensor
    assert sum(tensor.numel() for tensor in named.values()) == sum(tensor.numel() for tensor in state.values())
    return {key: tensor.contiguous() for key, tensor in named.items()}


def beside(folder: Path, file: Path, weights: frozenset[str] = frozenset()) -> None:
    """Lay what the file does not hold beside it: the configurations, and these parts' weights."""
    for source in folder.rglob("*"):
        part = source.relative_to(folder)
        if source.is_file() and (source.suffix != ".safetensors" or part.parts[0] in weights):
            copy = file.with_suffix("") / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_single_file_draws_what_its_folder_draws(folders, family: str, tmp_path: Path, exact) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders(family), dtype=torch.float32)
    save_file(original(pipeline), tmp_path / "model.safetensors")
    # From the hub the configurations would be fetched.
    beside(folders(family), tmp_path / "model.safetensors")
    base, folder = load(tmp_path / "model.safetensors"), load(folders(family))
    assert base.family.name == family and base.schedule.prediction == folder.schedule.prediction
    assert (base.schedule.prediction == "v_prediction") == (family == "sd2")
    assert_same(draw(base, Attached(base), asked())[0].image, draw(folder, Attached(folder), asked())[0].image)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_of_klein_is_its_transformer(folders, prefix: str, tmp_path: Path, exact) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders("klein"), dtype=torch.float32)
    file = tmp_path / "model.safetensors"
    save_file({prefix + key: tensor for key, tensor in original_klein(pipeline).items()}, file)
    beside(folders("klein"), file, frozenset(("text_encoder", "vae")))
    base = load(file)
    assert base.family.name == "klein"
    ours, theirs, untrained = base.unet.state_dict(), pipeline.transformer.state_dict(), base.original_weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert all(torch.equal(untrained(key), theirs[key]) for key in dict(plain_parameters(base.unet)))
    folder = load(folders("klein"))
    assert_same(draw(base, Attached(base), asked())[0].image, draw(folder, Attached(folder), asked())[0].image)


@pytest.mark.parametrize(("more", "said"), [({}, "other sizes"), ({"img_in.weight_scale": torch.ones(1)}, "quantised")])
def test_another_flux_is_refused_before_anything_is_fetched(folders, more, said: str, tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders("klein"), dtype=torch.float32)
    file = tmp_path / "model.safetensors"
    save_file(original_klein(pipeline) | more, file)
    if more:
        beside(folders("klein"), file, frozenset(("text_encoder", "vae")))
    with pytest.raises(UserError) as refused:
        load(file)
    assert re.search(said, sentence(refused.value))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, name: str) -> None:
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (opened,))

    torch.save(Trap(), tmp_path / name)
    with pytest.raises(UserError, match="base_unusable"):
        BaseModel.load(str(tmp_path / name))
    assert not opened.exists()
