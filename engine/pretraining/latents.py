"""Latents of the drawn pictures, and where their faces are: what the U-Net is trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from engine.cartoon.artwork import CANVAS
from engine.cartoon.figure import canvas, features
from engine.cartoon.world import Scene
from engine.device.precision import autocast
from engine.pretraining.loop import Run
from engine.pretraining.pictures import Pictures
from engine.pretraining.vae import CHANNELS, DOWN, mean_of, to_input
from storage.atomic import atomic_write, write_text

FACE, HEAD = 4.0, 1.2
"""Weight that is added to a place at an eye or the mouth, and to one of the head; all places have 1."""


@torch.no_grad()
def encode(run: Run, pictures: Pictures, vae: AutoencoderKL, batch: int = 32) -> None:
    """Write the latent means of the pictures, float16 (count, 16, h / 16, w / 16), into the run's folder.

    Raises:
        OutOfTime: the deadline came first. The pictures that were encoded are kept.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    path, progress = run.folder / f"{pictures.ratio}.npy", run.folder / f"{pictures.ratio}.txt"
    count, height, width, _ = pictures.pixels.shape
    mode = "r+" if path.exists() else "w+"
    latents = np.lib.format.open_memmap(path, mode, np.float16, (count, CHANNELS, height // DOWN, width // DOWN))
    start = int(progress.read_text()) if progress.exists() else 0
    vae = vae.to(run.device, memory_format=torch.channels_last).eval()
    while start < count:
        run.check_time()
        end = min(count, start + 16 * batch)
        for first in range(start, end, batch):
            with autocast(run.device):
                latent = mean_of(vae, to_input(pictures.pixels[first : min(end, first + batch)], run.device))
            latents[first : first + len(latent)] = latent.half().cpu().numpy()
        latents.flush()
        write_text(progress, str(end))
        start = end


def weights(scene: Scene) -> NDArray[np.float32]:
    """Weights (h, w), mean 1, of the squared errors at the places of a latent: larger at the head, the eyes, the mouth.

    Eyes and mouths fill a twentieth of the picture, and half of what prompts ask for is there. Hair and beards, whose
    outlines came out as mixtures, are most of a person's identity.
    """
    width, height = (round(side / CANVAS * 16) for side in canvas(scene))
    place = CANVAS / 16
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    points = features(scene) / place - 0.5  # in places
    size = scene.look.pose.scale
    here = np.stack((columns, rows), axis=-1)  # (h, w, 2)

    def near(point: NDArray[np.float64], radius: float) -> NDArray[np.float32]:
        distance = np.linalg.norm(here - point, axis=-1) / max(1.0, radius * size)
        bump: NDArray[np.float32] = np.exp(-0.5 * distance**2).astype(np.float32)
        return bump

    face = np.maximum.reduce([near(points[0], 1.2), near(points[1], 1.2), near(points[2], 1.5)])
    head = near(points.mean(axis=0) + np.array((0, -0.5)) * size, 4.0)
    weight = 1 + FACE * face + HEAD * head
    normal: NDArray[np.float32] = weight / weight.mean()
    return normal


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of one shape, with their scenes and weights."""

    values: NDArray[np.float16]
    """(count, 16, h, w)"""
    scenes: list[Scene]
    weights: NDArray[np.float16]
    """(count, h, w)"""

    @classmethod
    def load(cls, folder: Path, pictures: Pictures) -> "Latents":
        """The latents that `encode` wrote into `folder`."""
        kept = folder / f"{pictures.ratio}-weights.npy"
        if not kept.exists():
            with atomic_write(kept) as draft:
                np.save(draft, np.stack([weights(scene) for scene in pictures.scenes]).astype(np.float16))
        return cls(np.load(folder / f"{pictures.ratio}.npy"), pictures.scenes, np.load(kept))
