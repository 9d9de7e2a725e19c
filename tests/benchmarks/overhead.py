"""What a warm request costs beside its models: `python -m tests.benchmarks.overhead [--before TREE]`.

One picture with one avatar in four steps on the tiny Stable Diffusion of `tests.engine.tiny`, as the GPU process draws
it: settled, then drawn as a batch of one. Counted is what runs outside the forward passes of the denoiser, the text
encoder and the VAE: the drawing thread's CPU time, and the function calls that cProfile sees, which are the same at
every run.

TREE is a checkout of another commit. Both trees are measured in turns, each time in a new process, so that a busy
machine slows both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from engine.adapters.file import FILE
from tests.engine import tiny
from tests.engine.learning import learn

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("warm_request.py")
GOAL = 0.6
"""Of the CPU time before."""


def measured(tree: Path, base: Path, adapter: Path, times: int) -> dict[str, Any]:
    """One process's figures."""
    ran = subprocess.run(
        [sys.executable, "-P", PROGRAM, base, adapter, "--times", str(times)],
        cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return figures


@dataclass(frozen=True)
class Figures:
    """What the requests on one tree cost."""

    median: float
    """Seconds outside the models: the median of the processes' medians."""
    least: float
    """The least seconds outside the models; other programs on the machine disturb it least."""
    whole: float
    """As `median`, forward passes included."""
    calls: int
    """Function calls outside the models."""


def compared(trees: dict[str, Path], rounds: int, times: int) -> dict[str, Figures]:
    """The figures of each tree, measured in turns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as temporary:
        folder = tiny.save("sd1", Path(temporary) / "base")
        adapter = Path(temporary) / "avatar"
        base = tiny.load(folder)
        learn(base, [Image.new("RGB", (64, 64), "red")], tiny.LORA, adapter / FILE, token="zk1", side=tiny.SIDE)
        for _ in range(rounds):
            for name, tree in trees.items():
                found[name].append(measured(tree, folder, adapter, times))
    return {
        name: Figures(
            median(median(one["seconds"]) for one in ran),
            min(min(one["seconds"]) for one in ran),
            median(median(one["all"]) for one in ran),
            min(one["calls"] for one in ran),
        )
        for name, ran in found.items()
    }


def main() -> None:
    """Measure this tree, and the other one where it is given, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each tree")
    parser.add_argument("--times", type=int, default=60, help="requests in each process")
    asked = parser.parse_args()
    trees = ({"before": asked.before.resolve()} if asked.before else {}) | {"now": ROOT}
    figures = {name: astuple(found) for name, found in compared(trees, asked.rounds, asked.times).items()}
    print("| tree | CPU ms outside the models, median | least | CPU ms in all, median | calls outside the models |")
    print("|---|---|---|---|---|")
    for name, (*seconds, calls) in figures.items():
        print(f"| {name} |" + "".join(f" {1000 * one:.2f} |" for one in seconds) + f" {calls} |")
    if asked.before:
        ratios = [now / before for before, now in zip(figures["before"], figures["now"], strict=True)]
        print(f"| ratio (goal {GOAL:g}) |" + "".join(f" {ratio:.3f} |" for ratio in ratios))


if __name__ == "__main__":
    main()
