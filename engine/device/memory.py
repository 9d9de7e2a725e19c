"""How much memory is free, how much a training step needs, and how to tell that it was not enough."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil
import torch
from torch import Tensor, nn

from engine.device.torch_private import is_view
from storage.errors import UserError

Result = TypeVar("Result")

SHARE = 0.8
"""The share of the free memory that activations may fill. The rest is for what the estimate does not count."""


class OutOfMemory(UserError):
    """The device's memory did not suffice (`out_of_memory`)."""

    def __init__(self) -> None:
        super().__init__("out_of_memory")


def within_memory(work: Callable[[], Result]) -> Result:
    """What `work` returns.

    Raises:
        OutOfMemory: instead of torch's error. It holds no reference to the tensors of the failed work, so a caller may
            try something smaller at once.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    # After the handler, since torch's error, whose traceback holds the tensors, would otherwise be this one's context.
    torch.cuda.empty_cache()
    raise OutOfMemory


def free_memory(device: torch.device) -> int | None:
    """Free bytes on the device; None where they are not known."""
    if device.type == "cuda":
        # Memory that torch has reserved and does not use is free to torch.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


def activation_bytes(forward: Callable[[], object], models: Iterable[nn.Module] = ()) -> int:
    """Bytes that autograd keeps of one forward pass: each storage once, without those of parameters.

    Args:
        models: whose weights take no memory besides. Linear layers keep views of frozen weights for the backward pass.
    """
    kept: dict[int, int] = {}
    resting = {
        weight.untyped_storage().data_ptr() for model in models for weight in (*model.parameters(), *model.buffers())
    }
    hold: list[Tensor] = []  # a storage that is freed could give its address to another one

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        activation = not tensor.is_leaf or is_view(tensor)
        if activation and not isinstance(tensor, nn.Parameter) and place not in resting:
            kept[place] = tensor.untyped_storage().nbytes()
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


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, had no memory left."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in message or "DefaultCPUAllocator: can't allocate" in message)
    )
