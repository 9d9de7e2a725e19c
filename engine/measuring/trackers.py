"""Experiment trackers: TensorBoard and Weights & Biases. Their packages are imported when a tracker is opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from storage.errors import UserError

TrackerKind = Literal["tensorboard", "wandb"]
PROJECT = "avatar-diffusion"


class Tracker(Protocol):
    """One run's figures over its steps."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log figures of a step, such as `loss`, `learning_rate` or `score/likeness`."""
        ...

    def pictures(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        """Log pictures of one size in a row."""
        ...

    def close(self) -> None:
        """Write everything that is not written yet."""
        ...


class TensorBoard:
    """Event files in a folder: `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        rows = "\n".join(f"| {name} | {value} |" for name, value in recipe.items())
        self._writer.add_text("recipe", f"| | |\n|---|---|\n{rows}")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        self._writer.add_image(name, np.asarray(grid(pictures)), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, configured by its environment variables; WANDB_MODE=offline keeps the run in `folder`.

    The run is also kept in `folder` if there is no login, or if the server refuses the run.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        options: Any = {"project": PROJECT, "dir": str(folder), "config": dict(recipe)}
        online = wandb.setup().settings.mode in ("online", "shared")
        try:
            why = "There is no login for W&B here" if online and not wandb.login(prompt=False) else ""
            self._run = wandb.init(**options, mode="offline" if why else None)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            why = f"W&B does not take the run ({str(error).splitlines()[0][:120]})"
            self._run = wandb.init(**options, mode="offline")
        if why:
            kept = Path(self._run.dir).parent
            print(f"{why}: the run is kept. To upload it later: wandb login, then wandb sync {kept}", flush=True)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def pictures(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        self._run.log({name: [self._wandb.Image(picture) for picture in pictures]}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(kind: TrackerKind, folder: Path, recipe: Mapping[str, Any]) -> Tracker:
    """The tracker of this kind, writing to `folder`.

    Raises:
        UserError: `tracker_missing` if its package is not installed.
    """
    kinds: Mapping[TrackerKind, type[TensorBoard | WeightsAndBiases]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
    }
    try:
        return kinds[kind](folder, recipe)
    except ImportError as error:
        raise UserError("tracker_missing", tracker=kind, package=kind) from error


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in one row."""
    width, height = pictures[0].size
    board = Image.new("RGB", (width * len(pictures), height))
    for column, picture in enumerate(pictures):
        board.paste(picture, (column * width, 0))
    return board
