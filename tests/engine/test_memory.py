"""Free memory is known, and too little of it raises one error of our own that holds nothing of the failed work."""

import gc
import weakref

import psutil
import pytest
import torch
from torch import nn

from engine.device import memory
from engine.device.memory import OutOfMemory, within_memory
from storage.errors import UserError


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_too_little_memory_is_one_error_that_holds_no_tensors(error: Exception) -> None:
    kept = list[weakref.ref[torch.Tensor]]()

    def work() -> None:
        activations = torch.zeros(3)
        kept.append(weakref.ref(activations))
        raise error

    with pytest.raises(OutOfMemory) as raised:
        within_memory(work)
    assert isinstance(raised.value, UserError) and raised.value.code == "out_of_memory"
    assert raised.value.__context__ is None and raised.value.__cause__ is None
    error.__traceback__ = None  # the test's own reference
    gc.collect()
    assert kept[0]() is None


def test_an_allocation_that_cannot_succeed_is_recognised() -> None:
    with pytest.raises(OutOfMemory):
        within_memory(lambda: torch.empty(2**50, dtype=torch.uint8))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_pass(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        within_memory(work)
    assert raised.value is error


def test_frozen_weights_are_not_counted_into_activations() -> None:
    """A linear layer keeps a view of its weight for the backward pass, but the weight is in memory anyway."""
    layers = nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256)).requires_grad_(False)
    rows = torch.randn(2, 256, requires_grad=True)
    kept = memory.activation_bytes(lambda: layers(rows * 2), [layers])
    assert 0 <= kept < layers[0].weight.nbytes / 10


def test_what_the_work_returns_is_returned() -> None:
    assert within_memory(lambda: 7) == 7


def test_free_memory_of_a_cpu_is_what_the_system_has_available(monkeypatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 12345})())
    assert memory.free_memory(torch.device("cpu")) == 12345
    assert memory.free_memory(torch.device("meta")) is None
