"""The pictures that the base is pre-trained on: `draw` renders them, `Pictures` reads them.

For each shape of picture there is one file of pixels (uint8, (count, height, width, 3)) and one of scenes. Captions are
not stored: every training step writes new ones. A stopped run resumes.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from engine.cartoon import SIZE
from engine.cartoon.figure import render
from engine.cartoon.pose import Pose
from engine.cartoon.world import RATIOS, Look, Person, Scene, sample_scene
from engine.pretraining.loop import Run

BLOCK = 500

SHARES: Mapping[str, float] = {"square": 0.8, "portrait": 0.1, "landscape": 0.1}
"""Shares of the pictures, by shape."""


def shape_of(ratio: str, size: int = SIZE) -> tuple[int, int]:
    """Height and width in pixels of pictures of this shape."""
    across, down = RATIOS[ratio]
    return size * down // min(across, down), size * across // min(across, down)


def scene_of(seed: int, ratio: str) -> Scene:
    """The scene with this number: the same on every machine."""
    scene = sample_scene(Random(f"{ratio} {seed}"))
    return dataclasses.replace(scene, look=dataclasses.replace(scene.look, ratio=ratio))


def _draw(seed: int, ratio: str) -> tuple[Scene, NDArray[np.uint8]]:
    scene = scene_of(seed, ratio)
    return scene, np.asarray(render(scene), np.uint8)


def draw(run: Run, count: int, processes: int) -> None:
    """Draw `count` pictures in all, and write them into the run's folder. Those drawn before are kept.

    Raises:
        OutOfTime: the deadline came first.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for ratio, share in SHARES.items():
            total = round(count * share)
            pixels, scenes = run.folder / f"{ratio}.npy", run.folder / f"{ratio}.jsonl"
            done = len(scenes.read_text().splitlines()) // BLOCK * BLOCK if scenes.exists() else 0
            mode = "r+" if pixels.exists() else "w+"
            array = np.lib.format.open_memmap(pixels, mode, np.uint8, (total, *shape_of(ratio), 3))
            with scenes.open("a") as log:
                log.truncate(sum(len(line) + 1 for line in scenes.read_text().splitlines()[:done]))
                for start in range(done, total, BLOCK):
                    run.check_time()
                    seeds = range(start, min(total, start + BLOCK))
                    drawn = list(pool.map(_draw, seeds, [ratio] * len(seeds), chunksize=25))
                    array[start : start + len(drawn)] = np.stack([picture for _, picture in drawn])
                    array.flush()
                    log.writelines(json.dumps(dataclasses.asdict(scene)) + "\n" for scene, _ in drawn)
                    log.flush()
                    print(f"{ratio}: {start + len(drawn)} of {total} pictures", flush=True)


@dataclass(frozen=True)
class Pictures:
    """The drawn pictures of one shape."""

    folder: Path
    ratio: str = "square"

    @cached_property
    def scenes(self) -> list[Scene]:
        """What each picture shows."""
        return list(_scenes(self.folder / f"{self.ratio}.jsonl"))

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(count, height, width, 3), read from the disk as needed."""
        pixels: NDArray[np.uint8] = np.load(self.folder / f"{self.ratio}.npy", mmap_mode="r")
        return pixels[: len(self.scenes)]

    def __len__(self) -> int:
        return len(self.scenes)


def _scenes(path: Path) -> Iterator[Scene]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        look = row["look"]
        look = Look(**{**look, "things": tuple(look["things"]), "pose": Pose(**look["pose"])})
        yield Scene(Person(**row["person"]), look, row["grain"])
