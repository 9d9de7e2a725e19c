"""A base in eight bits where memory is short: linear layers are stored as int8 and dequantised while they compute.

The weights of each output are divided by their largest absolute value and rounded to 127 steps (absmax, as in
LLM.int8(), arXiv 2208.07339, section 2.1), which takes half the memory of bfloat16. Adapters stay in full precision.
It is plain torch, so the same code runs on every device.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 2**14
"""Smaller layers are not quantised, since they would save little."""

HEADROOM = 1.3
"""Memory for weights and work together, relative to the weights: estimated, not measured on CUDA."""


class Int8Linear(nn.Linear):
    """A linear layer whose weight (out, in) is int8, with one float32 scale (out, 1) for each output."""

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
        product: Tensor = _Product.apply(input, self.weight, self.scale)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def dequantised(self) -> Tensor:
        """The weight in float32."""
        return self.weight * self.scale

    @property
    def scale(self) -> Tensor:
        """(out, 1), float32."""
        return self.scale_bits.view(torch.float32)


class _Product(torch.autograd.Function):
    """input (..., in) times an int8 weight (out, in) with scales (out, 1).

    For the backward pass it keeps the int8 weight, and dequantises it again: autograd would keep the product's own
    copy, two to four times as large, of every layer.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(input, (weight * scale).to(input.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ (weight * scale).to(gradients[0].dtype), None, None


def quantise(module: nn.Module) -> int:
    """Turn the module's large linear layers into int8. Returns the bytes of their int8 weights."""
    total = 0
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST:
            owner, _, last = name.rpartition(".")
            small = Int8Linear(layer)
            setattr(module.get_submodule(owner), last, small)
            total += small.weight.numel()
    return total


def too_large(modules: Iterable[nn.Module], dtype: torch.dtype, free: int) -> bool:
    """Whether these modules in `dtype`, and drawing or LoRA training with them, need more than `free` bytes."""
    weights = sum(parameter.numel() for module in modules for parameter in module.parameters()) * dtype.itemsize
    return weights * HEADROOM > free


def free_bytes(device: torch.device) -> int | None:
    """Free bytes of a CUDA device; None elsewhere, where the system swaps instead of failing."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
