"""The resumable training loop of the embedded base's parts. The scripts of this folder share it.

They ran once, and are kept so that the weights can be made again. `torchrun --nproc-per-node N -m engine.pretraining.…`
trains data parallel: each process computes the loss of its own rows, and the mean of the gradients moves all copies. On
a CPU, one process of one thread for each core was 1.2 times as fast as one process of two threads, which wait for each
other after every operation.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from engine.learning import objectives
from storage.atomic import atomic_write, write_text


def join() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) unless torchrun started it."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def _flat_gradients(module: nn.Module) -> Tensor:
    """One buffer that holds all gradients; each parameter's is a view of it, so they are summed without a copy."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for parameter, part in zip(parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True):
        # In the parameter's own memory format: the fused optimizer walks both in memory order.
        parameter.grad = part.as_strided(parameter.shape, parameter.stride())
    return flat


def learning_rate_at(step: int, steps: int, peak: float, *, warmup: int = 200, cooldown: float = 0.25) -> float:
    """Learning rate at `step`: linear warm-up, constant, and over the last quarter peak x (1 - sqrt(progress)).

    Unlike with a cosine, `steps` may be changed while a run is under way: nothing before the cool-down depends on it
    (arXiv 2405.18392, section 3).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - (1 - cooldown) * steps) / (cooldown * steps)
    return peak * (1 - math.sqrt(min(1.0, max(0.0, progress))))


class Average:
    """Exponential moving average of a module's parameters, whose decay rises as `ema_decay` says."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    def update(self, module: nn.Module, step: int) -> None:
        decay = objectives.ema_decay(self.decay, step)
        objectives.average(list(self.module.parameters()), list(module.parameters()), decay)


def pretrain(
    module: nn.Module,
    loss: Callable[[int], dict[str, Tensor]],
    out: Path,
    *,
    steps: int,
    learning_rate: float,
    decay: float = 0.999,
    weight_decay: float = 0.01,
    save_every: int = 500,
    on_save: Callable[[nn.Module, int], dict[str, float]] = lambda module, step: {},
) -> nn.Module:
    """Minimise `loss(step)["loss"]` over `module` and return its moving average.

    Stops and goes on at will: `out` keeps model, average, AdamW moments and step every `save_every` steps as
    safetensors, and `log.jsonl` (one line per 50 steps, mirrored to TensorBoard). `on_save` measures the average.
    """
    from torch.utils.tensorboard import SummaryWriter

    rank, processes = join()
    out.mkdir(parents=True, exist_ok=True)
    average = Average(module, decay)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    checkpoint = out / "checkpoint.safetensors"
    step = _restore(checkpoint, module, average.module, optimizer) if checkpoint.exists() else 0
    board = SummaryWriter(str(out / "tensorboard")) if rank == 0 else None
    began, since, sums = time.monotonic(), step, dict[str, float]()
    module.train()
    gradients = _flat_gradients(module)
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, learning_rate)
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
        average.update(module, step)
        for name, value in {**losses, "norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / 50
        if step % 50 == 0:
            row = {"step": step, "steps_per_s": (step - since) / (time.monotonic() - began)} | sums
            _log(out, board, row)
            sums = {}
        if step % save_every == 0 or step == steps:
            _save(checkpoint, module, average.module, optimizer, step)
            _log(out, board, {"step": step} | on_save(average.module, step))
    return average.module


def load_as_float32(config: Path) -> None:
    """Have transformers load half-precision weights as float32: it goes by what their configuration says."""
    write_text(config, config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def _log(out: Path, board: object, row: dict[str, float]) -> None:
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps({name: round(value, 5) for name, value in row.items()}) + "\n")
    for name, value in row.items():
        board.add_scalar(name, value, row["step"])  # type: ignore[attr-defined]


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return iter(module.named_parameters())


def _save(path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {"step": torch.tensor(step)}
    for (name, parameter), (_, averaged) in zip(_named(module), _named(average), strict=True):
        tensors[f"model.{name}"], tensors[f"average.{name}"] = parameter.detach(), averaged
        state = optimizer.state[parameter]
        tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
    with atomic_write(path) as draft:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, draft)


@torch.no_grad()
def _restore(path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    for (name, parameter), (_, averaged) in zip(_named(module), _named(average), strict=True):
        parameter.copy_(tensors[f"model.{name}"])
        averaged.copy_(tensors[f"average.{name}"])
        optimizer.state[parameter] = {
            "step": tensors["step"].float().clone(),
            "exp_avg": torch.empty_like(parameter).copy_(tensors[f"first.{name}"]),
            "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"second.{name}"]),
        }
    return int(tensors["step"])
