"""The judge: a small classifier of the world's attributes, so that learning can be measured and not assumed.

`python -m engine.toon.judge --set DIR --work DIR --out DIR` trains it on the drawn set. It looks at a picture and
says for each attribute of `ATTRIBUTES` which value it shows.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import InputError
from engine.toon import SIZE, WEIGHTS, pictures, world
from engine.toon.pretraining import pretrain

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
    "eyes": tuple(world.EYES),
    "mouth": tuple(world.MOUTHS),
    "tilt": tuple(world.TILTS),
    "distance": tuple(world.DISTANCES),
}


class Judge(nn.Module):
    """Convolutions of stride 2 down to 8 x 8, then one linear head for each attribute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            if before != 3:
                layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.neck = nn.Sequential(nn.Linear(channels[-1] * 16, 256), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        """Logits for each attribute, (n, values), of pictures (n, 3, 128, 128) in [-1, 1]."""
        features = self.neck(F.adaptive_avg_pool2d(self.body(picture), 4).flatten(1))
        return {name: head(features) for name, head in self.heads.items()}

    @classmethod
    def load(cls, folder: Path = WEIGHTS / "judge") -> "Judge":
        """The judge that lies in `folder`.

        Raises:
            InputError: `no_judge` if there is none.
        """
        if not (folder / "judge.safetensors").exists():
            raise InputError("no_judge", folder=folder)
        judge = cls()
        judge.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(folder / "judge.safetensors").items()}
        )
        return judge.eval()

    @torch.no_grad()
    def attributes(self, drawn: Sequence[Image.Image]) -> list[dict[str, str]]:
        """What each picture shows, by name."""
        if not drawn:
            return []
        arrays = np.stack([np.asarray(picture.convert("RGB").resize((SIZE, SIZE)), np.uint8) for picture in drawn])
        answers = self(as_input(arrays))
        choices = {name: logits.argmax(dim=1).tolist() for name, logits in answers.items()}
        return [
            {name: ATTRIBUTES[name][rows[number]] for name, rows in choices.items()} for number in range(len(drawn))
        ]


def as_input(rows: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1


def labels(scene: world.Scene) -> dict[str, int]:
    """The attributes' numbers; -100, which the loss ignores, for what the picture does not show."""
    shown = {**vars(scene.person), **vars(scene.look)}
    numbers = {name: values.index(shown[name]) for name, values in ATTRIBUTES.items()}
    if scene.look.hat != "none":
        numbers["hair_style"] = -100
        if scene.person.facial_hair == "none":
            numbers["hair_colour"] = -100
    if scene.look.glasses == "sunglasses":
        numbers["eyes"] = -100
    return numbers


def main(drawn_set: Path, work: Path, out: Path, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    drawn, scenes = pictures.load(drawn_set)
    targets = [labels(scene) for scene in scenes]
    table = {name: torch.tensor([row[name] for row in targets]) for name in ATTRIBUTES}
    held_out = np.arange(len(scenes) - 1000, len(scenes))

    def loss(step: int) -> dict[str, Tensor]:
        rows = random.integers(0, len(scenes) - 1000, batch)
        picture = as_input(drawn[rows])
        # Generated pictures are softer and noisier than drawn ones: the judge must not mind.
        if random.random() < 0.5:
            side = int(random.integers(56, SIZE))
            picture = F.interpolate(F.interpolate(picture, side, mode="area"), SIZE, mode="bilinear")
        picture = picture + float(random.random() * 0.1) * torch.randn_like(picture)
        answers = judge(picture.contiguous(memory_format=torch.channels_last))
        losses = [F.cross_entropy(answers[name], table[name][rows]) for name in ATTRIBUTES]
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        parts = [module(as_input(drawn[rows])) for rows in np.array_split(held_out, 10)]
        figures = {}
        for name in ATTRIBUTES:
            chosen, truth = torch.cat([part[name].argmax(dim=1) for part in parts]), table[name][held_out]
            figures[name] = float((chosen == truth)[truth >= 0].float().mean())
        return figures

    judge = Judge().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    best = pretrain(judge, loss, work, steps=steps, learning_rate=2e-3, on_save=measure)
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.half().contiguous() for name, tensor in best.state_dict().items()}, out / "judge.safetensors"
    )
    (out / "accuracy.json").write_text(json.dumps(measure(best, steps), indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.toon.pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    main(arguments.set, arguments.work, arguments.out, arguments.steps, arguments.batch)
