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

from engine.recipe import Recipe


class Adapted(nn.Module):
    """A linear layer or a convolution with a LoRA on it.

    A convolution's A has its kernel and strides, and B looks at one place at a time. What learns is float32, whatever
    the layer rests in.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, recipe: Recipe, name: str) -> None:
        super().__init__()
        self.name, self.rank, self.alpha = name, recipe.rank, recipe.alpha
        self.dora, self.rslora = recipe.dora, recipe.rslora
        self.scale = scale(self.rank, self.alpha, self.rslora)
        self.on = True
        """Whether it answers as adapted."""
        self.base_layer = layer
        # Torch draws both as it makes them. A once more, as in peft: so a seed begins here as it does there.
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
    def learning(self) -> dict[str, nn.Parameter]:
        """What learns, as it is called in a file."""
        return {
            key.replace(f".{self.name}", ""): parameter
            for key, parameter in self.named_parameters()
            if key.startswith("lora_")
        }

    def forward(self, features: Tensor) -> Tensor:
        """(..., out) of (..., in), or (n, out, h, w) of (n, in, h, w), in the dtype of the layer's own answer."""
        if not self.on:
            return self.base_layer(features)  # type: ignore[no-any-return]
        dtype, device = torch.float32, features.device.type
        if torch.is_autocast_enabled(device):
            # Once, for the layer and for A.
            dtype = torch.get_autocast_dtype(device)
            features = features.to(dtype)
        own = answer = self.base_layer(features)
        low, up = self.lora_A[self.name](features.to(dtype)), self._up
        if self.dora:
            magnitude = self.lora_magnitude_vector[self.name]
            gain = magnitude / self._norms().reshape(magnitude.shape)
            bias = self.base_layer.bias
            own = answer + (gain - 1) * (answer if bias is None else answer - bias.reshape(magnitude.shape))
            up = gain.reshape(-1, 1) * up
        own, up = own.to(dtype), up.to(dtype)
        # s B (A x) is added in the product itself, and rounded once.
        if isinstance(self.base_layer, nn.Conv2d):
            several = up.expand(len(own), -1, -1)
            added = torch.baddbmm(own.flatten(2), several, low.flatten(2), alpha=self.scale)
        else:
            added = torch.addmm(own.flatten(0, -2), low.flatten(0, -2), up.T, alpha=self.scale)
        return added.reshape(answer.shape).to(answer.dtype)

    @property
    def _up(self) -> Tensor:
        """B, (out, r)."""
        up: Any = self.lora_B[self.name]
        weight: Tensor = up.weight
        return weight.flatten(1)

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """The lengths of each output's weights as they are now, |W + s B A|, float32 (out,).

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


def scale(rank: int, alpha: float, rslora: bool) -> float:
    """What B A is multiplied by; rank-stabilised: arXiv 2312.03732."""
    return float(alpha / (math.sqrt(rank) if rslora else rank))


def attach(module: nn.Module, ends: Sequence[str], recipe: Recipe, name: str) -> None:
    """Put a LoRA on the layers whose names end so, A drawn from torch's own generator and B zero.

    Raises:
        ValueError: there is no such layer, or one is already on the module.
    """
    if adapted(module):
        raise ValueError("something learns on this model already")
    layers = [
        (key, layer)
        for key, layer in module.named_modules()
        if key.endswith(tuple(f".{end}" for end in ends)) and isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise ValueError(f"no layer is called {' or '.join(ends)}")
    for key, layer in layers:
        module.set_submodule(key, Adapted(layer, recipe, name))
    _forget()


def _forget() -> None:
    _walked.clear()
    _adapted.clear()


_walked: WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = WeakKeyDictionary()


def submodules(module: nn.Module) -> Mapping[str, nn.Module]:
    """All modules within `module` by their names.

    Walked once until a LoRA is put on or taken off, since a drawing asks for them several times.
    """
    if module not in _walked:
        _walked[module] = {name: part for name, part in module.named_modules() if part is not module}
    return _walked[module]


_adapted: WeakKeyDictionary[nn.Module, dict[str, Adapted]] = WeakKeyDictionary()


def adapted(module: nn.Module) -> dict[str, Adapted]:
    """The module's layers that have a LoRA on them."""
    if module not in _adapted:
        _adapted[module] = {key: layer for key, layer in submodules(module).items() if isinstance(layer, Adapted)}
    return _adapted[module]


def detach(module: nn.Module) -> None:
    """Put the layers back as they were."""
    for key, layer in adapted(module).items():
        module.set_submodule(key, layer.base_layer)
    _forget()


@contextmanager
def switched_off(*modules: nn.Module) -> Iterator[None]:
    """Within, the modules compute without the LoRA in training."""
    layers = [layer for module in modules for layer in adapted(module).values() if layer.on]
    for layer in layers:
        layer.on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.on = True


def stored(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The LoRA on a module as in a file: its tensors, and what peft is to know of them."""
    layers = adapted(module)
    tensors: dict[str, Tensor] = {
        f"{key}.{end}": tensor for key, layer in layers.items() for end, tensor in layer.learning.items()
    }
    return tensors, config_of(
        {key: layer.rank for key, layer in layers.items()},
        {key: layer.alpha for key, layer in layers.items()},
        dora=any(layer.dora for layer in layers.values()),
        rslora=any(layer.rslora for layer in layers.values()),
    )


def config_of(
    ranks: Mapping[str, int], alphas: Mapping[str, float], *, dora: bool = False, rslora: bool = False
) -> dict[str, Any]:
    """peft's LoraConfig for layers of these ranks and alphas, as JSON; what it leaves out is as peft's defaults are."""
    several = len({*ranks.values()}) > 1 or len({*alphas.values()}) > 1
    return {
        "peft_type": "LORA", "r": max(ranks.values()), "lora_alpha": max(alphas.values()),
        "rank_pattern": dict(ranks) if several else {}, "alpha_pattern": dict(alphas) if several else {},
        "target_modules": sorted(ranks), "use_dora": dora, "use_rslora": rslora,
    }  # fmt: skip
