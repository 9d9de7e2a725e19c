"""Which numbers to compute with, chosen at run time from the device.

CUDA: bfloat16 where the card has it, else float16 (training then wants a scaler). CPU: bfloat16 where the processor
has the instructions, else float32. On an AVX512-BF16 processor with torch 2.13, matrix products and convolutions of the
embedded U-Net's shapes ran at 200 GFLOP/s a core in bfloat16 and at 100 in float32, backward passes included.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def best_device() -> torch.device:
    """CUDA where there is one, Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """The fastest dtype that `device` trains and draws well in."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _has_bfloat16() else torch.float32


def _has_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16 instructions."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def resting_dtype(device: torch.device) -> torch.dtype:
    """What weights that only stand there are kept in: as they are computed with on CUDA, float32 elsewhere."""
    return compute_dtype(device) if device.type == "cuda" else torch.float32


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> AbstractContextManager[object]:
    """Compute in `dtype`, by default `compute_dtype(device)`, as far as torch deems it safe; float32 stays as it is."""
    dtype = dtype or compute_dtype(device)
    if dtype == torch.float32:
        return nullcontext()
    # Threads would share the cache of weights that were cast, and each weight is used but once anyway.
    return torch.autocast(device.type, dtype, cache_enabled=False)


SHORT = 256
"""Places of a latent up to which `attention` is not fused. On the way back through 64 places in six heads of width 32,
ten rows, torch 2.13 took 9.6 ms fused in bfloat16 and 3.4 ms by steps (1.9 ms fused in float32, which autocast does not
let it choose); through 256 places in eight heads of width 40 both are alike, and beyond that by steps is far slower."""


def attention(device: torch.device, dtype: torch.dtype, places: int) -> AbstractContextManager[object]:
    """Learn from latents of `places` places with the attention that `device` goes back through soonest in `dtype`.

    Holds for the whole process, and must hold for the backward pass too: checkpointing computes attention there again.
    """
    by_steps = device.type == "cpu" and dtype == torch.bfloat16 and places <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if by_steps else nullcontext()
