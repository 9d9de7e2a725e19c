"""Optimisers, learning-rate schedules and gradient clipping."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.device.cores import split_tensors
from engine.device.torch_private import foreach, fused_adamw, undecorated
from engine.learning.blocks import Block, cut
from engine.recipe import RateSchedule, Recipe
from storage.errors import UserError

Group = dict[str, Any]


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2), by torch's fused kernel for CPU and CUDA.

    The fused kernel needs no temporary copies of all parameters, unlike foreach. The results are those of
    torch.optim.AdamW to the bit. torch's own class is not used because its wrappers import torch's compiler.

    For parameters whose gradients are in bfloat16 (their `grad_dtype`), the gradients' running mean is bfloat16 too
    (arXiv 2412.19437, section 3.3.2). The mean of their squares stays float32: it moves by a thousandth of itself at a
    time, which bfloat16 would round away.
    """

    add_param_group, zero_grad = undecorated(Optimizer.add_param_group), undecorated(Optimizer.zero_grad)
    state_dict = undecorated(Optimizer.state_dict)

    def __init__(self, groups: Sequence[Group], weight_decay: float) -> None:
        # "fused" tells load_state_dict that the steps are tensors on the parameters' device.
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "fused": True})
        self._blocks: dict[tuple[int, ...], list[Block]] = {}
        """Views of the state, by the ids of the parameters; cleared with the state."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                if parameter not in self.state:
                    self.state[parameter] = {
                        "step": torch.zeros((), device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter, dtype=parameter.grad_dtype),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
            split_tensors(partial(self._update, group), parameters)

    def _update(self, group: Group, parameters: list[Tensor]) -> None:
        options = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        foreach("add_", [self.state[parameter]["step"] for parameter in parameters], 1)
        full = [parameter for parameter in parameters if parameter.grad_dtype == parameter.dtype]
        gradients = [parameter.grad for parameter in full if parameter.grad is not None]
        means, squares, steps = (
            [self.state[parameter][name] for parameter in full] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        fused_adamw(full, gradients, means, squares, steps, **options)
        for block in self._blocks_of(
            [parameter for parameter in parameters if parameter.grad_dtype != parameter.dtype]
        ):
            block.load()
            fused_adamw(block.parameters, block.gradients, block.means, block.squares, block.steps, **options)
            block.store()

    def _blocks_of(self, parameters: list[Tensor]) -> list[Block]:
        key = tuple(id(parameter) for parameter in parameters)
        if parameters and key not in self._blocks:
            self._blocks[key] = cut(parameters, self.state)
        return self._blocks.get(key, [])

    def clear_state(self) -> None:
        """Forget the state, and the blocks that are views of it."""
        self.state.clear()
        self._blocks.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state of this class or of torch.optim.AdamW."""
        self._blocks.clear()
        undecorated(Optimizer.load_state_dict)(self, state_dict)
        # torch casts every tensor of a state to its parameter's dtype.
        for parameter, state in self.state.items():
            state["exp_avg"] = state["exp_avg"].to(parameter.grad_dtype)


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

            # It estimates one rate for all parameters, so groups with rates of their own are refused.
            groups = [{**group, "lr": recipe.learning_rate} for group in groups]
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


def clear_state(optimiser: Optimizer) -> None:
    """Free the memory of an optimiser's state, after the last step."""
    if isinstance(optimiser, AdamW):
        optimiser.clear_state()
    else:
        optimiser.state.clear()


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

    As torch's `clip_grad_norm_`, except that it leaves gradients alone that need no scaling, and adds up the norms of
    bfloat16 gradients in float32.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [norm.float() for some in split_tensors(partial(foreach, "norm"), gradients) for norm in some]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else 0.0
    if not norm <= most:
        coefficient = float(most / (norm + 1e-6))
        split_tensors(lambda some: foreach("mul_", some, coefficient), gradients)
