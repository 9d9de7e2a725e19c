"""Opening a base model: from the hub, a folder or a single file. Weights are read from safetensors alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, Flux2Transformer2DModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import logging as transformers_logging

SINGLE_FILES = {"StableDiffusionXLPipeline": "conditioner.embedders.1.", "StableDiffusionPipeline": "cond_stage_model."}
"""Pipelines whose whole is one file in the original layout, told by the names of their text encoders' weights."""

HALVES: Mapping[str, torch.dtype] = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Half-precision dtypes under safetensors' names."""

KLEIN = ("", "model.diffusion_model.")
"""What precedes the transformer's names in files of FLUX.2: nothing in its makers' own, a prefix in ComfyUI's."""

KLEIN_MARK = "single_stream_modulation.lin.weight"
"""A weight that every FLUX.2 has, and no other model."""

KLEIN_SIZE = (3072, 128)
"""Sizes of the weight `img_in` in klein 4B; klein 9B and FLUX.2 [dev] have others."""

KLEIN_HUB = "black-forest-labs/FLUX.2-klein-4B"
KLEIN_BASE_HUB = "black-forest-labs/FLUX.2-klein-base-4B"
"""Where the parts are that a file of the distilled transformer, or of the other one, does not hold."""


def open_pipeline(source: str) -> Any:
    """The diffusers pipeline of a folder, a hub id or a single .safetensors file on the CPU.

    Parts of a folder have the dtype that they lie there in, so that none is ever held twice; all others are float32.

    A single file has no configurations and no tokenizer. They come from the folder beside it that bears its name, or
    from the hub, where diffusers knows the model that the file's layout is of.

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
    return DiffusionPipeline.from_pretrained(source, dtype=dtypes, use_safetensors=True, **optional)


def stored_dtype(folder: Path) -> torch.dtype:
    """The one dtype of the weights in `folder`; float32 where they have several, or there are none."""
    found = set[str]()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as reader:
            found |= {reader.get_slice(name).get_dtype() for name in reader.keys()}  # noqa: SIM118 (not a mapping)
    return HALVES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def open_denoiser(source: str, like: torch.nn.Module, name: str) -> Any:
    """The denoiser of the same source alone, on the CPU, as `open_pipeline` has it.

    Args:
        like: the denoiser that was loaded before; its class reads the weights.
        name: the denoiser's among the pipeline's components.
    Raises:
        OSError, ValueError: as `open_pipeline`.
    """
    path = Path(source)
    if path.is_file():
        names = _names(path)
        if (prefix := _klein_prefix(names)) is not None:
            return _klein_transformer(path, names, prefix, _klein_rest(path, names, prefix))
        return _open_file(path).components[name]  # one file holds all parts
    dtype = stored_dtype(path / name)
    return type(like).from_pretrained(source, subfolder=name, dtype=dtype, use_safetensors=True)  # type: ignore[attr-defined]


def _open_file(path: Path) -> Any:
    names = _names(path)
    beside = path.with_suffix("")
    config = {"config": str(beside)} if beside.is_dir() else {}
    for pipeline, prefix in SINGLE_FILES.items():
        if any(name.startswith(prefix) for name in names):
            optional = {"safety_checker": None} if pipeline == "StableDiffusionPipeline" else {}
            return getattr(diffusers, pipeline).from_single_file(str(path), dtype=torch.float32, **config, **optional)
    if (start := _klein_prefix(names)) is not None:
        rest = _klein_rest(path, names, start)
        return DiffusionPipeline.from_pretrained(
            rest, transformer=_klein_transformer(path, names, start, rest), dtype=torch.float32, use_safetensors=True
        )
    raise ValueError("no single-file layout that is known here")


def _names(path: Path) -> dict[str, tuple[int, ...]]:
    """The names of the file's weights with their sizes."""
    if path.suffix != ".safetensors":
        raise ValueError("a single file must be .safetensors; other files can run code when they are opened")
    try:
        with safe_open(path, "pt") as reader:
            return {name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"no safetensors: {error}") from error


def _klein_prefix(names: dict[str, tuple[int, ...]]) -> str | None:
    """What precedes the transformer's names if the file is of FLUX.2."""
    return next((prefix for prefix in KLEIN if prefix + KLEIN_MARK in names), None)


def _klein_rest(path: Path, names: dict[str, tuple[int, ...]], prefix: str) -> str:
    """The folder or hub id with the parts that the file does not hold."""
    beside = path.with_suffix("")
    if beside.is_dir():
        return str(beside)
    if names.get(f"{prefix}img_in.weight") != KLEIN_SIZE:
        raise ValueError("of FLUX.2 only [klein] 4B is known here, and this file has other sizes")
    # The file does not tell whether it was distilled; its makers' names of the files do.
    return KLEIN_BASE_HUB if "base" in path.stem.lower() else KLEIN_HUB


def _klein_transformer(path: Path, names: dict[str, tuple[int, ...]], prefix: str, rest: str) -> Any:
    """The transformer in the file, float32 on the CPU."""
    own = [name for name in names if name.startswith(prefix)]
    if any(not name.endswith((".weight", ".bias", ".scale")) for name in own):
        raise ValueError("its transformer is quantised; take the file in bfloat16")
    weights: dict[str, Tensor] = {}
    with safe_open(path, "pt") as reader:
        for name in own:
            weights[name.removeprefix(prefix)] = reader.get_tensor(name)
    return Flux2Transformer2DModel.from_single_file(weights, config=rest, subfolder="transformer", dtype=torch.float32)
