"""Layers on a CPU whose weights are packed: kept in bfloat16, in the order in which oneDNN computes with them.

Without packing, a bfloat16 convolution casts and reorders its weight at every call, and reorders the features that pass
it: to channels_last and back. For few rows that takes longer than the convolution itself. On an AMX processor a step of
the embedded U-Net with two rows took 42 ms of one core, 25 ms with packed weights, and 18 ms with channels_last between
layers as well. The results are the same. Packed weights are copies, so they last only while a picture is drawn, or
while a small base is trained on. Other devices do not use them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from engine.device import precision, torch_private

Forward = Callable[[Tensor], Tensor]
Backward = Callable[[Tensor, torch.Size], Tensor]
"""The gradient of a layer's input, from the gradient of its output and the shape of its input."""


def packable(layer: nn.Conv2d) -> bool:
    """Whether this kind of convolution can be packed."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class Packed:
    """A bfloat16 convolution with a packed weight."""

    def __init__(self, weight: Callable[[], Tensor], bias: Tensor | None, layer: nn.Conv2d, groups: int) -> None:
        """
        Args:
            weight: returns the weight (out, in / groups, k, k), in any dtype, when it is to be packed.
            bias: (out,), or None.
            layer: the convolution whose padding, stride and dilation this one has.
        """
        self._weight, self._bias, self._groups = weight, None if bias is None else bias.to(torch.bfloat16), groups
        self._window: tuple[Any, Any, Any] = (tuple(layer.padding), layer.stride, layer.dilation)
        # oneDNN's order depends on the shape of the features. A weight packed for no shape in particular can be 20
        # times slower.
        self._by_shape: dict[torch.Size, Forward] = {}

    def __call__(self, features: Tensor) -> Tensor:
        """(n, out, h', w') in channels_last, from (n, in, h, w) in any memory format and dtype."""
        convolve = self._by_shape.get(features.shape)
        if convolve is None:
            weight = self._weight().to(torch.bfloat16).contiguous()
            convolve = torch_private.packed_convolution(weight, self._bias, *self._window, self._groups, features.shape)
            self._by_shape[features.shape] = convolve
        return convolve(features.to(torch.bfloat16, memory_format=torch.channels_last))


class _Frozen(torch.autograd.Function):
    """A frozen layer: autograd passes gradients through it to its input."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, forward: Forward, backward: Backward) -> Tensor:
        ctx.shape, ctx.input_gradient = features.shape, backward
        return forward(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.input_gradient(gradients[0], ctx.shape), None, None


@contextmanager
def packed(module: nn.Module, device: torch.device, learning: bool = False) -> Iterator[None]:
    """Within: the convolutions and linear layers of `module` compute with packed weights.

    Does nothing unless `device` is a CPU that computes in bfloat16. The layers' own weights stay as they are; each
    layer has a replaced `forward` meanwhile.

    Args:
        learning: gradients must pass through the layers. Layers that are trained themselves are left alone.
    """
    layers = list[nn.Module]()
    if device.type == "cpu" and precision.compute_dtype(device) == torch.bfloat16:
        layers = [part for part in module.modules() if _improves(part, learning)]
    before = dict[nn.Module, Forward | None]()
    try:
        for layer in layers:
            before[layer] = vars(layer).get("forward")
            _set_forward(layer, _forward(layer, learning))
        yield
    finally:
        for layer, forward in before.items():
            _set_forward(layer, forward)


def _improves(part: nn.Module, learning: bool) -> bool:
    """Whether this layer computes faster among packed layers."""
    if type(part) is nn.GroupNorm:
        return True
    if type(part) is nn.Linear:
        packs = part.weight.dtype != torch.bfloat16
    else:
        packs = type(part) is nn.Conv2d and packable(part)
    return packs and not (learning and part.weight.requires_grad)


def _set_forward(layer: Any, forward: Forward | None) -> None:
    """Replace the layer's `forward`; None restores its class's."""
    if forward is not None:
        layer.forward = forward
    elif "forward" in vars(layer):
        del layer.forward


def _forward(layer: nn.Module, learning: bool) -> Forward:
    if isinstance(layer, nn.GroupNorm):
        # Torch 2.13 takes nine times as long in channels_last. The two copies together take as long as the norm.
        own = layer.forward
        return lambda features: own(features.contiguous())
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    forward, backward = _convolution(layer, learning) if isinstance(layer, nn.Conv2d) else _linear(layer, learning)
    if backward is None:
        return forward
    return lambda features: _Frozen.apply(features.to(torch.bfloat16), forward, backward)  # type: ignore[no-untyped-call]


def _linear(layer: nn.Linear, learning: bool) -> tuple[Forward, Backward | None]:
    def multiply(weight: Tensor, bias: Tensor | None) -> Forward:
        product = torch_private.packed_linear(weight.detach().to(torch.bfloat16), bias)
        return lambda features: product(features.to(torch.bfloat16))

    forward = multiply(layer.weight, None if layer.bias is None else layer.bias.detach().to(torch.bfloat16))
    if not learning:
        return forward, None
    backward = multiply(layer.weight.T, None)
    return forward, lambda gradient, shape: backward(gradient)


def _convolution(layer: nn.Conv2d, learning: bool) -> tuple[Forward, Backward | None]:
    weight = layer.weight.detach()
    forward = Packed(lambda: weight, layer.bias, layer, layer.groups)
    if not learning:
        return forward, None
    same_size = layer.padding == tuple((side - 1) // 2 for side in layer.kernel_size if side % 2)
    if layer.stride == layer.dilation == (1, 1) and layer.groups == 1 and same_size:
        # The gradient is then itself a convolution: with the mirrored weight, from out to in channels.
        mirrored = Packed(lambda: weight.transpose(0, 1).flip(2, 3), None, layer, 1)
        return forward, lambda gradient, shape: mirrored(gradient)

    def backward(gradient: Tensor, shape: torch.Size) -> Tensor:
        half = weight.to(torch.bfloat16)
        window = layer.stride, layer.padding, layer.dilation, layer.groups
        found: Tensor = conv2d_input(shape, half, gradient, *window)
        return found

    return forward, backward
