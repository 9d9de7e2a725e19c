"""Opening a base model: from the hub, a folder or a single file. Weights are read from safetensors alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, Flux2Transformer2DModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from engine.bases.interfaces import Denoiser, Pipeline
from engine.tensor_files import read_dtypes, read_shapes, read_tensors

SINGLE_FILES = {"StableDiffusionXLPipeline": "conditioner.embedders.1.", "StableDiffusionPipeline": "cond_stage_model."}
"""Pipelines that single files hold in the original layout, recognised by the names of their text encoders' weights."""

HALVES: Mapping[str, torch.dtype] = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Half-precision dtypes under safetensors' names."""

KLEIN = ("", "model.diffusion_model.")
"""Prefixes of the transformer's names in files of FLUX.2: none in its makers' own, one in ComfyUI's."""

KLEIN_MARK = "single_stream_modulation.lin.weight"
"""A weight that every FLUX.2 has, and no other model."""

KLEIN_SIZE = (3072, 128)
"""Shape of the weight `img_in` in klein 4B; in klein 9B and FLUX.2 [dev] it differs."""

KLEIN_HUB = "black-forest-labs/FLUX.2-klein-4B"
KLEIN_BASE_HUB = "black-forest-labs/FLUX.2-klein-base-4B"
"""Where the other parts come from that a single file, of the distilled or of the base transformer, does not hold."""


def open_pipeline(source: str) -> Pipeline:
    """The diffusers pipeline of a folder, a hub id or a single .safetensors file on the CPU.

    Parts from a folder keep the dtype that they are stored in, so that none is ever in memory twice. All others are
    float32. A single file has no configurations and no tokenizer: they come from a folder of the same name next to the
    file, or from the hub, where diffusers recognises the model by the file's layout.

    Raises:
        OSError: there is no such model, or it has no safetensors.
        ValueError: its layout is not supported.
    """
    for progress in (diffusers_logging, transformers_logging):
        progress.disable_progress_bar()
    path = Path(source)
    if path.is_file():
        return _open_file(path)
    # The class that the source names decides; a safety checker is not loaded where there is one.
    config = DiffusionPipeline.load_config(source)
    optional = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in config else {}
    dtypes = {name: stored_dtype(path / name) for name in config if (path / name).is_dir()}
    dtypes["default"] = torch.float32
    pipeline: Pipeline = DiffusionPipeline.from_pretrained(source, dtype=dtypes, use_safetensors=True, **optional)
    return pipeline


def stored_dtype(folder: Path) -> torch.dtype:
    """The one dtype of the weights in `folder`; float32 where they have several, or there are none."""
    found = set[str]()
    for file in folder.glob("*.safetensors"):
        found |= read_dtypes(file)
    return HALVES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def open_denoiser(source: str, like: Denoiser, name: str) -> Denoiser:
    """The denoiser of the same source alone, on the CPU, as `open_pipeline` returns it.

    Args:
        like: the denoiser that was opened before; its class reads the weights.
        name: the denoiser's name among the pipeline's components.
    Raises:
        OSError, ValueError: as `open_pipeline`.
    """
    path = Path(source)
    if path.is_file():
        names = _names(path)
        if (prefix := _klein_prefix(names)) is not None:
            return _klein_transformer(path, names, prefix, _klein_other_parts(path, names, prefix))
        inside: Denoiser = _open_file(path).components[name]  # one file holds all parts
        return inside
    model: Any = type(like)
    dtype = stored_dtype(path / name)
    denoiser: Denoiser = model.from_pretrained(source, subfolder=name, dtype=dtype, use_safetensors=True)
    return denoiser


def _open_file(path: Path) -> Pipeline:
    names = _names(path)
    folder = path.with_suffix("")
    config = {"config": str(folder)} if folder.is_dir() else {}
    for pipeline, prefix in SINGLE_FILES.items():
        if any(name.startswith(prefix) for name in names):
            optional = {"safety_checker": None} if pipeline == "StableDiffusionPipeline" else {}
            opened: Pipeline = getattr(diffusers, pipeline).from_single_file(
                str(path), dtype=torch.float32, **config, **optional
            )
            return opened
    if (start := _klein_prefix(names)) is not None:
        other_parts = _klein_other_parts(path, names, start)
        transformer = _klein_transformer(path, names, start, other_parts)
        klein: Pipeline = DiffusionPipeline.from_pretrained(
            other_parts, transformer=transformer, dtype=torch.float32, use_safetensors=True
        )
        return klein
    raise ValueError("its single-file layout is not supported")


def _names(path: Path) -> dict[str, tuple[int, ...]]:
    """The names of the file's weights, with their shapes."""
    if path.suffix != ".safetensors":
        raise ValueError("a single file must be .safetensors; other files can run code when they are opened")
    try:
        return read_shapes(path)
    except SafetensorError as error:
        raise ValueError(f"no safetensors: {error}") from error


def _klein_prefix(names: dict[str, tuple[int, ...]]) -> str | None:
    """The prefix of the transformer's names, if the file is one of FLUX.2."""
    return next((prefix for prefix in KLEIN if prefix + KLEIN_MARK in names), None)


def _klein_other_parts(path: Path, names: dict[str, tuple[int, ...]], prefix: str) -> str:
    """The folder or hub id with the parts that the file does not hold."""
    folder = path.with_suffix("")
    if folder.is_dir():
        return str(folder)
    if names.get(f"{prefix}img_in.weight") != KLEIN_SIZE:
        raise ValueError("of FLUX.2 only [klein] 4B is known here, and this file has other sizes")
    # The file does not tell whether it was distilled; its makers' names of the files do.
    return KLEIN_BASE_HUB if "base" in path.stem.lower() else KLEIN_HUB


def _klein_transformer(path: Path, names: dict[str, tuple[int, ...]], prefix: str, other_parts: str) -> Denoiser:
    """The transformer in the file, float32 on the CPU.

    Args:
        other_parts: the folder or hub id whose configuration the transformer has.
    """
    own = [name for name in names if name.startswith(prefix)]
    if any(not name.endswith((".weight", ".bias", ".scale")) for name in own):
        raise ValueError("its transformer is quantised; take the file in bfloat16")
    weights = {name.removeprefix(prefix): tensor for name, tensor in read_tensors(path, prefix).items()}
    transformer: Denoiser = Flux2Transformer2DModel.from_single_file(
        weights, config=other_parts, subfolder="transformer", dtype=torch.float32
    )
    return transformer
