"""Optimisers, learning-rate schedules and gradient clipping."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.device.cores import LARGE, Done, shared
from engine.learning.team import group_by_size
from engine.recipe import RateSchedule, Recipe
from storage.errors import UserError

Group = dict[str, Any]

PIECES = {"cpu": 2**17, "cuda": 2**24}
"""Numbers that move at once where copies are wanted for that: few, for a CPU's cache; many, for a GPU's launches."""


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2), by torch's fused kernel for CPU and CUDA.

    Fused needs no temporary copies of all parameters, as foreach does. It is torch.optim.AdamW to the bit, but for what
    torch's optimisers are wrapped in: that imports torch's compiler, a second and 70 MiB, to tell it to keep away.

    Of parameters whose gradients are kept in half precision (their `grad_dtype`), the gradients' running mean is, too
    (arXiv 2412.19437, section 3.3.2). That of their squares, which moves by a thousandth of itself, would stand still.
    """

    add_param_group, zero_grad = unwrap(Optimizer.add_param_group), unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)

    def __init__(self, groups: Sequence[Group], weight_decay: float) -> None:
        # The last is for whoever loads a state: its steps are tensors on the parameters' device.
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "fused": True})
        self._pieces: dict[tuple[int, ...], list[_Pieces]] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in learning:
                if parameter not in self.state:
                    self.state[parameter] = {
                        "step": torch.zeros((), device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter, dtype=parameter.grad_dtype),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }  # fmt: skip
            on_cores(partial(self._move, group), learning)

    def _move(self, group: Group, learning: list[Tensor]) -> None:
        torch._foreach_add_([self.state[one]["step"] for one in learning], 1)
        _fused(group, *self._of([one for one in learning if one.grad_dtype == one.dtype]))
        halved = [one for one in learning if one.grad_dtype != one.dtype]
        which = tuple(id(one) for one in halved)
        if halved and which not in self._pieces:
            self._pieces[which] = self._cut(halved)
        for some in self._pieces.get(which, ()):
            torch._foreach_copy_(some.gradients, [one.grad[rows] for one, rows in some.places])  # type: ignore[index]
            torch._foreach_copy_(some.means, some.halves)
            _fused(group, some.parameters, some.gradients, some.means, some.squares, some.steps)
            torch._foreach_copy_(some.halves, some.means)

    def _of(self, parameters: Sequence[Tensor]) -> tuple[list[Any], ...]:
        """Parameters, their gradients, the running means of these and of their squares, and the steps."""
        states = [self.state[one] for one in parameters]
        kept = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        return list(parameters), [one.grad for one in parameters], *kept

    def _cut(self, parameters: Sequence[Tensor]) -> list["_Pieces"]:
        """The parameters in pieces of rows, as many together as move at once."""
        most = max(PIECES[parameters[0].device.type], *(one[0].numel() for one in parameters))
        scratch = parameters[0].new_empty(2, most)
        places = [
            (one, slice(start, start + rows))
            for one in parameters
            if (rows := most // one[0].numel())
            for start in range(0, len(one), rows)
        ]
        found = []
        for some in group_by_size(places, most, lambda place: place[0][place[1]].numel()):
            own, _, halves, squares, steps = self._of([one for one, _ in some])
            weights, halves, squares = (
                [tensor.detach()[rows] for tensor, (_, rows) in zip(tensors, some, strict=True)]
                for tensors in (own, halves, squares)
            )
            sizes = [piece.numel() for piece in halves]
            gradients, means = (
                [part.view_as(piece) for part, piece in zip(row[: sum(sizes)].split(sizes), halves, strict=True)]
                for row in scratch
            )
            found.append(_Pieces(some, weights, halves, squares, steps, gradients, means))
        return found

    def let_go(self) -> None:
        """Forget the state, and with it the memory that it took."""
        self.state.clear()
        self._pieces.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that this optimiser or torch's AdamW had."""
        self._pieces.clear()
        unwrap(Optimizer.load_state_dict)(self, state_dict)
        # There it has all become the parameters' dtype.
        for parameter, state in self.state.items():
            state["exp_avg"] = state["exp_avg"].to(parameter.grad_dtype)


@dataclass(frozen=True)
class _Pieces:
    """Pieces of halved parameters that move at once, and copies with all digits, which the kernel wants."""

    places: list[tuple[Tensor, slice]]
    """Each piece's parameter and rows."""
    parameters: list[Tensor]
    halves: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]


def _fused(
    group: Group, parameters: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor],
    steps: list[Tensor],
) -> None:  # fmt: skip
    if parameters:
        torch._fused_adamw_(
            parameters, gradients, means, squares, [], steps, lr=group["lr"], beta1=0.9, beta2=0.999,
            weight_decay=group["weight_decay"], eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


def make(recipe: Recipe, groups: Sequence[Group], device: torch.device) -> Optimizer:
    """The recipe's optimiser for `groups` of {"params", "lr"}.

    Raises:
        UserError: `optimiser_unusable` where its library or its kind of device is missing.
    """
    decay, groups = recipe.weight_decay, list(groups)
    if recipe.optimiser == "adamw":
        if device.type in ("cpu", "cuda"):
            return AdamW(groups, decay)
        return torch.optim.AdamW(groups, weight_decay=decay)
    try:
        if recipe.optimiser == "prodigy":
            from prodigyopt import Prodigy

            # Warm-up is safe only if the estimate does not trust the first, small steps (prodigyopt's README).
            return Prodigy(groups, weight_decay=decay, use_bias_correction=True, safeguard_warmup=recipe.warmup > 0)  # type: ignore[no-any-return]
        if recipe.optimiser == "schedulefree":
            from schedulefree import AdamWScheduleFree

            return AdamWScheduleFree(groups, weight_decay=decay)  # type: ignore[no-any-return]
        if device.type != "cuda":
            raise UserError("optimiser_unusable", optimiser=recipe.optimiser, reason="it needs CUDA")
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(groups, weight_decay=decay)  # type: ignore[no-any-return]
    except ImportError as error:
        reason = f"pip install {error.name}"
        raise UserError("optimiser_unusable", optimiser=recipe.optimiser, reason=reason) from error


def learning_rate_at(schedule: RateSchedule, step: int, steps: int, warmup: int) -> float:
    """The share of the full learning rate at `step`, from 0 (diffusers' optimization.py names and shapes them).

    Rises in a line over `warmup` steps; then stays, falls in a line to 0, or along half a cosine (arXiv 1608.03983).
    """
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    gone = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone)))


def clip(parameters: Sequence[torch.nn.Parameter], most: float) -> None:
    """Scale the gradients so that their norm is `most` at most.

    As torch's `clip_grad_norm_`, which also multiplies by one all that need not be scaled, and adds the norms of
    gradients in half precision up in that.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [norm.float() for some in on_cores(torch._foreach_norm, gradients) for norm in some]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else 0.0
    if not norm <= most:
        coefficient = float(most / (norm + 1e-6))
        on_cores(lambda some: torch._foreach_mul_(some, coefficient), gradients)


def on_cores(work: Callable[[list[Tensor]], Done], tensors: list[Tensor]) -> list[Done]:
    """What `work` makes of all tensors; of a small model's on a CPU, each of two cores takes about half."""
    if not tensors:
        return []
    sizes = [tensor.numel() for tensor in tensors]
    if tensors[0].device.type == "cpu" and sum(sizes) < LARGE:
        return shared(torch.no_grad()(work), tensors, sizes)
    return [work(tensors)]
