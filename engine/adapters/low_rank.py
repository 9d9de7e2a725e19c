"""The kinds of layers in adapter files as sums of low ranks: LoRA, LoCon with a middle factor, LoHa and LoKr.

Each changes a weight W (out, in, ...) by a product B A, with A (r, in ...) and B (out, r), so each can be applied to
rows of a batch as a LoRA is. The formulas are those of lycoris-lora (lycoris/functional) and of arXiv 2309.14859:

- LoCon with a middle factor: B is `up` and A is `mid` times `down`.
- LoHa: (a1 b1) * (a2 b2), elementwise. Column (i, j) of B is a1[:, i] * a2[:, j], row (i, j) of A is b1[i] * b2[j].
- LoKr: kron(w1, w2) with w2 = a b is kron(w1, a) kron(1, b).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]
"""The tensors of one layer in a file, by their roles."""

Scaling = Callable[[int], float]
"""The scale of a layer of this rank, which is 0 for a LoKr without one."""

ROLES = (
    (
        "down",
        r"\.lora_A(?:\.\w+)?\.weight|\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight",
    ),
    ("up", r"\.lora_B(?:\.\w+)?\.weight|\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight"),
    ("mid", r"\.lora_mid\.weight"),
    ("alpha", r"(?:[._]lora)?\.alpha"),
    ("dora_scale", r"\.dora_scale"),
    ("magnitude", r"\.lora_magnitude_vector(?:\.\w+)*"),
    ("input_gain", r"\.lora_input_gain"),
    *((f"hada_{which}", rf"\.hada_{which}") for which in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *((f"lokr_{which}", rf"\.lokr_{which}") for which in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    ("scalar", r"\.scalar"),
)
"""The roles of the tensors of a layer, and regular expressions of the endings of their keys in all programs' files."""

KINDS = {
    "OFT or BOFT": r"\.b?oft_\w+(\.\w+)*", "T-LoRA": r"\.lambda_layer|\.[pq]_layer\.weight",
    "(IA)^3": r"\.ia3_l(\.\w+)*|\.on_input",
    "GLoRA": r"\.[abc][12](\.weight)?|\.[ab]m(\.weight)?", "full difference": r"\.diff", "HRA": r"\.hra_u(\.\w+)*",
    "VeRA": r"\.vera_\w+(\.\w+)*", "LoRA on embeddings": r"\.lora_embedding_[AB](\.\w+)*",
    "DyLoRA": r"\.lora_(up|down)_list(\.\w+)*", "LoRA-XS": r"\.lora_latent\w*(\.\w+)*",
}  # fmt: skip
"""Kinds of adapters that are no sums of low ranks, or are not read: regular expressions of their keys' endings."""


def kind_of(parts: Parts) -> str:
    """The kind of a layer's tensors: "LoRA", "LoCon", "LoHa" or "LoKr", with " DoRA" where it has magnitudes."""
    kind = "LoHa" if "hada_w1_a" in parts else "LoKr" if any(role.startswith("lokr_") for role in parts) else "LoRA"
    kind = "LoCon with a middle factor" if "mid" in parts else kind
    return f"{kind}, DoRA" if {"dora_scale", "magnitude", "input_gain"} & parts.keys() else kind


def low_rank(parts: Parts, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """A (r, in ...) and B (out, r) of a layer, float32, with its scale in B.

    The scale is the layer's own alpha / r. It is 1 for a LoKr that has no low rank, as in lycoris-lora.

    Args:
        scaling: the scale of a layer that has no alpha of its own.
    Raises:
        ValueError: a factor is missing, or factors do not belong together.
    """
    parts = {role: tensor.float() for role, tensor in parts.items()}
    try:
        down, up, rank = _factors(parts)
    except KeyError as error:
        raise ValueError(f"a factor is missing ({error.args[0]})") from error
    except (RuntimeError, IndexError) as error:
        raise ValueError("its factors have sizes that do not fit together") from error
    own = parts.get("alpha")
    if own is None:
        factor = scaling(rank)
    elif own.numel() != 1:
        raise ValueError("its alpha is not one number")
    else:
        factor = float(own) / rank if rank else 1.0
    if "scalar" in parts:
        factor *= float(parts["scalar"])
    return down, up * factor


def _factors(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int]:
    """A, B and the rank that alpha is divided by, 0 where alpha does not count.

    Raises:
        KeyError: a factor is missing.
        RuntimeError, IndexError: factors do not fit together.
    """
    if "hada_w1_a" in parts or "hada_w2_a" in parts:
        return _hadamard(parts)
    if any(role.startswith("lokr_") for role in parts):
        return _kronecker(parts)
    down, up = parts["down"], parts["up"].flatten(1)
    if up.shape[1] != down.shape[0] or not len(down):
        raise ValueError("its factors have sizes that do not fit together")
    if "mid" in parts:
        down = torch.einsum("mn...,nj->mj...", parts["mid"], down.flatten(1))
    return down, up, len(parts["down"])


def _hadamard(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int]:
    pairs = []
    for number in "12":
        out, into = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        if f"hada_t{number}" in parts:
            out, into = out.T, torch.einsum("ij...,jr->ir...", parts[f"hada_t{number}"], into)
        pairs.append((into, out.flatten(1)))
    (into, out), (other_into, other_out) = pairs
    rank = len(into)
    if rank * len(other_into) > min(len(out), into[0].numel()):
        product = (out @ into.flatten(1)) * (other_out @ other_into.flatten(1))
        return *_dense(product, into.shape[1:]), rank
    down = (into[:, None] * other_into[None]).flatten(0, 1)
    up = (out[:, :, None] * other_out[:, None, :]).flatten(1)
    return down, up, rank


def _kronecker(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int]:
    rank = 0
    if "lokr_w1" in parts:
        first = parts["lokr_w1"]
    else:
        first, rank = parts["lokr_w1_a"] @ parts["lokr_w1_b"], len(parts["lokr_w1_b"])
    ones = torch.eye(first.shape[1])
    if "lokr_w2" in parts:
        # Of the sums that are exact, the one with the lowest rank.
        whole = parts["lokr_w2"]
        if first.shape[1] * len(whole) <= first.shape[0] * whole[0].numel():
            return _kron(ones, whole), _kron(first, torch.eye(len(whole))), rank
        identity = torch.eye(whole[0].numel()).reshape(-1, *whole.shape[1:])
        return _kron(first, identity), _kron(torch.eye(len(first)), whole.flatten(1)), rank
    into, out = parts["lokr_w2_b"], parts["lokr_w2_a"]
    rank = len(into)
    if "lokr_t2" in parts:
        out, into = out.T, torch.einsum("ij...,jr->ir...", parts["lokr_t2"], into)
    return _kron(ones, into), _kron(first, out.flatten(1)), rank


def _kron(first: Tensor, second: Tensor) -> Tensor:
    """kron(first, second) over the first two dimensions; `second` may have others, such as a kernel's."""
    first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
    return torch.kron(first.contiguous(), second.contiguous())


def shaped(down: Tensor, into: Sequence[int]) -> Tensor:
    """A in the shape (r, *into) of its layer, whose kernel is 1 x 1 or flattened in some files.

    Raises:
        ValueError: it has another number of inputs.
    """
    if down[0].numel() != math.prod(into):
        raise ValueError("it has other sizes in this base")
    return down.reshape(len(down), *into)


def shortest(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of the same product, without ranks that add nothing, and with no more than the smaller side has."""
    used = (up.abs().amax(dim=0) > 0) & (down.flatten(1).abs().amax(dim=1) > 0)
    if not used.all() and used.any():
        down, up = down[used], up[:, used]
    out, into = len(up), down[0].numel()
    return (down, up) if len(down) <= min(out, into) else _dense(up @ down.flatten(1), down.shape[1:])


def _dense(product: Tensor, into: torch.Size) -> tuple[Tensor, Tensor]:
    """A (r, *into) and B (out, r) of a matrix (out, in), one of them the identity."""
    if product.shape[0] <= product.shape[1]:
        return product.reshape(-1, *into), torch.eye(len(product))
    return torch.eye(product.shape[1]).reshape(-1, *into), product


def exact_rank(parts: Parts) -> int:
    """The rank of the sum that `low_rank` makes, at most: a layer's smaller side may be less.

    Raises:
        KeyError, IndexError: a factor is missing, or has too few dimensions.
    """
    if "hada_w1_b" in parts:
        return len(parts["hada_w1_b"]) * len(parts["hada_w2_b"])
    if any(role.startswith("lokr_") for role in parts):
        rows, columns = (
            parts["lokr_w1"].shape if "lokr_w1" in parts else (len(parts["lokr_w1_a"]), parts["lokr_w1_b"].shape[1])
        )
        if "lokr_w2" not in parts:
            return columns * len(parts["lokr_w2_b"])
        second = parts["lokr_w2"]
        return min(columns * len(second), rows * second[0].numel())
    return len(parts["down"])


def balanced(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of the same product whose ranks have norms of about the same size, so that half precision holds both.

    By powers of two, which change no digit.
    """
    norms = down.flatten(1).norm(dim=1), up.norm(dim=0)
    shift = torch.where((norms[0] > 0) & (norms[1] > 0), (norms[1] / norms[0].clamp(min=1e-38)).log2() / 2, 0.0)
    factor = torch.exp2(shift.nan_to_num(0, 0, 0).round())
    return down * factor.reshape(-1, *[1] * (down.ndim - 1)), up / factor


def nearest(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The factors of the product of `rank` that is nearest to B A (Eckart and Young), and |B A - B' A'|^2.

    Args:
        down: A (r, in ...).
        up: B (out, r).
    """
    if len(down) <= rank:
        return down, up, 0.0
    left, right = torch.linalg.qr(up), torch.linalg.qr(down.flatten(1).T)
    first, values, second = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    roots = values[:rank].sqrt()
    lower = roots[:, None] * (second[:rank] @ right.Q.T)
    return lower.reshape(rank, *down.shape[1:]), left.Q @ first[:, :rank] * roots, float(values[rank:].square().sum())
