"""The checkpoint that holds everything a training run needs to resume."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from engine.sentences import sentence
from engine.tensor_files import read_metadata, read_tensors
from storage.atomic import atomic_write
from storage.errors import UserError


class UnusableCheckpoint(Exception):
    """A run cannot go on from this checkpoint. Its message is a warning's code: the file is damaged, or of another
    run."""


@contextmanager
def settled(
    optimiser: Optimizer, parameters: Sequence[torch.nn.Parameter], mean: Sequence[Tensor] | None
) -> Iterator[None]:
    """A context in which the parameters hold the weights to save: the running mean, or the averaged weights of a
    schedule-free optimiser. Afterwards they have exactly the values that they had before.

    Args:
        mean: the running mean of the parameters; None where there is none.
    """
    if mean is None and not hasattr(optimiser, "eval"):
        yield
        return
    before = [parameter.detach().clone() for parameter in parameters]
    if hasattr(optimiser, "eval"):
        optimiser.eval()
    if mean is not None:
        _copy(parameters, mean)
    try:
        yield
    finally:
        if hasattr(optimiser, "train"):
            optimiser.train()
        _copy(parameters, before)


@torch.no_grad()
def _copy(parameters: Sequence[torch.nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def save_checkpoint(
    path: Path,
    run: str,
    step: int,
    parameters: Sequence[torch.nn.Parameter],
    optimiser: Optimizer,
    mean: Sequence[Tensor] | None,
    scaler: dict[str, Any],
    lineage: str = "",
) -> None:
    """Write everything that the next step depends on, atomically: tensors in their own dtypes, other values as JSON.

    Random generators need no state: their numbers follow from the seed and the step's number.

    Args:
        run: digest of the material and the configuration; a run with another digest does not resume from this file.
        step: the number of steps taken.
        mean: the running mean of the parameters; None where there is none.
        scaler: the gradient scaler's state.
        lineage: as `run`, without the number of steps; a longer run resumes from this file.
    Raises:
        UserError: `disk_full`.
        OSError, SafetensorError: it cannot be written for another reason.
    """
    state = optimiser.state_dict()
    # 1. Tensors: parameters, optimizer state and running mean.
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
    # safetensors refuses tensors that share a storage or are not contiguous. Only those are copied, since a large model
    # has gigabytes.
    storages = set[int]()
    for name, value in tensors.items():
        contiguous = value.detach().cpu().contiguous()
        storage = contiguous.untyped_storage().data_ptr()
        tensors[name] = contiguous.clone() if storage in storages else contiguous
        storages.add(storage)
    # 2. The values that are no tensors, in the file's header.
    groups = [{name: value for name, value in group.items() if name != "params"} for group in state["param_groups"]]
    facts = {"run": run, "lineage": lineage, "step": step, "plain": plain, "groups": groups, "scaler": scaler}
    with atomic_write(path) as draft:
        save_file(tensors, draft, {"checkpoint": json.dumps(facts, default=_as_json)})


def _as_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item() if value.ndim == 0 else value.tolist()
    raise TypeError(f"{type(value).__name__} in an optimiser's state")


def failure_of(write: Callable[[], None]) -> str:
    """Write a file that a run can do without; the reason if it cannot be written, or ""."""
    try:
        write()
    except UserError as error:
        return sentence(error)
    except (OSError, SafetensorError) as error:
        return f"{error}."
    return ""


def kept_step(path: Path) -> int | None:
    """The number of steps that a checkpoint holds; None without one that can be read."""
    try:
        return int(_facts(path)["step"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(read_metadata(path)["checkpoint"])
    return facts


def load_checkpoint(
    path: Path,
    run: str,
    parameters: Sequence[torch.nn.Parameter],
    optimiser: Optimizer,
    mean: Sequence[Tensor] | None,
    lineage: str = "",
    steps: int | None = None,
) -> tuple[int, dict[str, Any]]:
    """Restore parameters, optimiser and running mean.

    Args:
        run, lineage: as in `save_checkpoint`; a checkpoint of the same run, or of a shorter one of the same lineage.
        steps: of the run. A checkpoint of more steps is of another run.
    Returns:
        The number of steps taken and the gradient scaler's state. Without a file: 0 and {}, and nothing is changed.
    Raises:
        UnusableCheckpoint: `checkpoint_damaged` or `checkpoint_of_another_run`; nothing is changed.
    """
    if not path.exists():
        return 0, {}
    try:
        facts = _facts(path)
        step, same = int(facts["step"]), facts["run"] == run or (lineage and facts.get("lineage") == lineage)
        if not same or (steps is not None and step > steps):
            raise UnusableCheckpoint("checkpoint_of_another_run")
        tensors = read_tensors(path)
        state = _state(facts, tensors, parameters, mean)
        groups, scaler = _groups(facts, optimiser), dict(facts["scaler"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnusableCheckpoint("checkpoint_damaged") from error
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"parameter.{number}"])
        for number, value in enumerate(mean or ()):
            value.copy_(tensors[f"mean.{number}"])
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return step, scaler


def _state(
    facts: dict[str, Any],
    tensors: dict[str, Tensor],
    parameters: Sequence[torch.nn.Parameter],
    mean: Sequence[Tensor] | None,
) -> dict[int, dict[str, Any]]:
    """The optimiser's state by the parameters' numbers.

    Raises:
        ValueError: the tensors are not those of these parameters and this running mean, or are not finite.
    """
    state: dict[int, dict[str, Any]] = {int(number): values for number, values in facts["plain"].items()}
    wanted = {f"parameter.{number}": one.shape for number, one in enumerate(parameters)}
    wanted |= {f"mean.{number}": one.shape for number, one in enumerate(mean or ())}
    found = {name: value.shape for name, value in tensors.items() if not name.startswith("state.")}
    if found != wanted:
        raise ValueError("it holds other parameters")
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
        if name.startswith("state."):
            _, index, field = name.split(".", 2)
            state.setdefault(int(index), {})[field] = value
    if not all(0 <= number < len(parameters) for number in state):
        raise ValueError("it holds the state of other parameters")
    return state


def _groups(facts: dict[str, Any], optimiser: Optimizer) -> list[dict[str, Any]]:
    """The optimiser's parameter groups. JSON has no tuples: a value becomes one again where this optimiser has one,
    such as betas."""
    return [
        {**own, **{key: tuple(value) if isinstance(own.get(key), tuple) else value for key, value in saved.items()}}
        for own, saved in zip(optimiser.state_dict()["param_groups"], facts["groups"], strict=True)
    ]
