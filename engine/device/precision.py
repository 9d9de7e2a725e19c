"""Which dtype to compute in, chosen at run time from the device.

CUDA: bfloat16 where the card has it, else float16 (training then wants a scaler). CPU: bfloat16 where the processor
has the instructions, else float32. On an AVX512-BF16 processor with torch 2.13, matrix products and convolutions of the
embedded U-Net's shapes ran at 200 GFLOP/s a core in bfloat16 and at 100 in float32, backward passes included.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

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
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _has_bfloat16() else torch.float32


@cache
def _has_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16 instructions."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def resting_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which frozen weights are kept: the compute dtype on CUDA, float32 elsewhere."""
    return compute_dtype(device) if device.type == "cuda" else torch.float32


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> AbstractContextManager[object]:
    """Compute in `dtype`, by default `compute_dtype(device)`, where torch deems that safe; float32 is no autocast."""
    dtype = dtype or compute_dtype(device)
    if dtype == torch.float32:
        return nullcontext()
    # Threads would share the cache of cast weights, and each weight is used only once in a forward pass.
    return torch.autocast(device.type, dtype, cache_enabled=False)


MAX_MATH_POSITIONS = 256
"""Positions of a latent up to which `attention` takes torch's unfused "math" kernel. The backward pass through 64
positions in six heads of width 32, ten rows, took 9.6 ms fused in bfloat16 and 3.4 ms unfused (torch 2.13; 1.9 ms in
float32, which autocast does not allow). With 256 positions in eight heads of width 40 both take the same time; with
more, unfused is far slower."""


def attention(device: torch.device, dtype: torch.dtype, positions: int) -> AbstractContextManager[object]:
    """Within: train with the attention kernel whose backward pass is fastest.

    It affects all threads of the process. The backward pass must be inside too: checkpointing recomputes attention.

    Args:
        dtype: the dtype that the model computes in.
        positions: of the largest latent, h w.
    """
    unfused = device.type == "cpu" and dtype == torch.bfloat16 and positions <= MAX_MATH_POSITIONS
    return sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext()
