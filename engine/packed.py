"""Layers on a CPU whose weights lie as oneDNN computes with them.

A convolution in bfloat16 otherwise casts and reorders its weights at every call, which for few rows takes longer than
what it computes: on an AMX processor a step of the embedded U-Net with two rows took 42 ms of one core, and 29 ms
packed. A linear layer's weight is cast once. The numbers are the same. Packed weights are a copy, so they last only as
long as a drawing, or as a small base is learned on; other devices take no such ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import precision


def pack(weight: Tensor, layer: nn.Conv2d, groups: int = 1) -> Tensor:
    """A weight (out, in / groups, k, k) in bfloat16 as `convolved` computes fastest with it; others as they are."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or isinstance(layer.padding, str):
        return weight
    packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(
        weight.detach().contiguous().to_mkldnn(), list(layer.padding), list(layer.stride), list(layer.dilation), groups
    )
    return packed


def convolved(features: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d, groups: int = 1) -> Tensor:
    """The convolution of (n, in, h, w) with another weight and bias, but the strides and paddings of `layer`.

    It computes in the dtype of `weight`, whatever autocast says.
    """
    features = features.to(weight.dtype)
    settings: tuple[Any, ...] = (layer.padding, layer.stride, layer.dilation, groups)
    if weight.is_mkldnn:
        return torch.mkldnn_convolution(features, weight, bias, *settings)
    with torch.autocast(features.device.type, enabled=False):
        return F.conv2d(features, weight, bias, layer.stride, layer.padding, layer.dilation, groups)


@dataclass(frozen=True)
class _Ready:
    """A convolution whose weight does not learn: as it is, packed, and packed for the way back if that is one too."""

    weight: Tensor
    there: Tensor
    back: Tensor | None
    bias: Tensor | None
    layer: nn.Conv2d

    @classmethod
    def of(cls, layer: nn.Conv2d, learning: bool) -> "_Ready":
        weight = layer.weight.detach().to(torch.bfloat16)
        bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)
        # What goes back through such a one is a convolution with the mirrored weight.
        even = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
        even = even and layer.padding == tuple((side - 1) // 2 for side in layer.kernel_size if side % 2)
        mirrored = pack(weight.transpose(0, 1).flip(2, 3), layer) if learning and even else None
        return cls(weight, pack(weight, layer, layer.groups), mirrored, bias, layer)

    def drawn(self, features: Tensor) -> Tensor:
        """The layer's forward, without a way back."""
        return convolved(features, self.there, self.bias, self.layer, self.layer.groups)

    def learned_through(self, features: Tensor) -> Tensor:
        """The layer's forward, with a way back to `features` alone."""
        return _Through.apply(features.to(torch.bfloat16), self)  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class _Linear:
    """A linear layer whose weight does not learn."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, layer: nn.Linear) -> "_Linear":
        return cls(
            layer.weight.detach().to(torch.bfloat16), None if layer.bias is None else layer.bias.detach().bfloat16()
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features.to(torch.bfloat16), self.weight, self.bias)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, ready: _Ready) -> Tensor:
        ctx.shape, ctx.ready = features.shape, ready
        return ready.drawn(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        ready, layer = ctx.ready, ctx.ready.layer
        if ready.back is not None:
            return convolved(gradients[0], ready.back, None, layer), None
        # Of what came in only the shape matters to its own gradient.
        gradient, _, _ = torch.ops.aten.convolution_backward(
            gradients[0], ready.weight.new_empty(ctx.shape), ready.weight, None, layer.stride, layer.padding,
            layer.dilation, False, [0, 0], layer.groups, [True, False, False],
        )  # fmt: skip
        return gradient, None


@contextmanager
def packed(module: nn.Module, device: torch.device, learning: bool = False) -> Iterator[None]:
    """Within, convolutions and linear layers of `module` compute with packed weights, where `device` does in bfloat16.

    Args:
        learning: something else learns through them; those that learn themselves stay as they are.
    """
    layers, before = list[nn.Conv2d | nn.Linear](), dict[nn.Module, Any]()
    if device.type == "cpu" and precision.compute_dtype(device) == torch.bfloat16:
        layers = [
            part for part in module.modules()
            if (type(part) is nn.Linear and part.weight.dtype != torch.bfloat16)
            or (type(part) is nn.Conv2d and part.padding_mode == "zeros"
                and not (learning and isinstance(part.padding, str)))
            if not (learning and part.weight.requires_grad)
        ]  # fmt: skip
    try:
        for layer in layers:
            before[layer] = vars(layer).get("forward")
            vars(layer)["forward"] = _forward(layer, learning)
        yield
    finally:
        for part, forward in before.items():
            if forward is None:
                vars(part).pop("forward", None)
            else:
                vars(part)["forward"] = forward


def _forward(layer: nn.Conv2d | nn.Linear, learning: bool) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return _Linear.of(layer).forward
    ready = _Ready.of(layer, learning)
    return ready.learned_through if learning else ready.drawn
