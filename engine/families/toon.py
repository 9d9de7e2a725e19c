"""The embedded base: built like Stable Diffusion, and it can tell what an album's drawings show beside the person."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from PIL import Image

from engine.families.stable_diffusion import StableDiffusion
from engine.recipe import ATTENTION, Recipe

CONVOLUTIONS = ("conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")

CAPTIONS = 18
"""Captions of each picture: three for each of `instance_prompts`, which tell nothing beside the person."""

SURE = 0.5
"""How likely the judge must find each thing that a caption tells."""


@cache
def _judge() -> Any:
    # Drawing needs neither the judge nor the world, and the world's artwork takes a second to load.
    from engine.toon.judge import Judge

    return Judge.load()


@dataclass(frozen=True)
class Toon(StableDiffusion):
    """Its captions tell clothes, background and face, as its judge sees them, so the token need not stand for them."""

    def captions(self, picture: Image.Image, instance: str) -> Sequence[str]:
        from engine.toon.captions import caption_beside

        look, likely = _judge().look(picture)
        if likely < SURE:
            return ()
        return [caption_beside(instance, look, Random(number)) for number in range(CAPTIONS)]


TOON = Toon(
    name="toon",
    guidance=4.0,
    draw_steps=25,
    # Attention alone does not learn a person on this small base.
    adapter_targets=ATTENTION + CONVOLUTIONS,
    # Its small text encoder knows the token again only behind words that it was learned behind.
    instance_prompts=(
        "a photo of {instance}",
        "{instance}",
        "portrait of {instance}",
        "a portrait of {instance}",
        "a picture of {instance}",
        "photo of a {instance}",
    ),
    prior_prompts=(
        "a photo of {noun}",
        "a photo of a {noun}",
        "a portrait of a {noun} in a suit",
        "a photo of a {noun} wearing sunglasses, blue background",
        "portrait of {noun}, smiling, in a red hoodie",
        "a picture of a {noun} in a t-shirt, white background",
        "a {noun}, serious, with glasses and a green sweater",
        "a photo of a {noun}, purple background, tongue out",
        "{noun}",
        "{noun} with sunglasses, orange background",
    ),
    recipes={
        "dreambooth": (30, Recipe("dreambooth", 0, 3e-4, 6, 4, 1.0)),
        # The small text encoder has learned to let tokens like cr7d pass unheard: the U-Net alone cannot tell them
        # apart, so it learns along.
        "lora": (25, Recipe("lora", 0, 2e-3, 6, 4, 1.0, text_encoder=True)),
    },
    cartoon=True,
)
