"""A base in eight bits where memory is short: linear layers rest as int8 and are widened while they compute.

Each output's weights are rounded to 127 steps of their own largest (absmax, as in LLM.int8(), arXiv 2208.07339, section
2.1), which halves what bfloat16 takes. Adapters stay in full precision beside them. Plain torch, so the same code runs
on every device.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 2**14
"""Weights of the smallest layer that is worth it."""

HEADROOM = 1.3
"""What drawing and a LoRA's training take beside the weights, as a factor: estimated, not measured on CUDA."""


class Int8Linear(nn.Linear):
    """A linear layer whose weight (out, in) rests as int8 with one float32 scale (out, 1) for each output."""

    scale_bits: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        del self.weight
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        # Float32 under the name of int32: a change of the module's dtype passes integers by, so the scale stays exact.
        self.register_buffer("scale_bits", scale.view(torch.int32))
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.widened().to(input.dtype), None if self.bias is None else self.bias.to(input.dtype))

    def widened(self) -> Tensor:
        """The weight in float32."""
        return self.weight * self.scale

    @property
    def scale(self) -> Tensor:
        """(out, 1), float32."""
        return self.scale_bits.view(torch.float32)


def quantise(module: nn.Module) -> int:
    """Turn the module's large linear layers into int8; the bytes that their weights take now."""
    total = 0
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST:
            owner, _, last = name.rpartition(".")
            small = Int8Linear(layer)
            setattr(module.get_submodule(owner), last, small)
            total += small.weight.numel()
    return total


def too_large(modules: Iterable[nn.Module], dtype: torch.dtype, free: int) -> bool:
    """Whether these parts in `dtype`, with what work on them takes, are more than `free` bytes."""
    wanted = sum(parameter.numel() for module in modules for parameter in module.parameters()) * dtype.itemsize
    return wanted * HEADROOM > free


def free_bytes(device: torch.device) -> int | None:
    """Free bytes of a CUDA device; None elsewhere, where the system swaps rather than fails."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
