"""Which numbers to compute with, chosen at run time from the device.

CUDA: bfloat16 where the card has it, else float16 (training then wants a scaler). CPU: bfloat16 where the processor
has the instructions, else float32. On an AVX512-BF16 processor with torch 2.13, matrix products and convolutions of the
embedded U-Net's shapes ran at 200 GFLOP/s a core in bfloat16 and at 100 in float32, backward passes included.
"""

from contextlib import AbstractContextManager, nullcontext

import torch


def best_device() -> torch.device:
    """CUDA where there is one, Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """The fastest dtype that `device` trains and draws well in."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else torch.float32


def resting_dtype(device: torch.device) -> torch.dtype:
    """What weights that only stand there are kept in: as they are computed with on CUDA, float32 elsewhere."""
    return compute_dtype(device) if device.type == "cuda" else torch.float32


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> AbstractContextManager[object]:
    """Compute in `dtype`, by default `compute_dtype(device)`, as far as torch deems it safe; float32 stays as it is."""
    dtype = dtype or compute_dtype(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
