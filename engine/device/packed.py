"""Layers on a CPU whose weights are packed: kept in bfloat16, in the order in which oneDNN computes with them.

Without packing, a bfloat16 convolution casts and reorders its weight at every call, and reorders the features that pass
it: to channels_last and back. For few rows that takes longer than the convolution itself. On an AMX processor a step of
the embedded U-Net with two rows took 42 ms of one core, 25 ms with packed weights, and 18 ms with channels_last between
layers as well. The results are the same. Packed weights are copies, so they last only while a picture is drawn, or
while a small base is trained on. Other devices do not use them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from engine.device import precision, torch_private
from engine.device.submodules import submodules

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
    """Within: the convolutions and linear layers in `module` compute with packed weights.

    Does nothing unless `device` is a CPU that computes in bfloat16. The layers' own weights stay as they are; each
    layer has a replaced `forward` meanwhile.

    Args:
        learning: gradients must pass through the layers. Layers that are trained themselves are left alone.
    """
    forwards: Iterable[tuple[nn.Module, Forward]] = ()
    if device.type == "cpu" and precision.compute_dtype(device) == torch.bfloat16:
        forwards = _forwards(_layers(module), learning)
    before = list[tuple[dict[str, Any], Forward | None]]()
    try:
        for layer, forward in forwards:
            # Straight into the layer's attributes: a module's own __setattr__ takes ten times as long.
            attributes = vars(layer)
            before.append((attributes, attributes.get("forward")))
            attributes["forward"] = forward
        yield
    finally:
        for attributes, own in before:
            if own is None:
                del attributes["forward"]
            else:
                attributes["forward"] = own


@dataclass(frozen=True)
class _Layers:
    """The layers of a module that compute faster among packed layers."""

    norms: Sequence[nn.GroupNorm]
    weighted: Sequence[nn.Linear | nn.Conv2d]
    """Those whose weights are packed."""


_found: WeakKeyDictionary[nn.Module, tuple[Mapping[str, nn.Module], _Layers]] = WeakKeyDictionary()
"""For each module its submodules when its layers were looked for, and the layers."""


def _layers(module: nn.Module) -> _Layers:
    """The layers within `module` to compute differently. Looked for once until its submodules change."""
    parts = submodules(module)
    if module not in _found or _found[module][0] is not parts:
        norms = [part for part in parts.values() if type(part) is nn.GroupNorm]
        weighted = [part for part in parts.values() if isinstance(part, nn.Linear | nn.Conv2d) and _packs(part)]
        _found[module] = parts, _Layers(norms, weighted)
    return _found[module][1]


def _packs(layer: nn.Linear | nn.Conv2d) -> bool:
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and packable(layer))


def _forwards(layers: _Layers, learning: bool) -> Iterator[tuple[nn.Module, Forward]]:
    """The layers, and their `forward` among packed layers, but for those that are as fast or trained themselves."""
    for norm in layers.norms:
        yield norm, _norm(norm.forward)
    # Linear layers in bfloat16 are as fast as they are.
    chosen: list[tuple[nn.Linear | nn.Conv2d, Tensor, Tensor | None]] = [
        (layer, weight.detach(), layer.bias)
        for layer in layers.weighted
        if ((weight := layer.weight).dtype != torch.bfloat16 or isinstance(layer, nn.Conv2d))
        and not (learning and weight.requires_grad)
    ]
    for (layer, weight, _), bias in zip(chosen, _halved([bias for *_, bias in chosen]), strict=True):
        if isinstance(layer, nn.Conv2d):
            forward, backward = _convolution(layer, weight, bias, learning)
        else:
            forward, backward = _linear(weight, bias, learning)
        yield layer, forward if backward is None else _frozen(forward, backward)


def _norm(forward: Forward) -> Forward:
    # Torch 2.13 takes nine times as long in channels_last. The two copies together take as long as the norm.
    return lambda features: forward(features.contiguous())


def _frozen(forward: Forward, backward: Backward) -> Forward:
    return lambda features: _Frozen.apply(features.to(torch.bfloat16), forward, backward)  # type: ignore[no-untyped-call]


def _halved(biases: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The biases in bfloat16, cast as one tensor: casting dozens of small ones takes longer than all else here."""
    some = [bias for bias in biases if bias is not None]
    if not some:
        return list(biases)
    halved = iter(torch.cat(some).detach().to(torch.bfloat16).split([len(bias) for bias in some]))
    return [None if bias is None else next(halved) for bias in biases]


def _linear(weight: Tensor, bias: Tensor | None, learning: bool) -> tuple[Forward, Backward | None]:
    def multiply(weight: Tensor, bias: Tensor | None) -> Forward:
        product = torch_private.packed_linear(weight.to(torch.bfloat16), bias)
        return lambda features: product(features.to(torch.bfloat16))

    forward = multiply(weight, bias)
    if not learning:
        return forward, None
    backward = multiply(weight.T, None)
    return forward, lambda gradient, shape: backward(gradient)


def _convolution(
    layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, learning: bool
) -> tuple[Forward, Backward | None]:
    forward = Packed(lambda: weight, bias, layer, layer.groups)
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
