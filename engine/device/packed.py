"""Layers on a CPU whose weights lie as oneDNN computes with them.

A convolution in bfloat16 otherwise casts and reorders its weights at every call, and reorders what passes it, too: the
channels of one place beside each other, then those of one channel again. For few rows that takes longer than what it
computes. On an AMX processor a step of the embedded U-Net with two rows took 42 ms of one core, 25 ms with packed
weights, and 18 with channels innermost all the way. The numbers are the same. Packed weights are a copy, so they last
only as long as a drawing, or as a small base is learned on; other devices take no such ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.device import precision

Forward = Callable[[Tensor], Tensor]
Back = Callable[[Tensor, torch.Size], Tensor]
"""The gradient of what came in, from that of what came out and the shape of what came in."""


def packable(layer: nn.Conv2d) -> bool:
    """Whether there are packed convolutions of this kind."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class Packed:
    """A convolution in bfloat16 with a packed weight."""

    def __init__(self, weight: Callable[[], Tensor], bias: Tensor | None, layer: nn.Conv2d, groups: int) -> None:
        """
        Args:
            weight: gives the weight (out, in / groups, k, k) in any dtype when it is to be packed.
            layer: whose strides and paddings this convolution has.
        """
        self._weight, self._bias, self._groups = weight, None if bias is None else bias.to(torch.bfloat16), groups
        self._window = tuple(layer.padding), layer.stride, layer.dilation
        # How oneDNN wants a weight depends on what is to pass it: one packed for nothing in particular can be 20 times
        # slower.
        self._by_shape: dict[torch.Size, Tensor] = {}

    def __call__(self, features: Tensor) -> Tensor:
        """(n, out, h', w') with channels innermost, of (n, in, h, w) in any order and dtype."""
        padding, stride, dilation = self._window
        if features.shape not in self._by_shape:
            weight = self._weight().to(torch.bfloat16).contiguous()
            self._by_shape[features.shape] = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, stride, dilation, self._groups, features.shape
            )
        # Unlike mkldnn_convolution, this leaves the channels innermost.
        answer: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features.to(torch.bfloat16, memory_format=torch.channels_last), self._by_shape[features.shape], self._bias,
            padding, stride, dilation, self._groups, "none", [], "",
        )  # fmt: skip
        return answer


class _Through(torch.autograd.Function):
    """A layer that does not learn, with a way back to what passes it."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, there: Forward, back: Back) -> Tensor:
        ctx.shape, ctx.back = features.shape, back
        return there(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0], ctx.shape), None, None


@contextmanager
def packed(module: nn.Module, device: torch.device, learning: bool = False) -> Iterator[None]:
    """Within, convolutions and linear layers of `module` compute with packed weights, where `device` does in bfloat16.

    Its weights stay as they are meanwhile.

    Args:
        learning: something else learns through them; those that learn themselves stay as they are.
    """
    layers, before = list[nn.Conv2d | nn.Linear | nn.GroupNorm](), dict[nn.Module, Any]()
    if device.type == "cpu" and precision.compute_dtype(device) == torch.bfloat16:
        layers = [
            part for part in module.modules()
            if type(part) is nn.GroupNorm
            or (((type(part) is nn.Linear and part.weight.dtype != torch.bfloat16)
                or (type(part) is nn.Conv2d and packable(part)))
            and not (learning and part.weight.requires_grad))
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


def _forward(layer: nn.Conv2d | nn.Linear | nn.GroupNorm, learning: bool) -> Forward:
    if isinstance(layer, nn.GroupNorm):
        # Torch 2.13 takes nine times as long with channels innermost; both copies together take as long again.
        own = layer.forward
        return lambda features: own(features.contiguous())
    there, back = _convolution(layer, learning) if isinstance(layer, nn.Conv2d) else _linear(layer, learning)
    if back is None:
        return there
    return lambda features: _Through.apply(features.to(torch.bfloat16), there, back)  # type: ignore[no-untyped-call]


def _linear(layer: nn.Linear, learning: bool) -> tuple[Forward, Back | None]:
    bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def passed(weight: Tensor, bias: Tensor | None) -> Forward:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16).contiguous())
        return lambda features: torch.ops.mkldnn._linear_pointwise(
            features.to(torch.bfloat16), packed, bias, "none", [], ""
        )

    there = passed(layer.weight, bias)
    if not learning:
        return there, None
    back = passed(layer.weight.T, None)
    return there, lambda gradient, shape: back(gradient)


def _convolution(layer: nn.Conv2d, learning: bool) -> tuple[Forward, Back | None]:
    weight = layer.weight.detach()
    there = Packed(lambda: weight, layer.bias, layer, layer.groups)
    if not learning:
        return there, None
    if layer.stride == layer.dilation == (1, 1) and layer.groups == 1 and layer.padding == tuple(
        (side - 1) // 2 for side in layer.kernel_size if side % 2
    ):  # fmt: skip
        # What goes back through such a one is a convolution with the mirrored weight.
        mirrored = Packed(lambda: weight.transpose(0, 1).flip(2, 3), None, layer, 1)
        return there, lambda gradient, shape: mirrored(gradient)

    def back(gradient: Tensor, shape: torch.Size) -> Tensor:
        half = weight.to(torch.bfloat16)
        # Of what came in only the shape matters to its own gradient.
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradient, half.new_empty(shape), half, None, layer.stride, layer.padding, layer.dilation, False, [0, 0],
            layer.groups, [True, False, False],
        )  # fmt: skip
        return found[0]

    return there, back
