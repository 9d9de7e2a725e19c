"""Every comparison with the reference: what is run on both sides, and what is counted."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.work.gpu_client import ENVIRONMENT

ROOT = Path(__file__).parents[2]
SCRIPTS = {"lora": "train_dreambooth_lora.py", "dreambooth": "train_dreambooth.py"}
WHO = ("zk7", "man")


@dataclass(frozen=True)
class Ran:
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


@dataclass(frozen=True)
class Ratio:
    """Ours over the reference's, and what it should be at most."""

    what: str
    ours: float
    reference: float
    goal: float | None = None

    @property
    def value(self) -> float:
        return self.ours / self.reference if self.reference else float("nan")

    def row(self) -> str:
        kept = "" if self.goal is None else ("yes" if self.value <= self.goal else "no")
        goal = "" if self.goal is None else f"{self.goal:g}"
        return f"| {self.what} | {self.ours:.4g} | {self.reference:.4g} | {self.value:.3f} | {goal} | {kept} |"


def run(*arguments: object, home: Path | None = None) -> Ran:
    """Run this Python with `arguments` and measure it, its start included.

    Args:
        home: the engine's data folder; class pictures that are kept there are drawn anew in a new one.
    Raises:
        RuntimeError: with the end of what it said, if it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        environment = ENVIRONMENT | os.environ | ({"AVATAR_HOME": str(home)} if home else {})
        # Both sides let go of a processor that they wait on: on a busy machine it is worth more than all else.
        process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=output, text=True,
                                   stderr=subprocess.STDOUT, env=environment)  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(said[-2000:])
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, said)


class Bench:
    """The benchmarks, on one album."""

    def __init__(self, reference: Path, work: Path, steps: int | None) -> None:
        self.reference, self.work, self.steps = reference, work, steps
        self.album = work / "album"
        self.album.mkdir(parents=True, exist_ok=True)
        from engine.measuring.evaluation import people
        from engine.toon.world import album, render

        self.person = next(person for person in people(20) if person.noun == WHO[1])
        for number, scene in enumerate(album(self.person, 8, seed=2)):
            render(scene, 128).save(self.album / f"{number}.png")

    def reference_run(self, method: str, base: Path, side: int, steps: int, out: Path, record: Path | None) -> Ran:
        """The reference script, at the values of its README for this method, batch 1, no class pictures."""
        rate = {"lora": "1e-4", "dreambooth": "5e-6"}[method]
        return run(
            "-m", "tests.benchmarks.reference", self.reference / SCRIPTS[method], record or "-",
            "--pretrained_model_name_or_path", base, "--instance_data_dir", self.album, "--output_dir", out,
            "--instance_prompt", f"a photo of {' '.join(WHO)}", "--resolution", side, "--train_batch_size", 1,
            "--learning_rate", rate, "--lr_scheduler", "constant", "--lr_warmup_steps", 0, "--max_train_steps", steps,
            "--seed", 0,
        )  # fmt: skip

    def our_run(
        self,
        method: str,
        base: Path | None,
        side: int,
        steps: int,
        out: Path,
        recipe: str = "reference",
        precision: str = "auto",
    ) -> tuple[Ran, dict[str, Any]]:
        ran = run(
            "-m", "engine", "train", "--photos", self.album, "--token", WHO[0], "--class", WHO[1], "--out", out,
            "--recipe", recipe, "--method", method, "--precision", precision, "--steps", steps, "--size", side,
            "--json",
            *(("--base", base) if base else ()), home=out / "home",
        )  # fmt: skip
        return ran, json.loads(ran.output.strip().splitlines()[-1])

    def job(self) -> list[Ratio]:
        """Whole jobs on the embedded base, from album to usable adapter."""
        from engine.toon import WEIGHTS

        rows = []
        for method, usual in (("lora", 500), ("dreambooth", 400)):
            steps = self.steps or usual
            theirs = self.reference_run(method, WEIGHTS, 128, steps, self.work / f"{method}-reference", None)
            # Theirs computes in float32 unless it is told otherwise, ours as suits the processor.
            for precision, wall, memory in (("auto", 0.5, 0.7), ("float32", None, None)):
                out = self.work / f"{method}-{precision}"
                ours, _ = self.our_run(method, None, 128, steps, out, precision=precision)
                what = f"{method}, embedded base, {steps} steps, {precision} against float32:"
                rows += [
                    Ratio(f"{what} wall, s", ours.seconds, theirs.seconds, wall),
                    Ratio(f"{what} CPU, s", ours.cpu_seconds, theirs.cpu_seconds),
                    Ratio(f"{what} peak memory, MiB", ours.peak_bytes / 2**20, theirs.peak_bytes / 2**20, memory),
                ]
        return rows

    def real_size(self) -> list[Ratio]:
        """Steps of Stable Diffusion 1.5's real architecture at 256 px, with random weights."""
        from tests.end_to_end.test_command_line import save_sd15

        base = self.work / "sd15"
        if not base.exists():
            save_sd15(base)
        record = self.work / "sd15-record"
        steps = max(3, min(self.steps or 5, 5))
        theirs = self.reference_run("lora", base, 256, steps, self.work / "sd15-reference", record)
        times = json.loads((record / "times.json").read_text())
        ours, facts = self.our_run("lora", base, 256, steps, self.work / "sd15-ours")
        return [
            Ratio("lora, SD 1.5 at 256 px: a step, s", facts["step_seconds"], median(times[1:]), 0.7),
            Ratio("lora, SD 1.5 at 256 px: peak memory, MiB", ours.peak_bytes / 2**20, theirs.peak_bytes / 2**20, 0.7),
        ]

    def same(self) -> list[Ratio]:
        """The same loss at every step, when our improvements are off and chance decides the same."""
        from engine.toon import WEIGHTS
        from tests.benchmarks.replay import largest_difference

        rows = []
        for method in SCRIPTS:
            record = self.work / f"{method}-record"
            self.reference_run(method, WEIGHTS, 128, 12, self.work / f"{method}-recorded", record)
            rows.append(Ratio(f"{method}: largest relative difference of a step's loss",
                              largest_difference(method, record, self.album, self.work, *WHO), 1.0, 1e-3))  # fmt: skip
        return rows

    def likeness(self) -> list[Ratio]:
        """Whole jobs until the judge sees as much of the person as after the reference's default run."""
        from PIL import Image

        from engine.bases.base import BaseModel
        from engine.measuring.likeness import JudgedLikeness
        from engine.measuring.study import study
        from engine.recipe import choose
        from engine.toon import WEIGHTS
        from tests.benchmarks.replay import drawn_by_diffusers

        folder = self.work / "likeness-reference"
        theirs = self.reference_run("lora", WEIGHTS, 128, self.steps or 500, folder, None)
        album = [Image.open(path).convert("RGB") for path in sorted(self.album.iterdir())]
        judged = JudgedLikeness(album)
        reached = judged(drawn_by_diffusers(folder, " ".join(WHO)))
        base = BaseModel.load()
        # A short run of theirs is compared with a short one of ours.
        multiples = (2, 4, 8, 16, 25) if self.steps is None else (1, 2)
        points = study(base, album, *WHO, choose(len(album), "lora", base.family), multiples,
                       self.work / "likeness-study" / "adapter.safetensors", likeness=judged)  # fmt: skip
        enough = next((point.steps for point in points if point.likeness >= reached), None)
        what = f"job until likeness {reached:.2f}, ours in {enough} steps (at the end {points[-1].likeness:.2f}):"
        if enough is None:
            return [Ratio(f"{what} wall, s", float("inf"), theirs.seconds, 0.3)]
        # The first steps of a run are as a run of so few steps; to draw and judge its pictures is no part of the job.
        ours, _ = self.our_run("lora", None, 128, enough, self.work / "likeness-ours", "auto")
        return [
            Ratio(f"{what} wall, s", ours.seconds, theirs.seconds, 0.3),
            Ratio(f"{what} CPU, s", ours.cpu_seconds, theirs.cpu_seconds),
        ]

    def warm(self) -> list[Ratio]:
        """Warm drawing and change of avatar, against a pipeline that loads the LoRA for each request."""
        from tests.benchmarks.warm import figures

        for number in range(2):
            self.our_run("lora", None, 128, 2, self.work / f"avatar-{number}", "auto")
        found = figures([self.work / f"avatar-{number}" for number in range(2)], *WHO, times=1 if self.steps else 7)
        return [Ratio(what, *values) for what, values in found.items()]

    ALL: Mapping[str, Callable[["Bench"], list[Ratio]]] = {
        "same": same, "job": job, "warm": warm, "likeness": likeness, "real_size": real_size,
    }  # fmt: skip
