"""Training a LoKr: a layer's change is the Kronecker product of a small matrix and a larger one (arXiv 2309.14859).

With W (out, in), w1 is (a, c) and w2 is (out / a, in / c): w2 is whole, or a product of two factors of the recipe's
rank. An adapted layer computes W x + s kron(w1, w2) x. Files hold the same change as a LoRA
(`engine.adapters.low_rank`), so everything that reads a LoRA reads them.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.adapters.lora import LoraLayer, cast_once, scale
from engine.adapters.low_rank import balanced, low_rank, shaped, shortest
from engine.recipe import Recipe


class LokrLayer(LoraLayer):
    """A linear layer or a convolution with a LoKr on it, in place of a LoRA. The trainable parameters are float32.

    They start as in lycoris-lora: w1 and the first factor of w2 by He's uniform, the second factor or the whole w2 as
    zeros, so that the adapted model starts as the base.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, recipe: Recipe, name: str) -> None:
        nn.Module.__init__(self)
        self.name, self.rank, self.alpha = name, recipe.rank, recipe.alpha
        self.dora = self.rslora = False
        self.enabled = True
        self.base_layer = layer
        out, into, *kernel = layer.weight.shape
        small = smaller_factor(out, recipe.factor), smaller_factor(into, recipe.factor)
        large = out // small[0], into // small[1]
        self.whole = recipe.rank >= max(large) / 2
        """Whether w2 is whole, since factors of the rank would hardly be smaller."""
        # lycoris-lora has no scale where neither matrix has a low rank.
        self.scale = 1.0 if self.whole else scale(self.rank, self.alpha, False)
        self.lora_w1 = _parameter(name, torch.empty(small), layer, drawn=True)
        if self.whole:
            self.lora_w2 = _parameter(name, torch.zeros(*large, *kernel), layer)
        else:
            self.lora_w2_a = _parameter(name, torch.empty(large[0], self.rank), layer, drawn=True)
            self.lora_w2_b = _parameter(name, torch.zeros(self.rank, large[1], *kernel), layer)

    def forward(self, features: Tensor) -> Tensor:
        """(..., out) of (..., in), or (n, out, h, w) of (n, in, h, w), in the dtype of the layer's own output."""
        if not self.enabled:
            return self.base_layer(features)  # type: ignore[no-any-return]
        features, dtype = cast_once(features)
        own = self.base_layer(features)
        first = self.scale * self.lora_w1[self.name]
        second = self._second()
        features = features.to(dtype)
        if isinstance(self.base_layer, nn.Conv2d):
            grouped = features.unflatten(1, (first.shape[1], -1)).flatten(0, 1)  # (n c, in / c, h, w)
            of = self.base_layer
            low = F.conv2d(grouped, second.to(dtype), None, of.stride, of.padding, of.dilation)
            low = low.unflatten(0, (len(features), -1))  # (n, c, out / a, h, w)
            added = torch.einsum("ac,ncbhw->nabhw", first.to(dtype), low).flatten(1, 2)
        else:
            low = F.linear(features.unflatten(-1, (first.shape[1], -1)), second.to(dtype))  # (..., c, out / a)
            added = (first.to(dtype) @ low).flatten(-2)
        adapted: Tensor = own + added.to(own.dtype)
        return adapted

    def _second(self) -> Tensor:
        """w2, (out / a, in / c, ...)."""
        if self.whole:
            whole: Tensor = self.lora_w2[self.name]
            return whole
        out: Tensor = self.lora_w2_a[self.name]
        into: Tensor = self.lora_w2_b[self.name]
        second: Tensor = (out @ into.flatten(1)).reshape(-1, *into.shape[1:])
        return second

    @torch.no_grad()
    def as_lora(self) -> tuple[dict[str, Tensor], int, float]:
        """The same change as a LoRA: tensors under peft's names, rank and alpha."""
        parts = {"lokr_w1": self.lora_w1[self.name].detach().cpu()}
        if self.whole:
            parts["lokr_w2"] = self.lora_w2[self.name].detach().cpu()
        else:
            parts |= {f"lokr_w2_{which}": getattr(self, f"lora_w2_{which}")[self.name].detach().cpu() for which in "ab"}
        down, up = low_rank(parts, lambda rank: self.scale)
        down, up = balanced(*shortest(shaped(down, self.base_layer.weight.shape[1:]), up))
        up = up.reshape(*up.shape, *[1] * (down.ndim - 2))
        return {"lora_A.weight": down, "lora_B.weight": up}, len(down), float(len(down))


def _parameter(name: str, tensor: Tensor, layer: nn.Module, drawn: bool = False) -> nn.ParameterDict:
    """A trainable tensor on the layer's device, drawn by He's uniform if asked."""
    if drawn:
        nn.init.kaiming_uniform_(tensor, a=math.sqrt(5))
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return nn.ParameterDict({name: nn.Parameter(tensor.to(weight.device))})


def smaller_factor(size: int, factor: int) -> int:
    """The largest divisor of `size` up to `factor` and up to its root, as lycoris-lora's `factorization`."""
    return max(divisor for divisor in range(1, min(factor, math.isqrt(size)) + 1) if size % divisor == 0)
