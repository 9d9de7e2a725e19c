"""Run a training script of diffusers unchanged: `python -m tests.benchmarks.reference SCRIPT RECORD OPTIONS...`

The scripts want `torchvision.transforms`, which does not import beside the CPU build of torch. The few of them that the
scripts use stand here in Pillow, put in torchvision's place after diffusers and transformers have looked for it.

RECORD is a folder, or `-`. There it leaves what chance decided (initial LoRA weights, latents, noise and timesteps of
every step) and the loss of every step, so that our own loop can be given the same, and the seconds between two steps.
"""

import enum
import importlib.machinery
import itertools
import json
import runpy
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode(enum.Enum):
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC
    LANCZOS = Image.Resampling.LANCZOS
    NEAREST = Image.Resampling.NEAREST


class Compose:
    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, picture: Any) -> Any:
        for step in self.steps:
            picture = step(picture)
        return picture


class Resize:
    """The shorter side at `size`."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, picture: Image.Image) -> Image.Image:
        scale = self.size / min(picture.size)
        return picture.resize((round(picture.width * scale), round(picture.height * scale)), self.interpolation.value)


class CenterCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        left, top = (picture.width - self.size) // 2, (picture.height - self.size) // 2
        return picture.crop((left, top, left + self.size, top + self.size))


class RandomCrop(CenterCrop):
    def __call__(self, picture: Image.Image) -> Image.Image:
        left = int(torch.randint(0, picture.width - self.size + 1, ()))
        top = int(torch.randint(0, picture.height - self.size + 1, ()))
        return picture.crop((left, top, left + self.size, top + self.size))


class ToTensor:
    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)


class Normalize:
    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.mean, self.deviation = mean[0], deviation[0]

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        return (picture - self.mean) / self.deviation


def stand_in() -> None:
    """Put these in torchvision's place."""
    import diffusers.models
    import diffusers.optimization
    import transformers

    # What the libraries import lazily must have looked for torchvision before there seems to be one.
    _ = diffusers.AutoencoderKL, diffusers.DDPMScheduler, diffusers.StableDiffusionPipeline
    _ = diffusers.UNet2DConditionModel, transformers.AutoTokenizer, transformers.CLIPTextModel
    torchvision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    torchvision.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    for part in (InterpolationMode, Compose, Resize, CenterCrop, RandomCrop, ToTensor, Normalize):
        setattr(transforms, part.__name__, part)
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": transforms}


def record(folder: Path) -> Callable[[], None]:
    """Note what chance decides; the function that is returned writes it to `folder`."""
    from accelerate import Accelerator
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    losses: list[float] = []
    ticks: list[float] = []
    counts = {"latent": 0, "noise": 0, "timestep": 0}

    def keep(kind: str, value: torch.Tensor) -> None:
        tensors[f"{kind}.{counts[kind]}"] = value.detach().clone()
        counts[kind] += 1

    sample, randn_like, randint = DiagonalGaussianDistribution.sample, torch.randn_like, torch.randint
    adamw, log = torch.optim.AdamW.__init__, Accelerator.log

    def noted_sample(self: Any, *args: Any, **options: Any) -> torch.Tensor:
        latent: torch.Tensor = sample(self, *args, **options)
        keep("latent", latent)
        return latent

    def noted_noise(like: torch.Tensor, **options: Any) -> torch.Tensor:
        noise = randn_like(like, **options)
        keep("noise", noise)
        return noise

    def noted_timestep(low: int, high: int, *args: Any, **options: Any) -> torch.Tensor:
        timestep = randint(low, high, *args, **options)
        if timestep.ndim == 1:
            keep("timestep", timestep)
        return timestep

    def noted_weights(self: Any, parameters: Any, *args: Any, **options: Any) -> None:
        parameters = list(parameters)
        if not any(group for group in parameters if isinstance(group, dict)):
            tensors.update({f"parameter.{n}": p.detach().clone() for n, p in enumerate(parameters)})
        adamw(self, parameters, *args, **options)

    def noted_loss(self: Any, values: dict[str, Any], *args: Any, **options: Any) -> None:
        losses.append(float(values["loss"]))
        ticks.append(time.perf_counter())
        log(self, values, *args, **options)

    DiagonalGaussianDistribution.sample = noted_sample
    torch.randn_like, torch.randint = noted_noise, noted_timestep
    torch.optim.AdamW.__init__ = noted_weights  # type: ignore[method-assign]
    Accelerator.log = noted_loss

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "chance.safetensors")
        (folder / "losses.json").write_text(json.dumps(losses))
        times = [after - before for before, after in itertools.pairwise(ticks)]
        (folder / "times.json").write_text(json.dumps(times))

    return write


if __name__ == "__main__":
    script, record_folder, *options = sys.argv[1:]
    stand_in()
    write = record(Path(record_folder)) if record_folder != "-" else lambda: None
    sys.argv = [script, *options]
    runpy.run_path(script, run_name="__main__")
    write()
