"""Drawing and learning fast: what is chosen for which model, and that everything is put back afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from engine.device.cores import LARGE
from engine.device.fast import MIN_BFLOAT16_ROWS, fast_drawing, fast_learning, learning_dtype

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Model:
    """As much of a base as the choice depends on."""

    device: torch.device = CPU
    size: int = 1000


SMALL, BIG, GPU = Model(), Model(size=LARGE), Model(torch.device("cuda"))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two cores of a processor that has bfloat16."""
    monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr("engine.device.fast.compute_dtype", lambda device: torch.bfloat16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def denoiser(trained: bool = False) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 3)).requires_grad_(trained)


def packs(module: nn.Module) -> list[bool]:
    return ["forward" in vars(layer) for layer in module]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("model", "packed"), [(SMALL, True), (BIG, True), (GPU, False)])
def test_weights_are_packed_while_a_cpu_draws(model: Model, packed: bool) -> None:
    unet = denoiser()
    with fast_drawing(model, unet):
        assert packs(unet) == [packed] * 2 and torch.get_num_threads() == 2
    assert packs(unet) == [False] * 2


def test_weights_are_packed_on_the_core_that_uses_them(monkeypatch) -> None:
    seen = list[int]()
    monkeypatch.setattr("engine.device.packed.packable", lambda layer: not seen.append(torch.get_num_threads()))
    for model, cores in ((SMALL, 1), (BIG, 2)):
        seen.clear()
        with fast_drawing(model, denoiser()):
            assert seen == [cores] * 2


@pytest.mark.parametrize(
    ("model", "dtype", "frozen", "packed"),
    [
        (SMALL, torch.bfloat16, True, True),
        (SMALL, torch.float32, True, False),
        (SMALL, torch.bfloat16, False, False),
        (BIG, torch.bfloat16, True, False),
        (GPU, torch.bfloat16, True, False),
    ],
)
def test_weights_are_packed_while_an_adapter_of_a_small_model_is_trained(model, dtype, frozen, packed) -> None:
    unet = denoiser()
    with fast_learning(model, unet, dtype, frozen):
        assert packs(unet) == [packed] * 2 and torch.get_num_threads() == 2
    assert packs(unet) == [False] * 2


@pytest.mark.parametrize(("model", "frozen", "cores"), [(SMALL, True, 1), (SMALL, False, 2), (BIG, True, 2)])
def test_an_adapters_update_takes_one_core(model: Model, frozen: bool, cores: int) -> None:
    with fast_learning(model, denoiser(), torch.float32, frozen) as learning:
        with learning.update():
            assert torch.get_num_threads() == cores
        assert torch.get_num_threads() == 2


def test_rows_of_a_step_are_split_as_those_of_a_drawing() -> None:
    with fast_learning(SMALL, denoiser(), torch.float32, True) as learning:
        assert learning.split_rows(8, lambda part: part) == [slice(0, 4), slice(4, None)]
        assert learning.split_rows(2, lambda part: part) == [slice(None)]


@pytest.mark.parametrize(
    ("dtype", "positions", "math"),
    [(torch.bfloat16, 64, True), (torch.bfloat16, 4096, False), (torch.float32, 64, False)],
)
def test_gradients_of_few_positions_are_computed_without_the_fused_kernel(dtype, positions, math) -> None:
    with fast_learning(SMALL, denoiser(), dtype, True) as learning, learning.gradients(positions):
        assert torch.backends.cuda.flash_sdp_enabled() != math
    assert torch.backends.cuda.flash_sdp_enabled()


def test_few_rows_of_a_small_models_own_weights_are_trained_in_float32() -> None:
    few, many = MIN_BFLOAT16_ROWS - 1, MIN_BFLOAT16_ROWS
    assert learning_dtype(SMALL, few, frozen=False) == torch.float32
    for model, rows, frozen in ((SMALL, many, False), (SMALL, few, True), (BIG, few, False), (GPU, few, False)):
        assert learning_dtype(model, rows, frozen) == torch.bfloat16


def test_everything_is_put_back_after_an_error() -> None:
    unet = denoiser()
    with (
        pytest.raises(KeyboardInterrupt),
        fast_learning(SMALL, unet, torch.bfloat16, True) as learning,
        learning.gradients(64),
        learning.update(),
    ):
        raise KeyboardInterrupt
    assert packs(unet) == [False] * 2 and torch.get_num_threads() == 2 and torch.backends.cuda.flash_sdp_enabled()
