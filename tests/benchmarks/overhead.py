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
from pathlib import Path
from statistics import median
from typing import Any

from engine.adapters.adapters import FILE
from engine.learning.training import train
from tests.engine import tiny

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


def compared(trees: dict[str, Path], rounds: int, times: int) -> dict[str, tuple[float, int]]:
    """For each tree the median of its processes' median seconds, and its function calls."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as temporary:
        folder = tiny.save("sd1", Path(temporary) / "base")
        adapter = Path(temporary) / "avatar"
        base = tiny.load(folder)
        train(base, [tiny.Image.new("RGB", (64, 64), "red")], "zk1", "man", tiny.LORA, adapter / FILE, side=tiny.SIDE)
        for _ in range(rounds):
            for name, tree in trees.items():
                found[name].append(measured(tree, folder, adapter, times))
    return {
        name: (median(median(one["seconds"]) for one in ran), min(one["calls"] for one in ran))
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
    figures = compared(trees, asked.rounds, asked.times)
    print("| tree | CPU milliseconds outside the models | function calls outside the models |\n|---|---|---|")
    for name, (seconds, calls) in figures.items():
        print(f"| {name} | {1000 * seconds:.2f} | {calls} |")
    if asked.before:
        (before, calls_before), (now, calls_now) = figures["before"], figures["now"]
        print(f"| ratio (goal {GOAL:g}) | {now / before:.3f} | {calls_now / calls_before:.3f} |")


if __name__ == "__main__":
    main()
