"""Draw the pre-training set once: `python -m engine.pretraining.pictures --out DIR --count 24000`.

Writes `pictures.npy` (uint8, (count, 128, 128, 3)) and `scenes.jsonl` (what each picture shows). Captions are not
stored: every training step writes new ones. A stopped run resumes. Ran once; kept so that it can be repeated.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from engine.toon import SIZE
from engine.toon.world import Look, Person, Scene, render, sample_scene

BLOCK = 500


def _draw(seed: int) -> tuple[Scene, NDArray[np.uint8]]:
    scene = sample_scene(Random(seed))
    return scene, np.asarray(render(scene), np.uint8)


def draw(out: Path, count: int, processes: int) -> None:
    """Draw pictures 0 to `count` - 1, each with its number as seed. Skips those that were drawn before."""
    out.mkdir(parents=True, exist_ok=True)
    pictures, scenes = out / "pictures.npy", out / "scenes.jsonl"
    done = len(scenes.read_text().splitlines()) // BLOCK * BLOCK if scenes.exists() else 0
    mode = "r+" if pictures.exists() else "w+"
    array = np.lib.format.open_memmap(pictures, mode, np.uint8, (count, SIZE, SIZE, 3))
    with Pool(processes) as pool, scenes.open("a") as log:
        log.truncate(sum(len(line) + 1 for line in scenes.read_text().splitlines()[:done]))
        for start in range(done, count, BLOCK):
            drawn = pool.map(_draw, range(start, min(count, start + BLOCK)), chunksize=25)
            array[start : start + len(drawn)] = np.stack([picture for _, picture in drawn])
            array.flush()
            log.writelines(json.dumps(dataclasses.asdict(scene)) + "\n" for scene, _ in drawn)
            log.flush()
            print(f"{start + len(drawn)}/{count} pictures", flush=True)


def load(folder: Path) -> tuple[NDArray[np.uint8], list[Scene]]:
    """Read a drawn set into memory (50 KB a picture) with its scenes."""
    scenes = list(_scenes(folder / "scenes.jsonl"))
    return np.load(folder / "pictures.npy")[: len(scenes)], scenes


def _scenes(path: Path) -> Iterator[Scene]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        yield Scene(Person(**row["person"]), Look(**row["look"]), row["grain"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    draw(arguments.out, arguments.count, arguments.processes)
