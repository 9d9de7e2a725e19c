"""Opening a base model: from the hub, a folder or a single file. Weights are read from safetensors alone."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

SINGLE_FILES = {"StableDiffusionXLPipeline": "conditioner.embedders.1.", "StableDiffusionPipeline": "cond_stage_model."}
"""Pipelines whose whole is one file in the original layout, told by the names of their text encoders' weights."""


def open_pipeline(source: str) -> Any:
    """The diffusers pipeline of a folder, a hub id or a single .safetensors file, float32 on the CPU.

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
    return DiffusionPipeline.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **optional)


def open_denoiser(source: str, like: torch.nn.Module, name: str) -> Any:
    """The denoiser of the same source alone, float32 on the CPU.

    Args:
        like: the denoiser that was loaded before; its class reads the weights.
        name: the denoiser's among the pipeline's components.
    Raises:
        OSError, ValueError: as `open_pipeline`.
    """
    path = Path(source)
    if path.is_file():
        return _open_file(path).components[name]  # one file holds all parts
    return type(like).from_pretrained(source, subfolder=name, dtype=torch.float32, use_safetensors=True)  # type: ignore[attr-defined]


def _open_file(path: Path) -> Any:
    if path.suffix != ".safetensors":
        raise ValueError("a single file must be .safetensors; other files can run code when they are opened")
    try:
        with safe_open(path, "pt") as reader:
            names = set(reader.keys())
    except SafetensorError as error:
        raise ValueError(f"no safetensors: {error}") from error
    beside = path.with_suffix("")
    config = {"config": str(beside)} if beside.is_dir() else {}
    for pipeline, prefix in SINGLE_FILES.items():
        if any(name.startswith(prefix) for name in names):
            optional = {"safety_checker": None} if pipeline == "StableDiffusionPipeline" else {}
            return getattr(diffusers, pipeline).from_single_file(str(path), dtype=torch.float32, **config, **optional)
    raise ValueError("no single-file layout that is known here")
