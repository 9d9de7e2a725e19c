"""Low-rank adapters on the rows of a batch: every row may wear its own, or several at once with a weight each.

An adapted layer answers W x + s B A x (LoRA, arXiv 2106.09685). What the low ranks add is a sum, so adapters worn
together are their factors side by side, and rows with different adapters are one batched product. What full DreamBooth
changed (`engine.deltas`) is worn the same way: its factors as a LoRA's, biases as vectors that are added, and each row
has norms with its own weights and biases. The layers' own weights stay as they are: hooks change their answers while a
`worn` context lasts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.quantised import Int8Linear

Adapter = Mapping[str, "Factors | Affine"]
"""What one adapter does to the layers of a part, by their plain names."""
Stack = Sequence[tuple[Adapter, float]]
"""What one row wears: adapters and their weights."""


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one layer."""

    down: Tensor
    """A: (r, in) for a linear layer, (r, in, k, k) for a convolution."""
    up: Tensor
    """s B: (out, r), the scale included."""
    gain: Tensor | None = None
    """(out,): by how much more the layer's own answer counts, in adapters that scale it (DoRA, arXiv 2402.09353)."""
    shift: Tensor | None = None
    """(out,), float32: what is added to the bias."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        return tuple(tensor for tensor in (self.down, self.up, self.gain, self.shift) if tensor is not None)


@dataclass(frozen=True)
class Affine:
    """What an adapter adds to a norm's weight and bias, each (channels,), float32."""

    weight: Tensor
    bias: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        return self.weight, self.bias


Norm = nn.GroupNorm | nn.LayerNorm | nn.RMSNorm
"""The layers that an `Affine` is for; the others, linear layers and convolutions, take `Factors`."""


def read(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    module: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Factors]:
    """The factors in a part's state dict under peft's names, on `device` in `dtype`.

    Args:
        config: peft's LoraConfig as JSON; without it the scale is 1, as diffusers takes it.
    Raises:
        ValueError: a key or shape that does not belong to `module`.
    """
    layers = {plain_name(name): layer for name, layer in module.named_modules() if "lora_" not in name}
    found: dict[str, Factors] = {}
    for key, down in tensors.items():
        name, dot, rest = key.rpartition(".lora_A.")
        if not dot:
            if not (".lora_B." in key or ".lora_magnitude_vector" in key):
                raise ValueError(f"{key} is no part of a LoRA")
            continue
        up = tensors.get(f"{name}.lora_B.{rest}")
        if up is None or name not in layers:
            raise ValueError(f"{name} is no layer of this base, or lacks a factor")
        layer = layers[name]
        weight = weight_of(layer)
        if down.shape[1:] != weight.shape[1:] or up.shape[0] != weight.shape[0] or up.shape[1] != down.shape[0]:
            raise ValueError(f"{name} has other sizes in this base")
        up = up.reshape(up.shape[0], -1).float() * scale_of(config, name, down.shape[0])
        magnitude = tensors.get(f"{name}.lora_magnitude_vector", tensors.get(f"{name}.lora_magnitude_vector.weight"))
        gain = None
        if magnitude is not None:
            moved = weight.float().cpu().flatten(1) + up @ down.float().flatten(1)
            share = magnitude.float().flatten() / moved.norm(dim=1)
            up, gain = up * share[:, None], share - 1
        found[name] = Factors(
            down.to(device, dtype), up.to(device, dtype), None if gain is None else gain.to(device, dtype)
        )
    return found


def plain_name(name: str) -> str:
    """A layer's name without what peft wraps around it."""
    return name.replace(".base_layer", "")


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's own weight, whether or not peft has wrapped it."""
    own: Any = getattr(layer, "base_layer", layer)
    return own.widened() if isinstance(own, Int8Linear) else own.weight.detach()


def scale_of(config: Mapping[str, Any], name: str, rank: int) -> float:
    """What B A is multiplied by on one layer, from peft's LoraConfig for its part; 1 without one."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if name == pattern or name.endswith(f".{pattern}"):
            alpha = value
    # rank-stabilised: arXiv 2312.03732
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


@contextmanager
def worn(module: nn.Module, rows: Sequence[Stack]) -> Iterator[None]:
    """Within, row n of every batch of len(rows) passes `module` with the adapters of rows[n].

    A batch of several times as many rows, as guidance makes them, wears them as often in the same order.
    """
    kinds: dict[tuple[tuple[int, float], ...], int] = {}
    stacks: list[Stack] = []
    numbers = []
    for stack in rows:
        key = tuple((id(adapter), weight) for adapter, weight in stack)
        if key not in kinds:
            kinds[key] = len(stacks)
            stacks.append(stack)
        numbers.append(kinds[key])
    names = {name for stack in stacks for adapter, _ in stack for name in adapter}
    handles = []
    try:
        for name, layer in list(module.named_modules()):
            if name not in names:
                continue
            hook: _Added | _Normed
            if isinstance(layer, Norm):
                hook = _Normed([_moved(stack, name, layer) for stack in stacks], numbers)
            else:
                hook = _Added(layer, [_together(stack, name) for stack in stacks], numbers)
            handles.append(layer.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _together(stack: Stack, name: str) -> Factors | None:
    """The adapters that a row wears on one layer, as one."""
    found = [(part, weight) for adapter, weight in stack if isinstance(part := adapter.get(name), Factors)]
    if not found:
        return None
    if len(found) == 1 and found[0][1] == 1:
        return found[0][0]
    return Factors(
        torch.cat([factors.down for factors, _ in found]),
        torch.cat([weight * factors.up for factors, weight in found], dim=1),
        _sum([weight * factors.gain for factors, weight in found if factors.gain is not None]),
        _sum([weight * factors.shift for factors, weight in found if factors.shift is not None]),
    )


def _sum(vectors: list[Tensor]) -> Tensor | None:
    return torch.stack(vectors).sum(0) if vectors else None


def _moved(stack: Stack, name: str, norm: Norm) -> Affine:
    """A norm's weight and bias, float32, with what a row's adapters add to them."""
    assert norm.weight is not None
    weight, own = norm.weight.detach().float(), getattr(norm, "bias", None)
    bias = torch.zeros_like(weight) if own is None else own.detach().float()
    for adapter, share in stack:
        if isinstance(part := adapter.get(name), Affine):
            weight, bias = weight + share * part.weight, bias + share * part.bias
    return Affine(weight, bias)


def _kinds_of(rows: Tensor, count: int) -> Tensor:
    """Which kind each of `count` rows is, int64 (count,): `rows` (n,), as often as they go into `count`."""
    times, rest = divmod(count, len(rows))
    if rest:
        raise ValueError(f"{count} rows are not a multiple of the {len(rows)} that wear adapters")
    return rows.repeat(times)


class _Normed:
    """The hook of one norm: each row's features under the row's own weight and bias.

    The norm is computed anew, in float32: a small change of a weight would be lost if it were added to an answer that
    bfloat16 has rounded.
    """

    def __init__(self, kinds: list[Affine], rows: list[int]) -> None:
        self._weight, self._bias = (torch.stack(vectors) for vectors in zip(*(k.tensors for k in kinds), strict=True))
        self._rows = torch.tensor(rows, device=self._weight.device)

    def __call__(self, norm: Any, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        features = inputs[0].float()
        kinds = _kinds_of(self._rows, len(features))
        if isinstance(norm, nn.GroupNorm):
            normal, shape = F.group_norm(features, norm.num_groups, eps=norm.eps), (-1, *[1] * (features.ndim - 2))
        else:
            function = F.layer_norm if isinstance(norm, nn.LayerNorm) else F.rms_norm
            normal, shape = function(features, norm.normalized_shape, eps=norm.eps), (*[1] * (features.ndim - 2), -1)
        weight, bias = (vectors[kinds].reshape(len(kinds), *shape) for vectors in (self._weight, self._bias))
        return (normal * weight + bias).to(answer.dtype)


class _Added:
    """The hook of one layer: what the rows' adapters add to its answer."""

    def __init__(self, layer: nn.Module, kinds: list[Factors | None], rows: list[int]) -> None:
        self._layer: Any = getattr(layer, "base_layer", layer)
        self._convolution = isinstance(self._layer, nn.Conv2d)
        self._only = kinds[0] if len(kinds) == 1 else None
        if self._only is None:
            some = next(factors for factors in kinds if factors is not None)
            rank = max(factors.down.shape[0] for factors in kinds if factors is not None)
            self._rows = torch.tensor(rows, device=some.down.device)
            # By kind, not by row: a full DreamBooth's factors are large.
            self._up = torch.stack([_padded(factors, some, rank).up for factors in kinds])  # (kinds, out, r)
            self._down = torch.stack([_padded(factors, some, rank).down for factors in kinds])  # (kinds, r, in...)
            self._gain = _stacked([None if factors is None else factors.gain for factors in kinds])
            self._shift = _stacked([None if factors is None else factors.shift for factors in kinds])

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        features = inputs[0]
        if self._only:
            added, gain, shift = self._shared(features, self._only), self._only.gain, self._only.shift
        else:
            kinds = _kinds_of(self._rows, len(features))
            added = self._by_row(features, self._down[kinds], self._up[kinds])
            gain, shift = (None if vectors is None else vectors[kinds] for vectors in (self._gain, self._shift))
        if gain is not None:
            own = answer if self._layer.bias is None else answer - self._along(self._layer.bias, answer)
            added = added + self._along(gain, answer) * own
        if shift is not None:
            added = added + self._along(shift, answer)
        # Rounded once, after the sum.
        return (answer + added).to(answer.dtype)

    def _shared(self, features: Tensor, factors: Factors) -> Tensor:
        if self._convolution:
            low = self._convolved(features, factors.down, 1)
            return torch.einsum("or,nrhw->nohw", factors.up, low.to(factors.up.dtype))
        return F.linear(F.linear(features.to(factors.down.dtype), factors.down), factors.up)

    def _by_row(self, features: Tensor, down: Tensor, up: Tensor) -> Tensor:
        if self._convolution:
            # One group of channels for each row.
            rows, rank = down.shape[:2]
            low = self._convolved(features.reshape(1, -1, *features.shape[2:]), down.flatten(0, 1), rows)
            low = low.reshape(rows, rank, -1)  # (n, r, h w)
            added = torch.bmm(up, low.to(up.dtype))
            height, width = (self._size(features.shape[axis], axis - 2) for axis in (2, 3))
            return added.reshape(rows, -1, height, width)
        low = torch.bmm(features.reshape(len(features), -1, features.shape[-1]).to(down.dtype), down.transpose(1, 2))
        return torch.bmm(low, up.transpose(1, 2)).reshape(*features.shape[:-1], -1)

    def _convolved(self, features: Tensor, down: Tensor, groups: int) -> Tensor:
        # The factors keep the dtype that they were loaded in.
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(
                features.to(down.dtype), down, None, self._layer.stride, self._layer.padding, self._layer.dilation,
                groups,
            )  # fmt: skip

    def _size(self, side: int, axis: int) -> int:
        layer = self._layer
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        return int((side + 2 * layer.padding[axis] - reach - 1) // layer.stride[axis] + 1)

    def _along(self, channels: Tensor, answer: Tensor) -> Tensor:
        """(out,) or (n, out), shaped to go along with the answer's channels."""
        if self._convolution:
            return channels[..., None, None]
        return channels if channels.ndim == 1 else channels.reshape(len(channels), *[1] * (answer.ndim - 2), -1)


def _stacked(vectors: list[Tensor | None]) -> Tensor | None:
    """(kinds, out), zeros for those that have none; None if none has any."""
    some = next((vector for vector in vectors if vector is not None), None)
    if some is None:
        return None
    return torch.stack([torch.zeros_like(some) if vector is None else vector for vector in vectors])


def _padded(factors: Factors | None, like: Factors, rank: int) -> Factors:
    """The factors with zeros up to `rank`; None is nothing but zeros."""
    down = like.down.new_zeros(rank, *like.down.shape[1:])
    up = like.up.new_zeros(like.up.shape[0], rank)
    if factors is not None:
        down[: len(factors.down)], up[:, : factors.up.shape[1]] = factors.down, factors.up
    return Factors(down, up)
