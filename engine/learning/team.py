"""Data-parallel training: each device takes its share of a step's rows, and gradients are summed.

`accelerate launch -m engine train ...`, `torchrun -m engine train ...` or mpirun starts one process for each device.
All processes make the same random choices and keep the same weights, so the team's step equals one process's step over
all rows.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed

from engine.learning import launched
from storage.errors import UserError

Item = TypeVar("Item")


class Team:
    """The processes that train together. This base class is one process alone, with nothing to wait for or to sum."""

    rank, size = 0, 1
    """This process's number, from 0, and how many there are."""

    @property
    def first(self) -> bool:
        """Whether this is the main process, the one that writes files and prints."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, with the sum of all processes' tensors; all of them pass the same shapes."""

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The main process runs the block before the others, so that they read what it writes."""
        yield


SINGLE_PROCESS = Team()

BUCKET = 6_000_000
"""Most numbers in one message, 24 MB as float32; DistributedDataParallel's default is 25 MB."""


def group_by_size(items: Iterable[Item], most: int, numbers: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Consecutive items in groups of at most `most` numbers in total; a larger item is a group by itself.

    Args:
        numbers: how many numbers an item has.
    """
    group, size = list[Item](), 0
    for item in items:
        if group and size + numbers(item) > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += numbers(item)
    if group:
        yield group


class Devices(Team):
    """The processes that a launcher has started, through accelerate's `PartialState`."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._state.process_index, self._state.num_processes
        self.device: torch.device = self._state.device

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        from accelerate.utils import reduce

        # Each message costs a round trip, so small tensors are sent as one.
        for several in group_by_size(tensors, BUCKET, Tensor.numel):
            total = reduce(torch.cat([tensor.flatten().float() for tensor in several]), "sum")
            for tensor, part in zip(several, total.split([tensor.numel() for tensor in several]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        with self._state.main_process_first():
            yield


def join() -> Team:
    """The team that this process belongs to.

    Raises:
        UserError: `no_team` if other processes were started with this one and cannot be reached: each would train alone
            and overwrite the others' file; also as `engine.learning.launched.set_torch_variables`.
    """
    if not launched.set_torch_variables(os.environ):
        return SINGLE_PROCESS
    team, size = Devices(), int(os.environ["WORLD_SIZE"])
    if team.size != size:
        raise UserError("no_team", size=size, found=team.size)
    # Else a thread of the process group may still run when the interpreter ends, and the process aborts.
    atexit.register(_leave)
    return team


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
