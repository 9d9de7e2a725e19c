"""Training a LoRA: low-rank layers on the layers of a model, one LoRA at a time.

An adapted layer computes W x + s B A x and trains only A and B (LoRA, arXiv 2106.09685). Parameters have peft's names,
`<layer>.lora_A.<name>.weight`; files leave out the LoRA's name. Drawing uses `engine.adapters.applied` instead.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from engine.device.submodules import forget_submodules, submodules
from engine.recipe import Recipe


class LoraLayer(nn.Module):
    """A linear layer or a convolution with a LoRA on it.

    A convolution's A has its kernel and strides, and B is a 1 x 1 convolution. The trainable parameters are float32,
    whatever the dtype of the layer's own weights.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, recipe: Recipe, name: str) -> None:
        super().__init__()
        self.name, self.rank, self.alpha = name, recipe.rank, recipe.alpha
        self.dora, self.rslora = recipe.dora, recipe.rslora
        self.scale = scale(self.rank, self.alpha, self.rslora)
        self.enabled = True
        """Whether the LoRA is added to the layer's output."""
        self.base_layer = layer
        # Torch initialises both when it makes them. peft draws A once more, so a seed gives the same A here as there.
        down, up = _factors(layer, self.rank)
        if recipe.gaussian:
            nn.init.normal_(down.weight, std=1 / self.rank)
        else:
            down.reset_parameters()
        nn.init.zeros_(up.weight)
        device = layer.weight.device
        self.lora_A, self.lora_B = nn.ModuleDict({name: down.to(device)}), nn.ModuleDict({name: up.to(device)})
        if self.dora:
            shape = (1, -1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
            self.lora_magnitude_vector = nn.ParameterDict({name: self._norms().reshape(shape)})

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable parameters, by their names in an adapter file."""
        return {
            key.replace(f".{self.name}", ""): parameter
            for key, parameter in self.named_parameters()
            if key.startswith("lora_")
        }

    def as_lora(self) -> tuple[dict[str, Tensor], int, float]:
        """The tensors of a file under peft's names, the rank, and alpha."""
        return dict(self.trainable), self.rank, self.alpha

    def forward(self, features: Tensor) -> Tensor:
        """(..., out) of (..., in), or (n, out, h, w) of (n, in, h, w), in the dtype of the layer's own output."""
        if not self.enabled:
            return self.base_layer(features)  # type: ignore[no-any-return]
        features, dtype = cast_once(features)
        own = output = self.base_layer(features)
        low, up = self.lora_A[self.name](features.to(dtype)), self._up
        if self.dora:
            magnitude = self.lora_magnitude_vector[self.name]
            gain = magnitude / self._norms().reshape(magnitude.shape)
            bias = self.base_layer.bias
            own = output + (gain - 1) * (output if bias is None else output - bias.reshape(magnitude.shape))
            up = gain.reshape(-1, 1) * up
        own, up = own.to(dtype), up.to(dtype)
        # One fused operation multiplies by s B and adds, so that the result is rounded once.
        if isinstance(self.base_layer, nn.Conv2d):
            up_of_rows = up.expand(len(own), -1, -1)  # (n, out, r)
            added = torch.baddbmm(own.flatten(2), up_of_rows, low.flatten(2), alpha=self.scale)
        else:
            added = torch.addmm(own.flatten(0, -2), low.flatten(0, -2), up.T, alpha=self.scale)
        return added.reshape(output.shape).to(output.dtype)

    @property
    def _up(self) -> Tensor:
        """B, (out, r)."""
        up: Any = self.lora_B[self.name]
        weight: Tensor = up.weight
        return weight.flatten(1)

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """The current norm of each output's weights, |W + s B A|, float32 (out,).

        They have no gradient (DoRA, arXiv 2402.09353, section 4.3).
        """
        down: Any = self.lora_A[self.name]
        weight = self.base_layer.weight.float().flatten(1)
        with torch.autocast(weight.device.type, enabled=False):
            moved = torch.addmm(weight, self._up, down.weight.flatten(1), alpha=self.scale)
            lengths: Tensor = torch.linalg.vector_norm(moved, dim=1)
        return lengths


def _factors(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """A and B."""
    if isinstance(layer, nn.Conv2d):
        window: Any = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        return nn.Conv2d(layer.in_channels, rank, **window, bias=False), nn.Conv2d(
            rank, layer.out_channels, 1, bias=False
        )
    return nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)


def cast_once(features: Tensor) -> tuple[Tensor, torch.dtype]:
    """The features as an adapted layer takes them, and the dtype that its adapter computes in: under autocast both are
    cast here, once for the layer and the adapter; otherwise the adapter computes in float32."""
    device = features.device.type
    if not torch.is_autocast_enabled(device):
        return features, torch.float32
    dtype = torch.get_autocast_dtype(device)
    return features.to(dtype), dtype


def scale(rank: int, alpha: float, rslora: bool) -> float:
    """The scale of B A: alpha / r, or rank-stabilised alpha / sqrt(r) (arXiv 2312.03732)."""
    return float(alpha / (math.sqrt(rank) if rslora else rank))


def attach(
    module: nn.Module, ends: Sequence[str], recipe: Recipe, name: str, kind: type[LoraLayer] = LoraLayer
) -> None:
    """Put a LoRA on the layers whose names end in one of `ends`. A is drawn from torch's global generator, B is zero.

    Args:
        kind: of the adapted layers.
    Raises:
        ValueError: there is no such layer, or the module has a LoRA already.
    """
    if lora_layers(module):
        raise ValueError("this model has a LoRA in training already")
    layers = [
        (key, layer)
        for key, layer in module.named_modules()
        if key.endswith(tuple(f".{end}" for end in ends)) and isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise ValueError(f"no layer's name ends in {' or '.join(ends)}")
    for key, layer in layers:
        module.set_submodule(key, kind(layer, recipe, name))
    _forget()


def _forget() -> None:
    forget_submodules()
    _lora_layers.clear()


_lora_layers: WeakKeyDictionary[nn.Module, dict[str, LoraLayer]] = WeakKeyDictionary()


def lora_layers(module: nn.Module) -> dict[str, LoraLayer]:
    """The module's layers that have a LoRA on them."""
    if module not in _lora_layers:
        _lora_layers[module] = {key: layer for key, layer in submodules(module).items() if isinstance(layer, LoraLayer)}
    return _lora_layers[module]


def detach(module: nn.Module) -> None:
    """Take the LoRA off the module."""
    for key, layer in lora_layers(module).items():
        module.set_submodule(key, layer.base_layer)
    _forget()


@contextmanager
def switched_off(*modules: nn.Module) -> Iterator[None]:
    """Within, the modules compute without the LoRA in training."""
    layers = [layer for module in modules for layer in lora_layers(module).values() if layer.enabled]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def lora_state_dict(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The LoRA on a module as in an adapter file: its tensors, and peft's LoraConfig as JSON."""
    layers = lora_layers(module)
    stored = {key: layer.as_lora() for key, layer in layers.items()}
    tensors = {f"{key}.{end}": tensor for key, (own, _, _) in stored.items() for end, tensor in own.items()}
    return tensors, config_of(
        {key: rank for key, (_, rank, _) in stored.items()},
        {key: alpha for key, (_, _, alpha) in stored.items()},
        dora=any(layer.dora for layer in layers.values()),
        rslora=any(layer.rslora for layer in layers.values()),
    )


def config_of(
    ranks: Mapping[str, int], alphas: Mapping[str, float], *, dora: bool = False, rslora: bool = False
) -> dict[str, Any]:
    """peft's LoraConfig for layers of these ranks and alphas, as JSON; fields left out have peft's defaults."""
    several = len({*ranks.values()}) > 1 or len({*alphas.values()}) > 1
    return {
        "peft_type": "LORA",
        "r": max(ranks.values()),
        "lora_alpha": max(alphas.values()),
        "rank_pattern": dict(ranks) if several else {},
        "alpha_pattern": dict(alphas) if several else {},
        "target_modules": sorted(ranks),
        "use_dora": dora,
        "use_rslora": rslora,
    }
