"""Adam's moments in bfloat16 under a kernel for float32: parameters in blocks, converted one block at a time.

A block holds rows of one or more parameters. Its gradients and means are copied into float32 scratch memory, which all
blocks share, and the new means are copied back. So the copies never take more memory than one block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.device.torch_private import foreach
from engine.learning.team import group_by_size

BLOCK_SIZE = {"cpu": 2**17, "cuda": 2**24}
"""Numbers in one block by device type: few, to stay in a CPU's cache; many, to keep a GPU's launches rare."""


@dataclass(frozen=True)
class Block:
    """Rows of parameters that an optimiser updates at once. All lists have one entry for each piece of a parameter."""

    pieces: list[tuple[Tensor, slice]]
    """Each piece's parameter and its rows."""
    parameters: list[Tensor]
    """The pieces themselves, float32 views."""
    stored_means: list[Tensor]
    """The gradients' running means, bfloat16 views of the optimiser's state."""
    squares: list[Tensor]
    """The running means of the gradients' squares, float32 views of the state."""
    steps: list[Tensor]
    gradients: list[Tensor]
    """Scratch, float32."""
    means: list[Tensor]
    """Scratch, float32."""

    def load(self) -> None:
        """Copy gradients and means to float32."""
        foreach("copy_", self.gradients, [parameter.grad[rows] for parameter, rows in self.pieces])  # type: ignore[index]
        foreach("copy_", self.means, self.stored_means)

    def store(self) -> None:
        """Copy the new means back."""
        foreach("copy_", self.stored_means, self.means)


def cut(parameters: Sequence[Tensor], state: Mapping[Tensor, Mapping[str, Any]]) -> list[Block]:
    """The blocks of parameters of at least two dimensions on one device.

    Args:
        state: the optimiser's, with `exp_avg` (bfloat16), `exp_avg_sq` and `step` of each parameter.
    """
    size = max(BLOCK_SIZE[parameters[0].device.type], *(parameter[0].numel() for parameter in parameters))
    scratch = parameters[0].new_empty(2, size)
    pieces = [
        (parameter, slice(start, start + rows))
        for parameter in parameters
        if (rows := size // parameter[0].numel())
        for start in range(0, len(parameter), rows)
    ]
    return [
        _block(group, state, scratch) for group in group_by_size(pieces, size, lambda piece: piece[0][piece[1]].numel())
    ]


def _block(pieces: list[tuple[Tensor, slice]], state: Mapping[Tensor, Mapping[str, Any]], scratch: Tensor) -> Block:
    parameters = [parameter.detach()[rows] for parameter, rows in pieces]
    sizes = [piece.numel() for piece in parameters]
    gradients, means = (
        [part.view_as(piece) for part, piece in zip(row[: sum(sizes)].split(sizes), parameters, strict=True)]
        for row in scratch
    )
    stored_means, squares = (
        [state[parameter][name][rows] for parameter, rows in pieces] for name in ("exp_avg", "exp_avg_sq")
    )
    steps = [state[parameter]["step"] for parameter, _ in pieces]
    return Block(pieces, parameters, stored_means, squares, steps, gradients, means)
