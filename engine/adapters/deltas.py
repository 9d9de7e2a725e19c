"""Full DreamBooth's change of the weights in a small file: each weight's difference as a product of two thin factors.

Fine-tuning moves weights along few directions (arXiv 2106.09685, section 7.2), so the difference's leading singular
vectors hold most of it. Each layer has its own rank: among the singular vectors of all layers, those with the most
energy for a byte are kept, until the file has `SHARE` of the model's size.

A difference is applied to the rows of a batch, as a LoRA is, and never added to the base's weights: bfloat16 weights
would round most of it away.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.adapters.applied import Affine, Factors, Norm, plain_name

SHARE = 0.15
"""The file's largest size, as a share of the trained weights in half precision."""

HELD = 10_000_000
"""Most elements of singular vectors that are kept from the first pass to the second; the others are computed twice.
Saving the embedded base's differences so takes no more memory than learning them."""

Differences = Callable[[], Iterable[tuple[str, Tensor]]]
"""Gives the weights' names and differences; called twice, since all singular vectors would not fit into memory."""


@dataclass(frozen=True)
class Delta:
    """A compressed difference."""

    tensors: dict[str, Tensor]
    error: float
    """|D - D'| / |D| over all weights together (Frobenius norm)."""
    share: float
    """Bytes of the tensors, as a share of the trained weights in half precision."""


@torch.no_grad()
def compress(differences: Differences, share: float = SHARE) -> Delta:
    """Factors of the differences, together at most `share` of the differences' size in half precision.

    Factors are stored as int8, whose rounding error is small against the truncation error. Biases and norms, a
    thousandth of a U-Net's parameters, are kept in half precision.
    """
    size, fixed, held = 0, 0, 0
    energies, costs = dict[str, Tensor](), dict[str, int]()
    found = dict[str, tuple[Tensor, Tensor, Tensor]]()
    for name, difference in differences():
        size += 2 * difference.numel()
        if difference.ndim < 2:
            fixed += 2 * difference.numel()
        else:
            matrix = difference.flatten(1)
            held += 2 * matrix.numel()
            if held <= HELD:
                found[name] = directions(matrix)
                energies[name] = found[name][0].cpu()
            else:
                energies[name] = torch.linalg.eigvalsh(_gram(matrix)).flip(0).clamp(min=0).cpu()
            costs[name] = sum(matrix.shape) + 8
    ranks = allot(energies, costs, share * size - fixed)
    tensors, energy, lost = dict[str, Tensor](), 0.0, 0.0
    for name, difference in differences():
        if difference.ndim < 2:
            tensors[name] = difference.half().cpu()
        elif ranks[name]:
            _, left, right = found.pop(name) if name in found else directions(difference.flatten(1))
            for part, factor in (("left", left[:, : ranks[name]].T), ("right", right[: ranks[name]])):
                tensors[f"{name}.{part}"], tensors[f"{name}.{part}.scale"] = quantised(factor)
        energy += float(difference.double().square().sum())
        kept = restored(tensors, name, difference.shape)
        lost += float((difference if kept is None else difference - kept.to(difference)).double().square().sum())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Delta(tensors, (lost / energy) ** 0.5 if energy else 0.0, stored / size if size else 0.0)


def directions(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared singular values (k,), largest first, and factors (m, k), (k, n) whose product is `matrix` (m, n).

    From the eigenvectors of the smaller of M M^T and M^T M, in a tenth of the time of a singular value decomposition.
    It is inexact only for the smallest singular values, which are never kept.
    """
    values, vectors = torch.linalg.eigh(_gram(matrix))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    wide = matrix.shape[0] <= matrix.shape[1]
    return (values, vectors, vectors.T @ matrix) if wide else (values, matrix @ vectors, vectors.T)


def _gram(matrix: Tensor) -> Tensor:
    """The smaller of M M^T and M^T M."""
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def allot(energies: Mapping[str, Tensor], costs: Mapping[str, int], budget: float) -> dict[str, int]:
    """How many directions of each matrix to keep: those with the most energy for a byte, while `budget` lasts."""
    if not energies:
        return {}
    names = list(energies)
    worth = torch.cat([energies[name] / costs[name] for name in names])
    owner = torch.cat([torch.full((len(energies[name]),), number) for number, name in enumerate(names)])
    price = torch.tensor([costs[name] for name in names])[owner]
    order = worth.argsort(descending=True, stable=True)
    affordable = order[price[order].cumsum(0) <= budget]
    # Within a matrix energies fall, so the kept ones are its first.
    ranks = torch.bincount(owner[affordable[worth[affordable] > 0]], minlength=len(names))
    return dict(zip(names, ranks.tolist(), strict=True))


def quantised(factor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 (k, n) and the float32 scales (k, 1) of its rows; half precision is coarse below 1e-5."""
    scale = (factor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
    return (factor / scale).round().clamp(-127, 127).to(torch.int8).cpu().contiguous(), scale.cpu()


def restored(tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor | None:
    """One weight's difference (`shape`), multiplied out from its stored factors; None if none are stored."""
    if name in tensors:
        return tensors[name].float()
    if f"{name}.left" not in tensors:
        return None
    left, right = (tensors[f"{name}.{part}"].float() * tensors[f"{name}.{part}.scale"] for part in ("left", "right"))
    return (left.T @ right).reshape(shape)


@torch.no_grad()
def read_delta(
    tensors: Mapping[str, Tensor], module: nn.Module, device: torch.device, dtype: torch.dtype
) -> dict[str, Factors | Affine]:
    """The stored differences of one part of the base, for `engine.adapters.applied.apply_adapters`, on `device`:
    factors in `dtype`, biases and norms in float32.

    Only linear layers, convolutions and norms can have one, and the bases' denoisers consist of these; a tensor of any
    other layer, such as an embedding, is refused.

    Args:
        tensors: as `compress` makes them, under the names that `module` has for its weights.
    Raises:
        ValueError: a name or shape that does not belong to `module`.
    """
    layers: dict[str, Any] = {
        plain_name(name): getattr(layer, "base_layer", layer) for name, layer in module.named_modules()
    }
    kept = {key.removesuffix(".scale").removesuffix(".left").removesuffix(".right") for key in tensors}
    found = dict[str, Factors | Affine]()
    for key in sorted(kept):
        name, _, last = key.rpartition(".")
        layer = layers.get(name)
        if last not in ("weight", "bias") or not isinstance(layer, nn.Linear | nn.Conv2d | Norm):
            raise ValueError(f"{key} is no weight of this base that a difference can be applied to")
        if name not in found:
            weight, bias = f"{name}.weight", tensors.get(f"{name}.bias")
            own = getattr(layer, "bias", None)
            if bias is not None and (own is None or bias.shape != own.shape):
                raise ValueError(f"{name}.bias has other sizes in this base")
            moved = None if bias is None else bias.to(device, torch.float32)
            if isinstance(layer, Norm):
                found[name] = _affine(tensors.get(weight), moved, layer, name)
            else:
                down, up = _factors(tensors, weight, layer)
                found[name] = Factors(down.to(device, dtype), up.to(device, dtype), shift=moved)
    return found


def _affine(weight: Tensor | None, bias: Tensor | None, norm: Any, name: str) -> Affine:
    own = norm.weight
    if own is None or own.ndim != 1 or (weight is not None and weight.shape != own.shape):
        raise ValueError(f"{name}.weight has other sizes in this base")
    none = torch.zeros(len(own), device=own.device)
    return Affine(none if weight is None else weight.to(none), none if bias is None else bias)


def _factors(tensors: Mapping[str, Tensor], key: str, layer: Any) -> tuple[Tensor, Tensor]:
    """A weight's stored factors as down (r, in, ...) and up (out, r), float32. Where only the bias has changed, they
    are zeros of rank 1, since a convolution needs at least one channel.

    The two factors of each rank get equal norms: the differences are too small for half precision, their roots are not.
    """
    out, *rest = layer.weight.shape
    if key in tensors or getattr(layer, "groups", 1) != 1:
        raise ValueError(f"{key} is not stored as factors")
    if f"{key}.left" not in tensors:
        return torch.zeros(1, *rest), torch.zeros(out, 1)
    left, right = (tensors[f"{key}.{part}"].float() * tensors[f"{key}.{part}.scale"] for part in ("left", "right"))
    if left.shape[1] != out or right.shape[1] != torch.Size(rest).numel() or len(left) != len(right):
        raise ValueError(f"{key} has other sizes in this base")
    lengths = [factor.norm(dim=1, keepdim=True).clamp(min=1e-20) for factor in (left, right)]
    even = (lengths[1] / lengths[0]).sqrt()
    return (right / even).reshape(-1, *rest), (left * even).T.contiguous()
