"""How much memory there is, how much a training step wants, and how to tell that it was not enough."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SHARE = 0.8
"""Of the free memory, so much may be filled with activations; the rest is for what this estimate does not see."""


def free_memory(device: torch.device) -> int | None:
    """Free bytes on the device; None where nobody can tell."""
    if device.type == "cuda":
        # What torch holds and does not use is free to it too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return None


def activation_bytes(forward: Callable[[], object]) -> int:
    """Bytes that autograd keeps of one forward pass: each storage once, and none of a parameter's."""
    kept: dict[int, int] = {}
    hold: list[Tensor] = []  # storages that are let go could give their address to others

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and not (tensor.is_leaf and tensor._base is None):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            hold.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def rows_that_fit(row_bytes: int, rows: int, free: int | None) -> int:
    """How many rows of `row_bytes` go through at once, at most `rows`; 0 if not even one does."""
    if free is None or row_bytes <= 0:
        return rows
    return min(rows, int(SHARE * free) // row_bytes)


@dataclass
class Attempt:
    """How something went that memory may have been too short for."""

    short: bool = False


@contextmanager
def attempt() -> Iterator[Attempt]:
    """Within, too little memory ends what is tried and is told instead of raised.

    Whoever tries something smaller does so afterwards: until then the error's traceback holds on to the tensors that
    were too much.
    """
    tried = Attempt()
    try:
        yield tried
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        tried.short = True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a device, or the CPU's allocator, that had no memory left."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "DefaultCPUAllocator: can't allocate" in said)
    )
