"""Optimisers, learning-rate schedules, and the checkpoint that holds all that a run needs to go on."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import InputError
from engine.recipe import Recipe, Schedule

Group = dict[str, Any]


def make(recipe: Recipe, groups: Sequence[Group], device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser for `groups` of {"params", "lr"}.

    Raises:
        InputError: `optimiser_unusable` where its library or its kind of device is missing.
    """
    decay, groups = recipe.weight_decay, list(groups)
    if recipe.optimiser == "adamw":
        # Fused needs no temporary copies of all parameters, which foreach does.
        return torch.optim.AdamW(groups, weight_decay=decay, fused=device.type in ("cpu", "cuda"))
    try:
        if recipe.optimiser == "prodigy":
            from prodigyopt import Prodigy

            # Warm-up is safe only if the estimate does not trust the first, small steps (prodigyopt's README).
            return Prodigy(groups, weight_decay=decay, use_bias_correction=True, safeguard_warmup=recipe.warmup > 0)  # type: ignore[no-any-return]
        if recipe.optimiser == "schedulefree":
            from schedulefree import AdamWScheduleFree

            return AdamWScheduleFree(groups, weight_decay=decay)  # type: ignore[no-any-return]
        if device.type != "cuda":
            raise InputError("optimiser_unusable", optimiser=recipe.optimiser, reason="it needs CUDA")
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(groups, weight_decay=decay)  # type: ignore[no-any-return]
    except ImportError as error:
        reason = f"pip install {error.name}"
        raise InputError("optimiser_unusable", optimiser=recipe.optimiser, reason=reason) from error


def learning_rate_at(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """The share of the full learning rate at `step`, from 0 (diffusers' optimization.py names and shapes them).

    Rises in a line over `warmup` steps; then stays, falls in a line to 0, or along half a cosine (arXiv 1608.03983).
    """
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    gone = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone)))


@contextmanager
def settled(
    optimiser: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], mean: Sequence[Tensor] | None
) -> Iterator[None]:
    """Within: the weights that are kept in the end, the running mean's or a schedule-free optimiser's own.

    Afterwards training goes on, bit for bit, from the weights that it had.
    """
    if mean is None and not hasattr(optimiser, "eval"):
        yield
        return
    before = [parameter.detach().clone() for parameter in parameters]
    if hasattr(optimiser, "eval"):
        optimiser.eval()
    if mean is not None:
        _put(parameters, mean)
    try:
        yield
    finally:
        if hasattr(optimiser, "train"):
            optimiser.train()
        _put(parameters, before)


@torch.no_grad()
def _put(parameters: Sequence[torch.nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def save_checkpoint(
    path: Path,
    run: str,
    step: int,
    parameters: Sequence[torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    mean: Sequence[Tensor] | None,
    scaler: dict[str, Any],
) -> None:
    """Write all that the next step depends on, complete or not at all: tensors as they are, the rest as JSON.

    What chance decides needs no state: it follows from the seed and the step's number alone. `run` tells what was
    being learned, and how, so that nothing else goes on from here.
    """
    state = optimiser.state_dict()
    tensors, plain = dict[str, Tensor](), dict[str, dict[str, Any]]()
    for number, parameter in enumerate(parameters):
        tensors[f"parameter.{number}"] = parameter.detach()
        for name, value in state["state"].get(number, {}).items():
            if isinstance(value, Tensor):
                tensors[f"state.{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    for number, value in enumerate(mean or ()):
        tensors[f"mean.{number}"] = value
    # A tensor's numbers are written as they are; what two share, or hold with gaps, safetensors would refuse. The rest,
    # gigabytes in a large model, is not copied.
    held = set[int]()
    for name, value in tensors.items():
        whole = value.detach().cpu().contiguous()
        storage = whole.untyped_storage().data_ptr()
        tensors[name] = whole.clone() if storage in held else whole
        held.add(storage)
    groups = [{name: value for name, value in group.items() if name != "params"} for group in state["param_groups"]]
    facts = {"run": run, "step": step, "plain": plain, "groups": groups, "scaler": scaler}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"checkpoint": json.dumps(facts, default=_listed)})
    partial.replace(path)


def _listed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item() if value.ndim == 0 else value.tolist()
    raise TypeError(f"{type(value).__name__} in an optimiser's state")


@torch.no_grad()
def load_checkpoint(
    path: Path,
    run: str,
    parameters: Sequence[torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    mean: Sequence[Tensor] | None,
) -> tuple[int, dict[str, Any]]:
    """Put everything back where it was; the step to go on with, and the gradient scaler's state.

    Without a checkpoint of this very run, that is step 0, and nothing is touched.
    """
    if not path.exists():
        return 0, {}
    with safe_open(path, "pt") as reader:
        facts = json.loads(reader.metadata()["checkpoint"])
        if facts["run"] != run:
            return 0, {}
        tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (not a mapping)
    for number, parameter in enumerate(parameters):
        parameter.copy_(tensors[f"parameter.{number}"])
    for number, value in enumerate(mean or ()):
        value.copy_(tensors[f"mean.{number}"])
    state: dict[int, dict[str, Any]] = {int(number): values for number, values in facts["plain"].items()}
    for name, value in tensors.items():
        if name.startswith("state."):
            _, number, field = name.split(".", 2)
            state.setdefault(int(number), {})[field] = value
    now = optimiser.state_dict()["param_groups"]
    groups = [{**old, **{k: tuple(v) if isinstance(old.get(k), tuple) else v for k, v in group.items()}}
              for old, group in zip(now, facts["groups"], strict=True)]  # fmt: skip
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return int(facts["step"]), facts["scaler"]
