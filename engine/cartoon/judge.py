"""The judge: a small network that reads from a picture what it shows, and how the figure is posed.

It writes the captions of drawn albums, and scores pictures where it is shown to be right. `engine.pretraining.judge`
trained it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.cartoon.attributes import ATTRIBUTES, COLOURS, POSE, pose_of
from engine.cartoon.pose import Pose
from engine.cartoon.world import hex_of
from engine.toon.judge import ResidualBlock, as_input
from storage.errors import UserError

SIDE = 128
"""Pixels a side of the pictures that the judge sees; larger ones are made smaller."""


class Judge(nn.Module):
    """A residual network whose features at 16 x 16 positions are read by attention, one query for each attribute.

    Faces may be anywhere and of any size, so nothing is flattened: a query looks where its attribute is.
    """

    WIDTHS = ((32, 1), (64, 1), (128, 2))
    """Channels and residual blocks at 64, 32 and 16 positions a side."""

    QUERIES = (*ATTRIBUTES, *COLOURS, "pose")

    def __init__(self) -> None:
        super().__init__()
        layers, before = list[nn.Module](), 3
        for width, blocks in self.WIDTHS:
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [ResidualBlock(width) for _ in range(blocks)]
            before = width
        self.body = nn.Sequential(*layers)
        self.places = nn.Parameter(0.02 * torch.randn(256, before))
        self.layer = nn.TransformerEncoderLayer(before, 4, 2 * before, dropout=0.0, batch_first=True, norm_first=True)
        self.queries = nn.Parameter(0.2 * torch.randn(len(self.QUERIES), before))
        self.attention = nn.MultiheadAttention(before, 4, batch_first=True)
        self.mix = nn.Sequential(nn.LayerNorm(before), nn.Linear(before, before), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(before, len(values)) for name, values in ATTRIBUTES.items()})
        self.colours = nn.ModuleDict({name: nn.Linear(before, 3) for name in COLOURS})
        self.pose = nn.Linear(before, len(POSE))

    def forward(self, picture: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """From pictures (n, 3, 128, 128) in [-1, 1]: logits (n, values) for each attribute, colours (n, 3) in 0 to 1,
        and the numbers of the pose (n, 6)."""
        features = self.body(picture).flatten(2).transpose(1, 2) + self.places  # (n, 256, width)
        features = self.layer(features)
        read, _ = self.attention(self.queries.expand(len(picture), -1, -1), features, features, need_weights=False)
        read = self.mix(read)
        at = {name: read[:, number] for number, name in enumerate(self.QUERIES)}
        return (
            {name: head(at[name]) for name, head in self.heads.items()},
            {name: head(at[name]) for name, head in self.colours.items()},
            self.pose(at["pose"]),
        )

    @classmethod
    def load(cls, folder: Path) -> "Judge":
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
    def read(self, drawn: Sequence[Image.Image]) -> list["Reading"]:
        """What each picture shows."""
        if not drawn:
            return []
        classes, colours, pose = self(as_input(np.stack([square(picture) for picture in drawn])))
        shares = {name: logits.softmax(dim=1) for name, logits in classes.items()}
        return [
            Reading(
                {name: ATTRIBUTES[name][int(share[n].argmax())] for name, share in shares.items()},
                {name: float(share[n].max()) for name, share in shares.items()},
                {name: hex_of((255 * values[n]).tolist()) for name, values in colours.items()},
                pose_of(tuple(pose[n].tolist())),
            )
            for n in range(len(drawn))
        ]


@dataclass(frozen=True)
class Reading:
    """What the judge read from one picture."""

    values: dict[str, str]
    """Each attribute's most likely value."""
    probabilities: dict[str, float]
    """Of those values."""
    colours: dict[str, str]
    """`#rrggbb`; meaningless for what the picture does not show."""
    pose: Pose


def square(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture at 128 x 128 pixels, (128, 128, 3). One that is not square is cut at the sides, or at the top: the
    figure stands in the middle, on the lower edge."""
    side = min(picture.size)
    left = (picture.width - side) // 2
    box = (left, picture.height - side, left + side, picture.height)
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, box=box), np.uint8)
