"""How a small model shares a CPU's cores.

The operations of a small denoiser are too short to be split over two cores: the cores wait for each other after every
operation, which costs what the second core saves. Two halves of a batch, each on one core, wait only once. On two
cores, a step of the embedded base's recipe took 0.53 s with split operations, 0.35 s on one core and 0.28 s in halves;
a step of a guided drawing of four pictures took 82 ms on one core and 49 ms in halves. Halves of few rows wait for
Python's lock instead: while two other programs ran, one picture took 1.4 s on one core and 5.2 s in halves.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Item = TypeVar("Item")

LARGE = 100_000_000
"""Parameters from which on each operation keeps all cores busy by itself; Stable Diffusion's U-Net has 860 million."""

MIN_SPLIT_ROWS = 8
"""Rows from which on halves are faster than one core."""


class Model(Protocol):
    """What decides whether a model is small: its device, and the number of its denoiser's parameters."""

    @property
    def device(self) -> torch.device: ...

    @property
    def size(self) -> int: ...


def small(model: Model) -> bool:
    """Whether this is a model on a CPU whose operations are too short for several cores to share."""
    return model.device.type == "cpu" and model.size < LARGE


def split_rows(model: Model, rows: int, work: Callable[[slice], Result]) -> list[Result]:
    """Call `work` on the rows of a batch: once on all rows, or on each half on its own core where that is faster.

    `work` has to enter contexts that torch keeps for each thread, such as autocast and no_grad. If one half raises, the
    exception is passed on after the other half has ended.

    Args:
        rows: the number of rows.
        work: takes a slice of the rows.
    Returns:
        The results, in the order of the rows: one, or one for each half.
    """
    if rows < MIN_SPLIT_ROWS or torch.get_num_threads() < 2 or not small(model):
        with one_core(model):
            return [work(slice(None))]
    return _run_both([lambda: work(slice(0, rows // 2)), lambda: work(slice(rows // 2, None))])


def split_items(work: Callable[[list[Item]], Result], items: list[Item], sizes: Sequence[int]) -> list[Result]:
    """Call `work` on all items or, if torch may use two cores, on two parts of about the same size in parallel.

    Args:
        sizes: one for each item, in any unit.
    Returns:
        The results, in the order of the items: one, or one for each part.
    """
    if torch.get_num_threads() < 2 or len(items) < 2:
        return [work(items)]
    sums = list(accumulate(sizes))
    # Neither part is empty, however large a single item is.
    middle = min(max(1, bisect(sums, sums[-1] // 2)), len(items) - 1)
    return _run_both([lambda: work(items[:middle]), lambda: work(items[middle:])])


def split_tensors(work: Callable[[list[Tensor]], Result], tensors: list[Tensor]) -> list[Result]:
    """Call `work`, without gradients, on all tensors; on a CPU, on two parts of them in parallel if they are few.

    Returns:
        The results, in the order of the tensors: none, one, or one for each part.
    """
    if not tensors:
        return []
    sizes = [tensor.numel() for tensor in tensors]
    if tensors[0].device.type == "cpu" and sum(sizes) < LARGE:
        return split_items(torch.no_grad()(work), tensors, sizes)
    return [work(tensors)]


@contextmanager
def one_core(model: Model) -> Iterator[None]:
    """Within: the operations of a small model run on one core."""
    cores = torch.get_num_threads()
    if cores == 1 or not small(model):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(cores)


def _run_both(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run two tasks at the same time, each on its own core. Returns their results."""
    cores = torch.get_num_threads()
    running = [_threads().submit(task) for task in tasks]
    # The new threads set a number of cores for themselves alone, but torch also records it as every thread's.
    torch.set_num_threads(cores)
    wait(running)
    return [task.result() for task in running]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, "half", initializer=_start)


def _start() -> None:
    # Torch's first call in a thread takes over the number that is recorded for every thread; only then can it be set.
    torch.get_num_threads()
    torch.set_num_threads(1)
