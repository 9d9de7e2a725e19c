"""Pre-train the embedded base: `python -m engine.pretraining --work DIR --out DIR`.

One command for all stages. It runs on a CPU and on CUDA, and goes on where it was stopped. With `--minutes` it stops by
itself, so that a machine can be rented in pieces; exit status 3 says that there is more to do.
"""

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from engine.device.precision import best_device
from engine.pretraining import clip, judge, latents, pictures, text_encoder, tokenizer, unet, vae
from engine.pretraining.loop import OutOfTime, Run
from engine.pretraining.pictures import SHARES, Pictures
from storage.atomic import write_text

UNFINISHED = 3
"""Exit status when time ran out before the last stage was done."""


@dataclass(frozen=True)
class Scale:
    """How much of everything: a CPU's days or a large GPU's hour."""

    pictures: int
    vae: tuple[int, int]
    """Steps and batch size, as of the next three."""
    text_encoder: tuple[int, int]
    judge: tuple[int, int]
    clip: tuple[int, int]
    unet: tuple[int, int, float]
    """Steps, batch size and peak learning rate."""


SCALES = {
    "cpu": Scale(40_000, (4_000, 8), (3_000, 64), (5_000, 64), (3_000, 128), (40_000, 32, 4e-4)),
    "cuda": Scale(200_000, (8_000, 48), (3_000, 512), (8_000, 256), (6_000, 512), (24_000, 512, 8e-4)),
}


@dataclass(frozen=True)
class Pretraining:
    """The stages, in order. Each writes its result into the work folder, and is skipped once it has."""

    work: Path
    out: Path
    scale: Scale
    device: torch.device
    deadline: float
    processes: int
    start: Path | None
    photos: Path | None
    compiled: bool

    def run(self, stage: str, save_every: int = 500) -> Run:
        """Where a stage keeps its checkpoints."""
        return Run(self.work / stage, self.device, self.deadline, save_every)

    def stages(self) -> dict[str, Callable[[], None]]:
        """The stages by name."""
        return {
            "pictures": self.draw, "tokenizer": self.make_tokenizer, "vae": self.train_vae,
            "text_encoder": self.train_text_encoder, "latents": self.encode, "judge": self.train_judge,
            "clip": self.train_clip, "unet": self.train_unet, "assemble": self.assemble,
        }  # fmt: skip

    # What the stages share

    def _pictures(self, ratio: str = "square") -> Pictures:
        return Pictures(self.work / "pictures", ratio)

    def _words(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self.work / "tokenizer" / "result")

    def _vae(self) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(self.work / "vae" / "result", dtype=torch.float32)

    def _start(self, part: str) -> Path | None:
        return self.start / part if self.start else None

    # The stages

    def draw(self) -> None:
        """Draw the pictures."""
        pictures.draw(self.run("pictures"), self.scale.pictures, self.processes)

    def make_tokenizer(self) -> None:
        """Make the tokenizer."""
        tokenizer.make(self.work / "tokenizer" / "result")

    def train_vae(self) -> None:
        """Train the autoencoder."""
        photos = [
            np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
            for path in sorted(self.photos.glob("*.jpg") if self.photos else [])
            for side in (256, 384)
        ]
        steps, batch = self.scale.vae
        vae.train(
            self.run("vae", 250), self._pictures(), photos, self._start("vae"), self.work / "vae" / "result",
            steps=steps, batch=batch, peak=1e-3,
        )  # fmt: skip

    def train_text_encoder(self) -> None:
        """Train the text encoder."""
        words, begun = self._words(), None
        if self.start:
            old = CLIPTextModel.from_pretrained(self.start / "text_encoder", dtype=torch.float32)
            begun = text_encoder.grow(words, old, CLIPTokenizer.from_pretrained(self.start / "tokenizer"))
        steps, batch = self.scale.text_encoder
        text_encoder.train(
            self.run("text_encoder"), words, begun, self.work / "text_encoder" / "result", steps=steps, batch=batch
        )

    def encode(self) -> None:
        """Encode the pictures."""
        encoder = self._vae()
        for ratio in SHARES:
            latents.encode(self.run("latents"), self._pictures(ratio), encoder)

    def train_judge(self) -> None:
        """Train the judge."""
        steps, batch = self.scale.judge
        judge.train(self.run("judge"), self._pictures(), self.work / "judge" / "result", steps=steps, batch=batch)

    def train_clip(self) -> None:
        """Train the CLIP."""
        steps, batch = self.scale.clip
        clip.train(
            self.run("clip"), self._pictures(), self._words(), self.work / "clip" / "result", steps=steps, batch=batch
        )

    def train_unet(self) -> None:
        """Train the U-Net, and save the pipeline."""
        encoder = text_encoder.load(self.work / "text_encoder" / "result")
        by_shape = {ratio: latents.Latents.load(self.work / "latents", self._pictures(ratio)) for ratio in SHARES}
        steps, batch, peak = self.scale.unet
        unet.train(
            self.run("unet"), by_shape, (self._vae(), self._words(), encoder), self._start("unet"), self.out,
            steps=steps, batch=batch, peak=peak, compiled=self.compiled,
        )  # fmt: skip

    def assemble(self) -> None:
        """Put the judge and the CLIP beside the pipeline."""
        for part in ("judge", "clip"):
            shutil.copytree(self.work / part / "result", self.out / part, dirs_exist_ok=True)

    def go_on(self, names: list[str]) -> None:
        """Run the stages that are not done yet.

        Raises:
            OutOfTime: the deadline came first.
        """
        for name, stage in self.stages().items():
            done = self.work / name / "done"
            if name not in names or done.exists():
                continue
            print(f"{name}: {(stage.__doc__ or '').rstrip('.').lower()}", flush=True)
            began = time.monotonic()
            stage()
            done.parent.mkdir(parents=True, exist_ok=True)
            write_text(done, f"{time.monotonic() - began:.0f} s in the last run\n")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--from", dest="start", type=Path, help="pipeline of half the side to start from")
    parser.add_argument("--photos", type=Path, help="folder of .jpg photos for the autoencoder to learn textures from")
    parser.add_argument("--stages", help="only these, with commas between them (default: all)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long (default: when done)")
    parser.add_argument("--scale", choices=SCALES, help="how much of everything (default: by the device)")
    parser.add_argument("--device", default="auto", help="such as cpu or cuda (default: the best one)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that draw (default: all cores)")
    parser.add_argument("--compile", action="store_true", help="compile the U-Net; needs a C++ compiler (default: no)")
    asked = parser.parse_args(arguments)
    device = best_device() if asked.device == "auto" else torch.device(asked.device)
    scale = SCALES[asked.scale or ("cuda" if device.type == "cuda" else "cpu")]
    deadline = time.monotonic() + 60 * asked.minutes
    pretraining = Pretraining(
        asked.work, asked.out, scale, device, deadline, asked.processes, asked.start, asked.photos, asked.compile
    )
    names = asked.stages.split(",") if asked.stages else list(pretraining.stages())
    if unknown := set(names) - set(pretraining.stages()):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(pretraining.stages())}")
    try:
        pretraining.go_on(names)
    except OutOfTime as stage:
        print(f"{stage}: out of time; run the same command again to go on", flush=True)
        return UNFINISHED
    return 0


if __name__ == "__main__":
    sys.exit(main())
