"""Several devices that learn one album together: each takes its share of a step's rows, and gradients are added up.

`accelerate launch -m engine train ...`, `torchrun -m engine train ...` or mpirun starts one process for each device;
every process draws the same chances and keeps the same weights, so the team's step is one process's step over all its
rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from engine.learning import launched
from storage.errors import UserError

Item = TypeVar("Item")


class Team:
    """One process alone; nothing to wait for and nothing to add up."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the sum of all processes' tensors, in place."""

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The first process goes through the body before the others do: what it writes, they read."""
        yield


SINGLE_PROCESS = Team()

BUCKET = 6_000_000
"""Numbers in one message, 24 MB: DistributedDataParallel's default is 25 MB."""


def group_by_size(items: Iterable[Item], most: int, numbers: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in their order, in groups of at most `most` numbers; a larger one has a group to itself."""
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
    """The processes that accelerate or torchrun has started, as accelerate sees them."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._state.process_index, self._state.num_processes
        self.device: torch.device = self._state.device

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        from accelerate.utils import reduce

        # Many small tensors travel as one: each message costs a round trip.
        for several in group_by_size(tensors, BUCKET, Tensor.numel):
            total = reduce(torch.cat([tensor.flatten().float() for tensor in several]), "sum")
            for tensor, part in zip(several, total.split([tensor.numel() for tensor in several]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        with self._state.main_process_first():
            yield


def join() -> Team:
    """The team that this process was started in.

    Raises:
        UserError: `no_team` if others were started with it and it cannot reach them: alone, each would write over what
            the others learned; also as `engine.learning.launched.settle`.
    """
    if not launched.settle(os.environ):
        return SINGLE_PROCESS
    team, size = Devices(), int(os.environ["WORLD_SIZE"])
    if team.size != size:
        raise UserError("no_team", size=size, found=team.size)
    return team
