"""Apply different adapters to each row of a batch, or several at once with a weight each.

An adapted layer computes W x + s B A x (LoRA, arXiv 2106.09685). The low ranks are added, so several adapters on one
row are their factors side by side, and rows with different adapters are one batched product. The difference that full
DreamBooth made (`engine.adapters.deltas`) is applied in the same way: its factors as a LoRA's, its biases as vectors
that are added, and each row has norms with its own weights and biases. The layers' own weights stay as they are: within
`apply_adapters`, hooks change the layers' outputs, or changed copies take the weights' places.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.adapters.lora import scale
from engine.bases.quantised import Int8Linear
from engine.device.packed import Packed, packable
from engine.device.submodules import submodules

Adapter = Mapping[str, "Factors | Affine"]
"""How one adapter changes the layers of a part, by their plain names."""
WeightedAdapters = Sequence[tuple[Adapter, float]]
"""The adapters of one row, and their weights."""


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one layer."""

    down: Tensor
    """A: (r, in) for a linear layer, (r, in, k, k) for a convolution."""
    up: Tensor
    """s B: (out, r), the scale included."""
    gain: Tensor | None = None
    """(out,): added to 1, it scales the layer's own output (DoRA, arXiv 2402.09353)."""
    shift: Tensor | None = None
    """(out,), float32: added to the bias."""
    input_gain: Tensor | None = None
    """(in,): added to 1, it scales the inputs of the layer's own weight (DoRA whose magnitudes are of inputs)."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of its tensors."""
        every = (self.down, self.up, self.gain, self.shift, self.input_gain)
        return tuple(tensor for tensor in every if tensor is not None)


@dataclass(frozen=True)
class Affine:
    """What an adapter adds to the weight and bias of a norm, each (channels,), float32."""

    weight: Tensor
    bias: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of its tensors."""
        return self.weight, self.bias


Norm = nn.GroupNorm | nn.LayerNorm | nn.RMSNorm
"""The layers that an `Affine` is for; the others, linear layers and convolutions, take `Factors`."""


MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
"""The endings of the keys of DoRA's magnitudes, as versions of peft write them."""
INPUT_GAIN = ".lora_input_gain"
"""The ending of the keys of `Factors.input_gain`, which other programs do not have."""


def read_lora(
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
    layers = {plain_name(name): layer for name, layer in submodules(module).items() if "lora_" not in name}
    found: dict[str, Factors] = {}
    for key, down in tensors.items():
        name, dot, rest = key.rpartition(".lora_A.")
        if not dot:
            if not (".lora_B." in key or key.endswith((*MAGNITUDES, INPUT_GAIN))):
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
        magnitude = next((tensors[name + end] for end in MAGNITUDES if name + end in tensors), None)
        gain, input_gain = None, tensors.get(name + INPUT_GAIN)
        if magnitude is not None:
            if magnitude.numel() != len(weight):
                raise ValueError(f"{name} has {magnitude.numel()} magnitudes and not {len(weight)}")
            moved = weight.float().cpu().flatten(1) + up @ down.float().flatten(1)
            share = ratio(magnitude.float().flatten(), moved.norm(dim=1))
            up, gain = up * share[:, None], (share - 1).to(device, dtype)
        if input_gain is not None:
            if input_gain.shape != weight.shape[1:2]:
                raise ValueError(f"{name} scales {len(input_gain)} inputs and not {weight.shape[1]}")
            input_gain = input_gain.to(device, dtype)
        found[name] = Factors(down.to(device, dtype), up.to(device, dtype), gain, input_gain=input_gain)
    return found


def ratio(magnitudes: Tensor, norms: Tensor) -> Tensor:
    """magnitudes / norms, and 1 where a norm is 0."""
    return torch.where(norms > 0, magnitudes / norms, 1.0)


def plain_name(name: str) -> str:
    """A layer's name without the parts that a LoRA in training adds to it."""
    return name.replace(".base_layer", "")


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's own weight, without a LoRA in training."""
    own: Any = getattr(layer, "base_layer", layer)
    return own.dequantised() if isinstance(own, Int8Linear) else own.weight.detach()


def shape_of(layer: nn.Module) -> torch.Size:
    """The shape of a layer's own weight."""
    own: Any = layer if isinstance(layer, nn.Linear | nn.Conv2d) else layer.base_layer
    shape: torch.Size = own.weight.shape
    return shape


def scale_of(config: Mapping[str, Any], name: str, rank: int) -> float:
    """The scale of B A on one layer, from peft's LoraConfig of its part; 1 without a LoraConfig."""
    usual = config.get("lora_alpha", config.get("alpha", rank))
    alpha = pattern_value(config.get("alpha_pattern"), name, usual)
    return scale(rank, alpha, bool(config.get("use_rslora")))


def pattern_value(patterns: Mapping[str, Any] | None, name: str, usual: Any) -> float:
    """The value for a layer in `rank_pattern` or `alpha_pattern`: of the first regular expression that matches the end
    of its name, from the name's start or a dot on (`get_pattern_key` in peft/utils/other.py).

    Raises:
        ValueError: a pattern is no regular expression, or its value no number.
    """
    value = usual
    for pattern, own in (patterns or {}).items():
        if _may_match(pattern, name) and _compiled(pattern).match(name):
            value = own
            break
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the configuration of {name} is no number: {str(value)[:40]}") from error


_LITERAL = re.compile(r"\^?[\w.]+")


def _may_match(pattern: str, name: str) -> bool:
    """False where a pattern of plain characters, of which files have hundreds, has another length than the name."""
    if not _LITERAL.fullmatch(pattern):
        return True
    start = len(name) - len(pattern.removeprefix("^"))
    return start == 0 or (start > 0 and pattern[0] != "^" and name[start - 1] == ".")


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise ValueError(f"{pattern[:40]} in its configuration is no regular expression: {error}") from error


@torch.no_grad()
def apply_each(module: nn.Module, adapter: Adapter) -> None:
    """Apply each layer of an adapter once by itself, to features of ones.

    Raises:
        ValueError: a layer cannot be applied, or makes numbers that are not finite.
    """
    layers = submodules(module)
    for name, factors in adapter.items():
        assert isinstance(factors, Factors)
        layer, down = layers[name], factors.down
        own: Any = getattr(layer, "base_layer", layer)
        try:
            if isinstance(own, nn.Conv2d):
                # A window of the kernel's size gives as many positions as its padding makes.
                features = torch.ones(1, *down.shape[1:], device=down.device)
                low = F.conv2d(features[:, :1], down[:1, :1], None, own.stride, own.padding, own.dilation)
                output = torch.zeros(1, len(factors.up), *low.shape[2:], device=down.device)
            else:
                features = torch.ones(1, 1, down.shape[1], device=down.device)
                output = torch.zeros(1, 1, len(factors.up), device=down.device)
            added = _AddLowRank(layer, [factors], [0])(layer, (features,), output)
        except RuntimeError as error:
            raise ValueError(f"{name} cannot be applied: {error}") from error
        if not bool(added.isfinite().all()):
            raise ValueError(f"{name} makes numbers that are not finite, so pictures would be black")


@contextmanager
def apply_adapters(module: nn.Module, rows: Sequence[WeightedAdapters], copied: bool = False) -> Iterator[None]:
    """Within, row n of every batch of len(rows) passes `module` with the adapters of rows[n].

    A batch of a multiple of len(rows), as guidance makes it, repeats them in the same order.

    Args:
        copied: where all rows have the same adapters, a changed copy of each float32 weight does it without a hook. The
            copies take memory and a moment to make, and then the adapters cost nothing: 25 steps of one picture on the
            embedded base took 1.15 s of one core with hooks and 0.83 s so.
    """
    combinations, numbers = _combinations(rows)
    copied = copied and len(combinations) == 1
    names = dict.fromkeys(name for row in combinations for adapter, _ in row for name in adapter)
    layers, changed = submodules(module), dict[nn.Module, Mapping[str, Tensor]]()
    with ExitStack() as contexts:
        for name in names:
            layer = layers[name]
            own: Any = getattr(layer, "base_layer", layer)
            # Small changes of weights in half precision, or in fewer bits, would be rounded away.
            if copied and not isinstance(own, Int8Linear) and own.weight.dtype == torch.float32:
                changed[own] = _changed(own, combinations[0], name)
                continue
            hook: _AddLowRank | _ReplaceAffine
            if isinstance(layer, Norm):
                hook = _ReplaceAffine([_affine_of(row, name, layer) for row in combinations], numbers)
            else:
                hook = _AddLowRank(layer, [_factors_of(row, name) for row in combinations], numbers)
            contexts.callback(layer.register_forward_hook(hook).remove)
        contexts.enter_context(_replaced(changed))
        yield


def _combinations(rows: Sequence[WeightedAdapters]) -> tuple[list[WeightedAdapters], list[int]]:
    """The different combinations of adapters among the rows, and the number of each row's."""
    numbers: dict[tuple[tuple[int, float], ...], int] = {}
    combinations: list[WeightedAdapters] = []
    chosen = []
    for row in rows:
        key = tuple((id(adapter), weight) for adapter, weight in row)
        if key not in numbers:
            numbers[key] = len(combinations)
            combinations.append(row)
        chosen.append(numbers[key])
    return combinations, chosen


@contextmanager
def _replaced(changed: Mapping[nn.Module, Mapping[str, Tensor]]) -> Iterator[None]:
    """Within, the layers compute with these tensors in the places of their own parameters.

    Attributes of the same names hide the parameters, which stay registered.
    """
    before = [(vars(layer), name, vars(layer).get(name)) for layer, tensors in changed.items() for name in tensors]
    try:
        for layer, tensors in changed.items():
            vars(layer).update(tensors)
        yield
    finally:
        for attributes, name, hidden in before:
            if hidden is None:
                del attributes[name]
            else:
                attributes[name] = hidden


def _changed(layer: Any, adapters: WeightedAdapters, name: str) -> dict[str, Tensor]:
    """The parameters of a layer that a row's adapters change, as changed."""
    if isinstance(layer, Norm):
        affine = _affine_of(adapters, name, layer)
        found = {"weight": affine.weight} | ({} if getattr(layer, "bias", None) is None else {"bias": affine.bias})
    elif (factors := _factors_of(adapters, name)) is None:
        return {}
    else:
        own = weight = layer.weight.detach()
        if factors.gain is not None:
            weight = weight + factors.gain.float().reshape(-1, *[1] * (weight.ndim - 1)) * own
        if factors.input_gain is not None:
            weight = weight + factors.input_gain.float().reshape(1, -1, *[1] * (weight.ndim - 2)) * own
        up, down = factors.up.float(), factors.down.float()
        if weight.ndim > 2:
            weight = torch.addmm(weight.flatten(1), up, down.flatten(1)).reshape(weight.shape)
        else:
            weight = torch.addmm(weight, up, down)
        found = {"weight": weight}
        if factors.shift is not None:
            found["bias"] = factors.shift if layer.bias is None else layer.bias.detach() + factors.shift
    return found


def _factors_of(adapters: WeightedAdapters, name: str) -> Factors | None:
    """The factors of a row's adapters on one layer, as those of one adapter."""
    found = [(part, weight) for adapter, weight in adapters if isinstance(part := adapter.get(name), Factors)]
    if not found:
        return None
    if len(found) == 1 and found[0][1] == 1:
        return found[0][0]
    return Factors(
        torch.cat([factors.down for factors, _ in found]),
        torch.cat([weight * factors.up for factors, weight in found], dim=1),
        _sum([weight * factors.gain for factors, weight in found if factors.gain is not None]),
        _sum([weight * factors.shift for factors, weight in found if factors.shift is not None]),
        _sum([weight * factors.input_gain for factors, weight in found if factors.input_gain is not None]),
    )


def _sum(vectors: list[Tensor]) -> Tensor | None:
    return torch.stack(vectors).sum(0) if vectors else None


def _affine_of(adapters: WeightedAdapters, name: str, norm: Norm) -> Affine:
    """A norm's weight and bias, float32, with what a row's adapters add to them."""
    assert norm.weight is not None
    weight, own = norm.weight.detach().float(), getattr(norm, "bias", None)
    bias = torch.zeros_like(weight) if own is None else own.detach().float()
    for adapter, share in adapters:
        if isinstance(part := adapter.get(name), Affine):
            weight, bias = weight + share * part.weight, bias + share * part.bias
    return Affine(weight, bias)


def _repeated(rows: Tensor, count: int) -> Tensor:
    """Each row's combination in a batch of `count` rows, int64 (count,): `rows` (n,), repeated."""
    times, rest = divmod(count, len(rows))
    if rest:
        raise ValueError(f"{count} rows are not a multiple of the {len(rows)} that have adapters")
    return rows.repeat(times)


class _ReplaceAffine:
    """The hook of one norm: each row's features with the row's own weight and bias.

    The norm is computed again, in float32: a small change of a weight would be lost if it were added to an output that
    bfloat16 has rounded.
    """

    def __init__(self, combinations: list[Affine], rows: list[int]) -> None:
        parts = zip(*(affine.tensors for affine in combinations), strict=True)
        self._weight, self._bias = (torch.stack(vectors) for vectors in parts)  # (combinations, channels)
        self._rows = torch.tensor(rows, device=self._weight.device)

    def __call__(self, norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        features = inputs[0].float()
        if len(self._weight) == 1:
            return _normal(norm, features, self._weight[0], self._bias[0]).to(output.dtype)
        rows = _repeated(self._rows, len(features))
        ones = [1] * (features.ndim - 2)
        shape = (-1, *ones) if isinstance(norm, nn.GroupNorm) else (*ones, -1)
        weight, bias = (vectors[rows].reshape(len(rows), *shape) for vectors in (self._weight, self._bias))
        return torch.addcmul(bias, _normal(norm, features), weight).to(output.dtype)


def _normal(norm: Any, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """The norm of features (n, ...), with another weight and bias (channels,) than its own or none."""
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(features, norm.num_groups, weight, bias, norm.eps)
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(features, norm.normalized_shape, weight, bias, norm.eps)
    normal = F.rms_norm(features, norm.normalized_shape, weight, norm.eps)
    return normal if bias is None else normal + bias


class _AddLowRank:
    """The hook of one layer: adds the low-rank products of the rows' adapters to its output.

    A shift is one rank more, whose input to B is 1, so that everything is added in one product and rounded once.
    """

    def __init__(self, layer: nn.Module, combinations: list[Factors | None], rows: list[int]) -> None:
        self._layer: Any = getattr(layer, "base_layer", layer)
        self._convolution = isinstance(self._layer, nn.Conv2d)
        some = next(factors for factors in combinations if factors is not None)
        rank = max(factors.down.shape[0] for factors in combinations if factors is not None)
        shifted = any(factors is not None and factors.shift is not None for factors in combinations)
        padded = [_padded(factors, some, rank + shifted) for factors in combinations]
        # By combination, not by row: a full DreamBooth's factors are large.
        self._down = torch.stack([factors.down for factors in padded])  # (combinations, r, in...)
        self._up = torch.stack([factors.up for factors in padded])  # (combinations, out, r)
        self._ones = _last(self._down[0]) if shifted else None  # (r,)
        self._gain = _stacked([None if factors is None else factors.gain for factors in combinations])
        self._input_gain = _stacked([None if factors is None else factors.input_gain for factors in combinations])
        self._rows = torch.tensor(rows if len(combinations) > 1 else [0], device=some.down.device)
        self._repeats: dict[int, Tensor] = {}
        if self._convolution:
            # Where rows share combinations, each row's factors are gathered when they are needed.
            if self._ones is not None:
                self._ones = self._ones.repeat(len(self._rows))
            down, self._packed = self._down.flatten(0, 1), None
            apart = self._rows.tolist() == list(range(len(combinations)))
            if apart and down.device.type == "cpu" and down.dtype == torch.bfloat16 and packable(self._layer):
                self._packed = Packed(lambda: down, self._ones, self._layer, len(combinations))

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        features, own = inputs[0], output.to(self._up.dtype)
        if self._gain is not None:
            bias = 0 if self._layer.bias is None else self._along(self._layer.bias, output)
            gain = self._along(self._of_rows(self._gain, len(features)), output)
            own = (own + gain * (own - bias)).to(own.dtype)
        if self._input_gain is not None:
            gain = self._along(self._of_rows(self._input_gain, len(features)), features)
            # The layer computes again, so that its output is rounded once; other adapters' gains are added.
            scaled = self._layer.forward(features + gain * features).to(own.dtype)
            own = scaled if self._gain is None else scaled + (own - output.to(own.dtype))
        added = self._convolved(features, own) if self._convolution else self._linear(features, own)
        return added.reshape(output.shape).to(output.dtype)

    def _linear(self, features: Tensor, own: Tensor) -> Tensor:
        # Rows of one combination are as one long row.
        rows = 1 if len(self._up) == 1 else len(features)
        down, up = (self._of_rows(factors, rows).transpose(1, 2) for factors in (self._down, self._up))
        features = features.reshape(rows, -1, features.shape[-1]).to(down.dtype)
        low = torch.bmm(features, down) if self._ones is None else torch.baddbmm(self._ones, features, down)
        return torch.baddbmm(own.reshape(rows, -1, own.shape[-1]), low, up)

    def _convolved(self, features: Tensor, own: Tensor) -> Tensor:
        # One group of channels for each row that has adapters; guidance makes a batch of them.
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
            pixels = own.permute(0, 2, 3, 1)  # (n, h, w, out)
            added = torch.baddbmm(pixels.flatten(1, 2), low.transpose(1, 2), up.transpose(1, 2))
            return added.reshape(pixels.shape).permute(0, 3, 1, 2)
        return torch.baddbmm(own.flatten(2), up, low)

    def _of_rows(self, tensors: Tensor, count: int) -> Tensor:
        """The tensor of each of `count` rows, (count, ...), of those of the combinations, (combinations, ...)."""
        if len(tensors) == 1:
            return tensors.expand(count, *tensors.shape[1:])
        if count not in self._repeats:
            self._repeats[count] = _repeated(self._rows, count)
        return tensors.index_select(0, self._repeats[count])

    def _along(self, channels: Tensor, output: Tensor) -> Tensor:
        """(out,) or (n, out), shaped to broadcast along the output's channels."""
        if self._convolution:
            return channels[..., None, None]
        return channels if channels.ndim == 1 else channels.reshape(len(channels), *[1] * (output.ndim - 2), -1)


def _stacked(vectors: list[Tensor | None]) -> Tensor | None:
    """(combinations, out), zeros for those that have none; None if none has any."""
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
    """The factors with zeros up to `rank`, a shift as the last of them; None becomes zeros."""
    down = like.down.new_zeros(rank, *like.down.shape[1:])
    up = like.up.new_zeros(like.up.shape[0], rank)
    if factors is not None:
        down[: len(factors.down)], up[:, : factors.up.shape[1]] = factors.down, factors.up
        if factors.shift is not None:
            up[:, -1] = factors.shift
    return Factors(down, up)
