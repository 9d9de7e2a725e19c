"""The resumable training loop that the stages of this folder share.

It runs on a CPU as on CUDA. `torchrun --nproc-per-node N -m engine.pretraining` trains data parallel: each process
computes the loss of its rows, and all copies are updated by the mean of the gradients. On a CPU, one process of one
thread for each core was 1.2 times as fast as one process of two threads, which wait for each other after every
operation.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from engine.learning import objectives
from storage.atomic import atomic_write, write_text

LARGEST_FILE = 15_000_000
"""Bytes of one file of a checkpoint: a rented machine may hand files back only in pieces."""


class OutOfTime(Exception):
    """The time that a run was given is over. Its checkpoint is written; the next run goes on from it."""


@dataclass(frozen=True)
class Run:
    """Where and how long a stage runs."""

    folder: Path
    """Of checkpoints and logs."""
    device: torch.device
    deadline: float = math.inf
    """On `time.monotonic`'s clock: the loop saves and raises `OutOfTime` when it is reached."""
    save_every: int = 500
    """Steps between two checkpoints."""

    def check_time(self) -> None:
        """Raises OutOfTime: the deadline is over."""
        if time.monotonic() >= self.deadline:
            raise OutOfTime(str(self.folder.name))


def join_processes(device: torch.device) -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) unless torchrun started it."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def _flat_gradients(module: nn.Module) -> Tensor:
    """One buffer for all gradients. Each parameter's gradient is a view of it, so all-reduce needs no copy."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    for parameter, part in zip(parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True):
        # In the parameter's own memory format: the fused optimizer walks both in memory order.
        parameter.grad = part.as_strided(parameter.shape, parameter.stride())
    return flat


def cooldown_learning_rate(step: int, steps: int, peak: float, *, warmup: int = 200, cooldown: float = 0.25) -> float:
    """The learning rate at `step`: linear warm-up, constant, and a cool-down of peak x (1 - sqrt(progress)).

    Nothing before the cool-down depends on `steps`, so it may be changed during a run, unlike with a cosine
    (arXiv 2405.18392, section 3).

    Args:
        cooldown: its share of the steps, at the end.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - (1 - cooldown) * steps) / (cooldown * steps)
    return peak * (1 - math.sqrt(min(1.0, max(0.0, progress))))


class MovingAverage:
    """The exponential moving average of a module's parameters. Its decay rises over the steps (`ema_decay`)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    def update(self, module: nn.Module, step: int) -> None:
        decay = objectives.ema_decay(self.decay, step)
        objectives.average(list(self.module.parameters()), list(module.parameters()), decay)


def pretrain(
    module: nn.Module,
    loss: Callable[[int], dict[str, Tensor]],
    run: Run,
    *,
    steps: int,
    learning_rate: float,
    decay: float = 0.999,
    weight_decay: float = 0.01,
    on_save: Callable[[nn.Module, int], dict[str, float]] = lambda module, step: {},
) -> nn.Module:
    """Train `module` by AdamW and return its moving average.

    A stopped run resumes: the run's folder keeps the module, its average, AdamW's moments and the step as safetensors.
    It also has `log.jsonl`, one line for every 50 steps, and the same figures for TensorBoard.

    Args:
        loss: the losses at a step; the one under "loss" is minimised, the others are logged. All randomness comes from
            the step and the process's rank, so that a resumed run equals one that never stopped.
        decay: of the moving average.
        on_save: measures the average at each checkpoint; its figures are logged.

    Raises:
        OutOfTime: the deadline came first; the checkpoint is written.
    """
    from torch.utils.tensorboard import SummaryWriter

    # 1. The module, its average and the optimizer, or those of the last checkpoint
    rank, processes = join_processes(run.device)
    run.folder.mkdir(parents=True, exist_ok=True)
    module.to(run.device)
    average = MovingAverage(module, decay)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    last = _last_checkpoint(run.folder)
    step = _restore(last, module, average.module, optimizer) if last else 0
    board = SummaryWriter(str(run.folder / "tensorboard")) if rank == 0 else None
    began, since, sums = time.monotonic(), step, dict[str, Tensor]()
    module.train()
    gradients = _flat_gradients(module)
    # 2. The steps
    while step < steps:
        late = time.monotonic() >= run.deadline
        if processes > 1:  # all processes stop at the same step
            flag = torch.tensor(float(late), device=run.device)
            distributed.all_reduce(flag)
            late = bool(flag > 0)
        if late:
            if rank == 0 and step > since:
                _save(run.folder, module, average.module, optimizer, step)
            raise OutOfTime(run.folder.name)
        for group in optimizer.param_groups:
            group["lr"] = cooldown_learning_rate(step, steps, learning_rate)
        losses = loss(step)
        gradients.zero_()
        (losses["loss"] / processes).backward()
        if processes > 1:
            distributed.all_reduce(gradients)
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        step += 1
        if board is None:
            continue
        # 3. Averages, log and checkpoint
        average.update(module, step)
        for name, value in {**losses, "norm": norm}.items():
            sums[name] = sums.get(name, torch.zeros((), device=run.device)) + value.detach().float() / 50
        if step % 50 == 0:
            row = {"step": step, "steps_per_s": (step - since) / (time.monotonic() - began)}
            _log(run.folder, board, row | {name: float(value) for name, value in sums.items()})
            sums = {}
        if step % run.save_every == 0 or step == steps:
            _save(run.folder, module, average.module, optimizer, step)
            _log(run.folder, board, {"step": step} | on_save(average.module, step))
    return average.module


def load_as_float32(config: Path) -> None:
    """Have transformers load half-precision weights as float32: the configuration decides."""
    write_text(config, config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def _log(folder: Path, board: object, row: Mapping[str, float]) -> None:
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({name: round(value, 5) for name, value in row.items()}) + "\n")
    for name, value in row.items():
        board.add_scalar(name, value, row["step"])  # type: ignore[attr-defined]


def _last_checkpoint(folder: Path) -> Path | None:
    found = sorted(folder.glob("checkpoint-*"))
    return found[-1] if found else None


def _save(folder: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write a checkpoint as files of at most `LARGEST_FILE` bytes, in a folder that appears whole; drop older ones."""
    tensors = {"step": torch.tensor(step)}
    for (name, parameter), (_, averaged) in zip(module.named_parameters(), average.named_parameters(), strict=True):
        tensors[f"model.{name}"], tensors[f"average.{name}"] = parameter.detach(), averaged
        state = optimizer.state[parameter]
        tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
    draft, path = folder / "draft", folder / f"checkpoint-{step:07d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        weight = tensor.numel() * tensor.element_size()
        if size and size + weight > LARGEST_FILE:
            parts.append({})
            size = 0
        parts[-1][name] = tensor.detach().cpu().contiguous().clone()
        size += weight
    for number, part in enumerate(parts):
        with atomic_write(draft / f"part-{number:03d}.safetensors") as file:
            save_file(part, file)
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    for older in folder.glob("checkpoint-*"):
        if older != path:
            shutil.rmtree(older)


@torch.no_grad()
def _restore(path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    tensors: dict[str, Tensor] = {}
    for part in sorted(path.glob("part-*.safetensors")):
        tensors |= load_file(part)
    for (name, parameter), (_, averaged) in zip(module.named_parameters(), average.named_parameters(), strict=True):
        parameter.copy_(tensors[f"model.{name}"])
        averaged.copy_(tensors[f"average.{name}"])
        optimizer.state[parameter] = {
            "step": tensors["step"].float().clone(),
            "exp_avg": torch.empty_like(parameter).copy_(tensors[f"first.{name}"]),
            "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"second.{name}"]),
        }
    return int(tensors["step"])
