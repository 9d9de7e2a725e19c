"""The weights of the reader of looks, and their application in numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.photos.face_network import Array, Convolution
from engine.photos.head_parts import CHANNELS, PartsNetwork

FILE = Path(__file__).parent / "weights" / "looks.safetensors"

CLASSES: Mapping[str, tuple[str, ...]] = {
    "skin": ("1", "2", "3", "4", "5", "6"),
    "hair_colour": ("black", "brown", "blonde", "red", "grey", "none"),
    "hair_length": ("bald", "short", "medium", "long"),
    "facial_hair": ("none", "moustache", "beard"),
    "glasses": ("none", "glasses", "sunglasses"),
    "hair_kind": ("straight", "wavy", "curly", "coily"),
    "beard_length": ("light", "full"),
    "covered": ("no", "yes"),
    "tied": ("no", "yes"),
}
"""What each head tells apart. `covered`: by a hat, a scarf or a hood; `tied`: a ponytail, a bun or braids tied back."""


def read_parts(weights: Mapping[str, Array]) -> PartsNetwork:
    """The network that finds hair and skin, from the tensors `parts.*`."""
    layers = tuple(
        Convolution(weights[f"parts.{n}.weight"], weights[f"parts.{n}.bias"], 1) for n in range(len(CHANNELS))
    )
    return PartsNetwork(layers, Convolution(weights["parts.last.weight"], weights["parts.last.bias"], 1))


@dataclass(frozen=True)
class Head:
    """A linear classifier of some groups of features."""

    groups: tuple[str, ...]
    mean: Array  # (n,)
    scale: Array  # (n,)
    weight: Array  # (classes, n)
    bias: Array  # (classes,)

    def __call__(self, features: Mapping[str, Array]) -> NDArray[np.float64]:
        """The probability of each class, (B, classes)."""
        rows = np.concatenate([features[group] for group in self.groups], axis=1)
        logits = ((rows - self.mean) * self.scale) @ self.weight.T + self.bias
        shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class LooksModel:
    """All that reads looks."""

    parts: PartsNetwork
    heads: Mapping[str, Head]


@cache
def looks_model(file: Path = FILE) -> LooksModel:
    """The model of a file, read once.

    Raises:
        OSError: there is no such file.
    """
    from safetensors import safe_open

    with safe_open(file, "np") as reader:
        weights = {name: reader.get_tensor(name).astype(np.float32) for name in reader.keys()}  # noqa: SIM118
        about = reader.metadata()
    heads = {
        name: Head(
            tuple(about[f"{name}.groups"].split()),
            *(weights[f"{name}.{part}"] for part in ("mean", "scale", "weight", "bias")),
        )
        for name in CLASSES
    }
    return LooksModel(read_parts(weights), heads)
