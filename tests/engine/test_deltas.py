"""Differences stored as thin factors: within their budget, first what matters most, with the error they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.deltas import allot, compress, directions, quantised, restored


def low_rank(rank: int, *shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    across = torch.Size(shape[1:]).numel()
    return (torch.randn(shape[0], rank, generator=random) @ torch.randn(rank, across, generator=random)).reshape(shape)


@given(st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40)
def test_all_directions_together_are_the_matrix(high: int, wide: int) -> None:
    matrix = torch.randn(high, wide, generator=torch.Generator().manual_seed(high * 13 + wide))
    energies, left, right = directions(matrix)
    assert torch.allclose(left @ right, matrix, atol=1e-4)
    assert (energies.diff() <= 1e-5).all()
    assert float(energies.sum()) == pytest.approx(float(matrix.square().sum()), rel=1e-3)


def test_what_has_few_directions_is_stored_nearly_exactly_convolutions_too() -> None:
    weights = {"a": low_rank(2, 64, 96), "b": low_rank(3, 48, 32, 3, 3), "c.bias": torch.randn(64)}
    delta = compress(lambda: weights.items())
    assert delta.share <= 0.15 and delta.error < 0.02
    for name, weight in weights.items():
        found = restored(delta.tensors, name, weight.shape)
        assert found is not None and float((found - weight).norm() / weight.norm()) < 0.02


@given(st.floats(0.02, 0.5))
@settings(max_examples=20, deadline=None)
def test_the_budget_holds_and_the_error_is_the_true_one(share: float) -> None:
    weights = {name: torch.randn(40, 60, generator=torch.Generator().manual_seed(n)) for n, name in enumerate("abc")}
    delta = compress(lambda: weights.items(), share)
    assert delta.share <= share
    found = {name: restored(delta.tensors, name, weight.shape) for name, weight in weights.items()}
    missed = sum(
        float((weight if (kept := found[name]) is None else weight - kept).square().sum())
        for name, weight in weights.items()
    )
    whole = sum(float(weight.square().sum()) for weight in weights.values())
    assert delta.error == pytest.approx((missed / whole) ** 0.5, rel=1e-3)


def test_the_bytes_go_where_the_difference_is() -> None:
    energies = {"much": torch.tensor([100.0, 90.0, 80.0]), "little": torch.tensor([1.0, 0.1, 0.0])}
    assert allot(energies, {"much": 10, "little": 10}, 40) == {"much": 3, "little": 1}
    assert allot(energies, {"much": 10, "little": 10}, 5) == {"much": 0, "little": 0}


def test_no_change_takes_no_bytes_and_has_no_error() -> None:
    delta = compress(lambda: [("a", torch.zeros(20, 20))])
    assert delta.error == 0 and restored(delta.tensors, "a", torch.Size((20, 20))) is None


def test_a_byte_is_enough_for_small_numbers_as_well() -> None:
    factor = torch.randn(3, 50) * torch.tensor([[1.0], [1e-6], [1e-12]])
    numbers, scales = quantised(factor)
    assert numbers.dtype == torch.int8
    assert float(((numbers * scales - factor).norm(dim=1) / factor.norm(dim=1)).max()) < 0.02
