"""The judge: a small classifier of pictures that measures learning.

For each attribute of the drawn world (`ATTRIBUTES`) it gives the value that a picture shows. `engine.pretraining.judge`
trained it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.toon import SIZE, WEIGHTS, world
from storage.errors import UserError

IDENTITY = ("hair_style", "hair_colour", "skin", "facial_hair")
"""The attributes of identity, which all pictures of one person share."""

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
"""Values that differ by a line of one pixel, with the value that counts for both: the judge classified 32 of 63 caesar
cuts correctly, and 114 of 128 moustaches."""


def seen_as(value: str) -> str:
    """The judge's value for an attribute's value."""
    return ALIKE.get(value, value)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip connection (arXiv 1512.03385)."""

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
    """A residual network down to 8 x 8 positions. They are flattened, not pooled: a mouth covers only a few of them."""

    WIDTHS = ((24, 1), (48, 1), (72, 2), (96, 1))
    """Channels and residual blocks at 64, 32, 16 and 8 positions a side."""

    def __init__(self) -> None:
        super().__init__()
        layers, before = list[nn.Module](), 3
        for width, blocks in self.WIDTHS:
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [ResidualBlock(width) for _ in range(blocks)]
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
        """The judge in `folder`.

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
        """Probabilities (n, values) of each attribute's values in each picture."""
        arrays = np.stack([np.asarray(picture.convert("RGB").resize((SIZE, SIZE)), np.uint8) for picture in drawn])
        return {name: logits.softmax(dim=1) for name, logits in self(as_input(arrays)).items()}

    def attributes(self, drawn: Sequence[Image.Image]) -> list[dict[str, str]]:
        """For each picture, each attribute's most likely value."""
        if not drawn:
            return []
        choices = {name: answer.argmax(dim=1).tolist() for name, answer in self.probabilities(drawn).items()}
        return [
            {name: seen_as(ATTRIBUTES[name][rows[number]]) for name, rows in choices.items()}
            for number in range(len(drawn))
        ]

    def look(self, picture: Image.Image) -> tuple[world.Look, float]:
        """The attributes of a picture besides the person, and the probability of the least certain one."""
        shown, probability = dict[str, str](), dict[str, float]()
        for name, answer in self.probabilities([picture]).items():
            if name not in IDENTITY:
                best = int(answer[0].argmax())
                shown[name], probability[name] = ATTRIBUTES[name][best], float(answer[0, best])
        # Eyes behind dark glasses, and the colour of a missing hat, cannot be seen.
        hidden = {"hat_colour"} if shown["hat"] == "none" else set[str]()
        hidden |= {"eyes"} if shown["glasses"] == "sunglasses" else set()
        return world.Look(**shown), min(value for name, value in probability.items() if name not in hidden)


def as_input(rows: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1
