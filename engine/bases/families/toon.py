"""The embedded base: built like Stable Diffusion, and it can tell what an album's drawings show beside the person."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from PIL import Image

from engine.bases.families.stable_diffusion import StableDiffusion
from engine.recipe import ATTENTION, Recipe
from engine.toon import WEIGHTS

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
    # Of everything that can be asked for: what no class picture shows, the adapter forgets.
    prior_prompts=(
        "a photo of {noun}",
        "a photo of a {noun} in a suit, blue background",
        "a photo of a {noun} wearing sunglasses, in a black hoodie",
        "portrait of {noun}, smiling, in a red hoodie",
        "a picture of a {noun} in a white t-shirt, purple background",
        "a {noun}, serious, with glasses and a green sweater, pink background",
        "a photo of {noun}, purple v-neck, tongue out",
        "{noun}",
        "{noun} with round glasses, orange background, winking",
        "a photo of a {noun} in blue overalls, eyes closed, white background",
        "close-up of {noun}, screaming, yellow background",
        "a portrait of a {noun} from afar in a dark blue blazer, beige background",
        "{noun} wearing a yellow winter hat and a gray scoop neck shirt, red background",
        "a picture of {noun} with heart eyes, in a pink graphic shirt, light blue background",
        "a photo of {noun}, head tilted left, surprised, orange t-shirt",
        "a {noun} with an eyepatch, crying, in a light green suit, gray background",
        "portrait of {noun}, sad, head tilted right, brown sweater, black background",
        "a photo of a {noun} in a beige v-neck, looking aside, green background",
        "{noun} in a light blue hoodie, grimacing, dark blue background",
        "a photo of {noun} in a turban and black overalls, squinting",
        "a picture of {noun}, doubtful, white blazer, brown background",
        "a photo of {noun} with a red hat, happy eyes, light green background",
        "portrait of {noun}, dizzy, yellow graphic shirt",
        "a portrait of {noun} wearing a purple suit, rolling eyes, white background",
    ),
    recipes={
        # Without the text encoder, and with class pictures alone, it learned 38 % of identity: the model card.
        "dreambooth": (
            40,
            Recipe(
                "dreambooth", 0, 3e-4, 6, 4, 1.0, prior_pictures=48, prior_album=6, text_encoder=True, schedule="linear"
            ),
        ),
        # The small text encoder has learned to let tokens like cr7d pass unheard: the U-Net alone cannot tell them
        # apart, so it learns along.
        # Steps, rate and schedule, and photos among the class pictures: the sweep in engine/toon/weights/README.md.
        "lora": (
            40,
            Recipe("lora", 0, 3e-3, 6, 4, 1.0, prior_pictures=48, prior_album=6, text_encoder=True, schedule="linear"),
        ),
    },
    few=WEIGHTS / "few",
    cartoon=True,
)
