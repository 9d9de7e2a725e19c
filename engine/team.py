"""Several devices that learn one album together: each takes its share of a step's rows, and gradients are added up.

`accelerate launch -m engine train ...` or `torchrun -m engine train ...` starts one process for each device; every
process draws the same chances and keeps the same weights, so the team's step is one process's step over all its rows.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Team:
    """One process alone; nothing to wait for and nothing to add up."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the sum of all processes' tensors, in place."""

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """The first process goes through the body before the others do: what it writes, they read."""
        yield


ALONE = Team()


class Devices(Team):
    """The processes that accelerate or torchrun has started, as accelerate sees them."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._state.process_index, self._state.num_processes
        self.device: torch.device = self._state.device

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        from accelerate.utils import reduce

        for tensor in tensors:
            tensor.copy_(reduce(tensor, "sum"))

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        with self._state.main_process_first():
            yield


def join() -> Team:
    """The team that this process was started in."""
    return Devices() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ALONE
