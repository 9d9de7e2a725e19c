"""The facade of the CPU optimizations for small models: the number of cores, packed weights and the attention kernel.

A caller says what it does: draw with a denoiser, train it, or work on one core. This module decides what to optimize,
by the size of the model and the device. On a GPU, and for a large model, most of it does nothing. Results are the same
up to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from engine.device.cores import Model, one_core, small, split_rows
from engine.device.packed import packed
from engine.device.precision import attention, compute_dtype

__all__ = ["FastLearning", "fast_drawing", "fast_learning", "learning_dtype", "one_core", "small", "split_rows"]

Result = TypeVar("Result")

MIN_BFLOAT16_ROWS = 4
"""Rows of a step from which on bfloat16 is faster in training a small model's own weights, which each step casts again.
A step of full DreamBooth with one row on the embedded base took 138 ms in bfloat16 and 112 ms in float32."""


@contextmanager
def fast_drawing(model: Model, denoiser: nn.Module) -> Iterator[None]:
    """Within: draw with `denoiser`, whose weights stay as they are. Send the rows of each step through `split_rows`."""
    with ExitStack() as stack:
        with one_core(model):  # the weights are packed where they are used
            stack.enter_context(packed(denoiser, model.device))
        yield


@dataclass(frozen=True)
class FastLearning:
    """How the steps of one training run compute."""

    model: Model
    dtype: torch.dtype
    frozen: bool

    def gradients(self, positions: int) -> AbstractContextManager[object]:
        """Within: forward and backward pass of one step, on latents of at most `positions` = h w positions.

        As `engine.device.precision.attention`.
        """
        return attention(self.model.device, self.dtype, positions)

    def split_rows(self, rows: int, work: Callable[[slice], Result]) -> list[Result]:
        """As `engine.device.cores.split_rows`."""
        return split_rows(self.model, rows, work)

    def update(self) -> AbstractContextManager[object]:
        """Within: clip the gradients and let the optimiser step. An adapter's many small tensors take one core."""
        return one_core(self.model) if self.frozen else nullcontext()


@contextmanager
def fast_learning(model: Model, denoiser: nn.Module, dtype: torch.dtype, frozen: bool) -> Iterator[FastLearning]:
    """Within: train through `denoiser`.

    Args:
        dtype: the dtype that the run computes in.
        frozen: an adapter is trained, and the denoiser's own weights stay as they are. A small model's are then packed.
    """
    with ExitStack() as stack:
        if frozen and small(model) and dtype == torch.bfloat16:
            with one_core(model):  # the weights are packed where they are used
                stack.enter_context(packed(denoiser, model.device, learning=True))
        yield FastLearning(model, dtype, frozen)


def learning_dtype(model: Model, rows: int, frozen: bool) -> torch.dtype:
    """The fastest dtype to train in.

    Args:
        rows: of one step, on this device.
        frozen: an adapter is trained, and the model's own weights stay as they are.
    """
    if small(model) and not frozen and rows < MIN_BFLOAT16_ROWS:
        return torch.float32
    return compute_dtype(model.device)
