"""Low-rank adapters on the rows of a batch: every row may wear its own, or several at once with a weight each.

An adapted layer answers W x + s B A x (LoRA, arXiv 2106.09685). What the low ranks add is a sum, so adapters worn
together are their factors side by side, and rows with different adapters are one batched product. What full DreamBooth
changed (`engine.adapters.deltas`) is worn the same way: its factors as a LoRA's, biases as vectors that are added, and
each row has norms with its own weights and biases. The layers' own weights stay as they are: while a `worn` context
lasts, hooks change their answers, or changed copies stand in their places.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.adapters.lora import scale
from engine.bases.quantised import Int8Linear
from engine.device.packed import Packed, packable

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
    """A layer's name without what is around one that learns."""
    return name.replace(".base_layer", "")


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's own weight, whether or not something learns on it."""
    own: Any = getattr(layer, "base_layer", layer)
    return own.widened() if isinstance(own, Int8Linear) else own.weight.detach()


def scale_of(config: Mapping[str, Any], name: str, rank: int) -> float:
    """What B A is multiplied by on one layer, from peft's LoraConfig for its part; 1 without one."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if name == pattern or name.endswith(f".{pattern}"):
            alpha = value
    return scale(rank, alpha, bool(config.get("use_rslora")))


@contextmanager
def worn(module: nn.Module, rows: Sequence[Stack], copied: bool = False) -> Iterator[None]:
    """Within, row n of every batch of len(rows) passes `module` with the adapters of rows[n].

    A batch of several times as many rows, as guidance makes them, wears them as often in the same order.

    Args:
        copied: where all rows wear the same, a changed copy of each float32 weight does it without a hook. That wants
            memory for the copies and a moment to make them, and then the adapters cost nothing: 25 steps of one picture
            on the embedded base took 1.15 s of one core with hooks and 0.83 s so.
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
    before: list[tuple[nn.Module, dict[str, Any]]] = []
    try:
        for name, layer in list(module.named_modules()):
            if name not in names:
                continue
            own: Any = getattr(layer, "base_layer", layer)
            # Small changes of weights in half precision, or in fewer bits, would be rounded away.
            if copied and len(stacks) == 1 and not isinstance(own, Int8Linear) and own.weight.dtype == torch.float32:
                before.append((own, own._parameters))
                own._parameters = own._parameters | _changed(own, stacks[0], name)
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
        for own, parameters in before:
            own._parameters = parameters


def _changed(layer: Any, stack: Stack, name: str) -> dict[str, nn.Parameter]:
    """The parameters of a layer, with what a row's adapters do to them."""
    if isinstance(layer, Norm):
        moved = _moved(stack, name, layer)
        found = {"weight": moved.weight} | ({} if getattr(layer, "bias", None) is None else {"bias": moved.bias})
    elif (factors := _together(stack, name)) is None:
        return {}
    else:
        weight = layer.weight.detach()
        if factors.gain is not None:
            weight = weight + factors.gain.float().reshape(-1, *[1] * (weight.ndim - 1)) * weight
        changed = torch.addmm(weight.flatten(1), factors.up.float(), factors.down.float().flatten(1))
        weight = changed.reshape(weight.shape)
        found = {"weight": weight}
        if factors.shift is not None:
            found["bias"] = factors.shift if layer.bias is None else layer.bias.detach() + factors.shift
    return {part: nn.Parameter(tensor, requires_grad=False) for part, tensor in found.items()}


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
        if len(self._weight) == 1:
            return _normal(norm, features, self._weight[0], self._bias[0]).to(answer.dtype)
        kinds = _kinds_of(self._rows, len(features))
        ones = [1] * (features.ndim - 2)
        shape = (-1, *ones) if isinstance(norm, nn.GroupNorm) else (*ones, -1)
        weight, bias = (vectors[kinds].reshape(len(kinds), *shape) for vectors in (self._weight, self._bias))
        return torch.addcmul(bias, _normal(norm, features), weight).to(answer.dtype)


def _normal(norm: Any, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """What a norm makes of features (n, ...), with another weight and bias (channels,) than its own or none."""
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(features, norm.num_groups, weight, bias, norm.eps)
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(features, norm.normalized_shape, weight, bias, norm.eps)
    normal = F.rms_norm(features, norm.normalized_shape, weight, norm.eps)
    return normal if bias is None else normal + bias


class _Added:
    """The hook of one layer: what the rows' adapters add to its answer.

    A shift is one rank more, whose low answer is 1, so that all is added in one product and rounded once.
    """

    def __init__(self, layer: nn.Module, kinds: list[Factors | None], rows: list[int]) -> None:
        self._layer: Any = getattr(layer, "base_layer", layer)
        self._convolution = isinstance(self._layer, nn.Conv2d)
        some = next(factors for factors in kinds if factors is not None)
        rank = max(factors.down.shape[0] for factors in kinds if factors is not None)
        shifted = any(factors is not None and factors.shift is not None for factors in kinds)
        padded = [_padded(factors, some, rank + shifted) for factors in kinds]
        # By kind, not by row: a full DreamBooth's factors are large.
        self._down = torch.stack([factors.down for factors in padded])  # (kinds, r, in...)
        self._up = torch.stack([factors.up for factors in padded])  # (kinds, out, r)
        self._ones = _last(self._down[0]) if shifted else None  # (r,)
        self._gain = _stacked([None if factors is None else factors.gain for factors in kinds])
        self._rows = torch.tensor(rows if len(kinds) > 1 else [0], device=some.down.device)
        self._kinds: dict[int, Tensor] = {}
        if self._convolution:
            # Where rows share some of several kinds, each row's factors are gathered when they are wanted.
            if self._ones is not None:
                self._ones = self._ones.repeat(len(self._rows))
            down, self._packed = self._down.flatten(0, 1), None
            apart = self._rows.tolist() == list(range(len(kinds)))
            if apart and down.device.type == "cpu" and down.dtype == torch.bfloat16 and packable(self._layer):
                self._packed = Packed(lambda: down, self._ones, self._layer, len(kinds))

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        features, own = inputs[0], answer.to(self._up.dtype)
        if self._gain is not None:
            bias = 0 if self._layer.bias is None else self._along(self._layer.bias, answer)
            gain = self._along(self._of_rows(self._gain, len(features)), answer)
            own = (own + gain * (own - bias)).to(own.dtype)
        added = self._convolved(features, own) if self._convolution else self._linear(features, own)
        return added.reshape(answer.shape).to(answer.dtype)

    def _linear(self, features: Tensor, own: Tensor) -> Tensor:
        # Rows of one kind are as one long row.
        rows = 1 if len(self._up) == 1 else len(features)
        down, up = (self._of_rows(factors, rows).transpose(1, 2) for factors in (self._down, self._up))
        features = features.reshape(rows, -1, features.shape[-1]).to(down.dtype)
        low = torch.bmm(features, down) if self._ones is None else torch.baddbmm(self._ones, features, down)
        return torch.baddbmm(own.reshape(rows, -1, own.shape[-1]), low, up)

    def _convolved(self, features: Tensor, own: Tensor) -> Tensor:
        # One group of channels for each row that wears adapters; guidance makes a batch of them.
        groups = len(self._rows)
        features = features.reshape(-1, groups * features.shape[1], *features.shape[2:]).to(self._down.dtype)
        if self._packed:
            low = self._packed(features)
        else:
            of, down = self._layer, self._down[self._rows].flatten(0, 1)
            with torch.autocast(features.device.type, enabled=False):
                low = F.conv2d(features, down, self._ones, of.stride, of.padding, of.dilation, groups)
        low, up = low.reshape(len(own), self._up.shape[2], -1), self._of_rows(self._up, len(own))  # (n, r, h w)
        if own.is_contiguous(memory_format=torch.channels_last):
            places = own.permute(0, 2, 3, 1)
            added = torch.baddbmm(places.flatten(1, 2), low.transpose(1, 2), up.transpose(1, 2))
            return added.reshape(places.shape).permute(0, 3, 1, 2)
        return torch.baddbmm(own.flatten(2), up, low)

    def _of_rows(self, kinds: Tensor, count: int) -> Tensor:
        """(count, ...): what each of `count` rows has of (kinds, ...)."""
        if len(kinds) == 1:
            return kinds.expand(count, *kinds.shape[1:])
        if count not in self._kinds:
            self._kinds[count] = _kinds_of(self._rows, count)
        return kinds.index_select(0, self._kinds[count])

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


def _last(down: Tensor) -> Tensor:
    """(r,): 1 for the last rank, 0 for the others."""
    ones = down.new_zeros(len(down))
    ones[-1] = 1
    return ones


def _padded(factors: Factors | None, like: Factors, rank: int) -> Factors:
    """The factors with zeros up to `rank`, a shift as the last of them; None is nothing but zeros."""
    down = like.down.new_zeros(rank, *like.down.shape[1:])
    up = like.up.new_zeros(like.up.shape[0], rank)
    if factors is not None:
        down[: len(factors.down)], up[:, : factors.up.shape[1]] = factors.down, factors.up
        if factors.shift is not None:
            up[:, -1] = factors.shift
    return Factors(down, up)
