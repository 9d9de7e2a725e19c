"""A short way to train in tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from engine.bases.base import BaseModel
from engine.learning.config import TrainingConfig
from engine.learning.listener import Listener
from engine.learning.training import Trained, train
from engine.recipe import Recipe


class Listening(Listener):
    """Calls these functions in place of the methods of the same names."""

    def __init__(self, **methods: Callable[..., object]) -> None:
        for name, method in methods.items():
            assert hasattr(Listener, name), f"a listener has no {name}"
            setattr(self, name, method)


def learn(
    base: BaseModel,
    album: Sequence[Image.Image],
    recipe: Recipe,
    out: Path,
    *,
    token: str = "zk1",
    noun: str = "man",
    side: int = 64,
    **options: Any,
) -> Trained:
    """`train` with the small models' side.

    Args:
        options: fields of `TrainingConfig`, methods of a `Listener`, and `team` and `clock` of `train`.
    """
    methods = {name: options.pop(name) for name in [*options] if name.startswith("on_")}
    others = {name: options.pop(name) for name in ("team", "clock") if name in options}
    config = TrainingConfig(token, noun, recipe, side=side, **options)
    return train(base, album, config, out, listener=Listening(**methods), **others)
