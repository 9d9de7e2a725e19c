"""The judge: a small classifier of the world's attributes, so that learning can be measured and not assumed.

`python -m engine.toon.judge --set DIR --work DIR --out DIR` trains it on the drawn set. It looks at a picture and
says for each attribute of `ATTRIBUTES` which value it shows.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.device.precision import autocast
from engine.pretraining import pictures
from engine.pretraining.loop import join, pretrain
from engine.toon import SIZE, WEIGHTS, world
from storage.errors import UserError

IDENTITY = ("hair_style", "hair_colour", "skin", "facial_hair")
"""What every picture of one person shares."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "hair_style": tuple(dict.fromkeys((*world.HAIR_STYLES_OF["man"], *world.HAIR_STYLES_OF["woman"]))),
    "hair_colour": tuple(world.HAIR_COLOURS),
    "skin": tuple(world.SKINS),
    "facial_hair": tuple(world.FACIAL_HAIRS),
    "clothes": tuple(world.CLOTHES),
    "clothes_colour": tuple(world.COLOURS),
    "background": tuple(world.COLOURS),
    "glasses": tuple(world.GLASSES),
    "hat": tuple(world.HATS),
    "hat_colour": tuple(world.COLOURS),
    "eyes": tuple(world.EYES),
    "mouth": tuple(world.MOUTHS),
    "tilt": tuple(world.TILTS),
    "distance": tuple(world.DISTANCES),
}

ALIKE = {"theCaesarAndSidePart": "theCaesar", "thick moustache": "fancy moustache"}
"""Values that a line of one pixel tells apart, and what the judge calls both: of 63 caesar cuts it named 32 rightly,
and of 128 moustaches 114."""


def seen_as(value: str) -> str:
    """What the judge calls an attribute's value."""
    return ALIKE.get(value, value)


EMPHASIS = {"eyes": 3.0, "clothes": 3.0, "hair_style": 2.0, "facial_hair": 2.0}
"""How much more the errors of what is told by few pixels count in learning."""


class Residual(nn.Module):
    """Two convolutions beside the identity (arXiv 1512.03385)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.silu(features + self.layers(features))


class Judge(nn.Module):
    """A residual network down to 8 x 8 cells, whose places count: what a mouth says lies in few of them."""

    WIDTHS = ((24, 1), (48, 1), (72, 2), (96, 1))
    """Channels and residual blocks at 64, 32, 16 and 8 cells a side."""

    def __init__(self) -> None:
        super().__init__()
        layers, before = list[nn.Module](), 3
        for width, blocks in self.WIDTHS:
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [Residual(width) for _ in range(blocks)]
            before = width
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 24, 1))
        self.neck = nn.Sequential(nn.Linear(24 * 64, 160), nn.SiLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleDict({name: nn.Linear(160, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        """Logits for each attribute, (n, values), of pictures (n, 3, 128, 128) in [-1, 1]."""
        features = self.neck(self.body(picture).flatten(1))
        return {name: head(features) for name, head in self.heads.items()}

    @classmethod
    def load(cls, folder: Path = WEIGHTS / "judge") -> "Judge":
        """The judge that lies in `folder`.

        Raises:
            UserError: `no_judge` if there is none.
        """
        if not (folder / "judge.safetensors").exists():
            raise UserError("no_judge", folder=folder)
        judge = cls()
        judge.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(folder / "judge.safetensors").items()}
        )
        return judge.eval()

    @torch.no_grad()
    def probabilities(self, drawn: Sequence[Image.Image]) -> dict[str, Tensor]:
        """For each attribute how likely each picture shows which value, (n, values)."""
        arrays = np.stack([np.asarray(picture.convert("RGB").resize((SIZE, SIZE)), np.uint8) for picture in drawn])
        return {name: logits.softmax(dim=1) for name, logits in self(as_input(arrays)).items()}

    def attributes(self, drawn: Sequence[Image.Image]) -> list[dict[str, str]]:
        """What each picture shows, by name."""
        if not drawn:
            return []
        choices = {name: answer.argmax(dim=1).tolist() for name, answer in self.probabilities(drawn).items()}
        return [
            {name: seen_as(ATTRIBUTES[name][rows[number]]) for name, rows in choices.items()}
            for number in range(len(drawn))
        ]

    def look(self, picture: Image.Image) -> tuple[world.Look, float]:
        """What of a picture is not the person, and how likely the least certain part of that is, 0 to 1."""
        shown, certain = dict[str, str](), dict[str, float]()
        for name, answer in self.probabilities([picture]).items():
            if name not in IDENTITY:
                best = int(answer[0].argmax())
                shown[name], certain[name] = ATTRIBUTES[name][best], float(answer[0, best])
        # Of eyes behind dark glasses and of the colour of no hat there is nothing to be certain of.
        hidden = {"hat_colour"} if shown["hat"] == "none" else set[str]()
        hidden |= {"eyes"} if shown["glasses"] == "sunglasses" else set()
        return world.Look(**shown), min(value for name, value in certain.items() if name not in hidden)


def as_input(rows: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1


def labels(scene: world.Scene) -> dict[str, int]:
    """The attributes' numbers; -100, which the loss ignores, for what the picture does not show."""
    shown = {**vars(scene.person), **vars(scene.look)}
    numbers = {name: values.index(shown[name]) for name, values in ATTRIBUTES.items()}
    if scene.look.hat == "none":
        numbers["hat_colour"] = -100
    else:
        # A beard keeps the hair's colour, but may be too small to tell it from its neighbours.
        numbers["hair_style"] = numbers["hair_colour"] = -100
    if scene.look.glasses == "sunglasses":
        numbers["eyes"] = -100
    return numbers


def main(
    drawn_set: Path, work: Path, out: Path, steps: int, batch: int, compiled: bool, start: Path | None, rate: float
) -> None:
    torch.manual_seed(0)
    rank, processes = join()
    drawn, scenes = pictures.load(drawn_set)
    targets = [labels(scene) for scene in scenes]
    table = {name: torch.tensor([row[name] for row in targets]) for name in ATTRIBUTES}
    held_out = np.arange(len(scenes) - 1000, len(scenes))

    def loss(step: int) -> dict[str, Tensor]:
        # Every step of every process has numbers of its own, also after going on from a checkpoint.
        torch.manual_seed(step * processes + rank)
        random = np.random.default_rng(step * processes + rank)
        rows = random.integers(0, len(scenes) - 1000, batch)
        picture = as_input(drawn[rows])
        # Generated pictures are softer and noisier than drawn ones: the judge must not mind.
        if random.random() < 0.35:
            side = int(random.integers(80, SIZE))
            picture = F.interpolate(F.interpolate(picture, side, mode="area"), SIZE, mode="bilinear")
        picture = picture + float(random.random() * 0.06) * torch.randn_like(picture)
        # Nor that a face lies a pixel or two beside its place.
        shift = (int(random.integers(-2, 3)), int(random.integers(-2, 3)))
        picture = picture.roll(shift, dims=(2, 3)).contiguous(memory_format=torch.channels_last)
        with autocast(torch.device("cpu")):
            answers = {name: logits.float() for name, logits in forward(picture).items()}
        losses = [EMPHASIS.get(name, 1.0) * F.cross_entropy(answers[name], table[name][rows]) for name in ATTRIBUTES]
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        parts = [module(as_input(drawn[rows])) for rows in np.array_split(held_out, 10)]
        figures = {}
        for name, values in ATTRIBUTES.items():
            chosen, truth = torch.cat([part[name].argmax(dim=1) for part in parts]), table[name][held_out]
            called = torch.tensor([values.index(seen_as(value)) for value in values])
            shown = truth >= 0
            figures[name] = float((called[chosen[shown]] == called[truth[shown]]).float().mean())
        return figures

    judge = (Judge.load(start) if start else Judge()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(judge) if compiled else judge
    best = pretrain(judge, loss, work, steps=steps, learning_rate=rate, on_save=measure)
    if rank:
        return
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.half().contiguous() for name, tensor in best.state_dict().items()}, out / "judge.safetensors"
    )
    (out / "accuracy.json").write_text(json.dumps(measure(best, steps), indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.pretraining.pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="several times as fast on a CPU; needs a C++ compiler")
    parser.add_argument("--from", type=Path, dest="start", help="folder of a judge to go on from")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.work, arguments.out, arguments.steps, arguments.batch, arguments.compile,
        arguments.start, arguments.learning_rate,
    )  # fmt: skip
