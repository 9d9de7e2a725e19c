"""The embedded base: built like Stable Diffusion, trained on a drawn world that the engine can describe."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from PIL import Image

from engine.bases.families.stable_diffusion import StableDiffusion
from engine.recipe import ATTENTION, Recipe
from engine.toon import WEIGHTS
from engine.toon.lexicon import Lexicon
from storage import naming
from storage.looks import Looks

if TYPE_CHECKING:
    from engine.toon.judge import Judge

CONVOLUTIONS = ("conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")

CAPTIONS = 18
"""Captions of each picture: three for each of `instance_prompts`, which name nothing besides the person."""

MIN_PROBABILITY = 0.5
"""A caption describes a picture only if the judge gives each of its attributes at least this probability."""


@cache
def _judge() -> "Judge":
    # Drawing needs neither the judge nor the world, whose artwork takes a second to load.
    from engine.toon.judge import Judge

    return Judge.load()


@dataclass(frozen=True)
class Toon(StableDiffusion):
    """Its captions name clothes, background and expression, so that the token need not stand for them."""

    def lexicon(self) -> Lexicon:
        from engine.toon import captions

        return captions.lexicon()

    def captions(self, picture: Image.Image, instance: str) -> Sequence[str]:
        from engine.toon.captions import instance_caption

        look, probability = _judge().look(picture)
        if probability < MIN_PROBABILITY:
            return ()
        return [instance_caption(instance, look, Random(number)) for number in range(CAPTIONS)]

    def draw_person(
        self, looks: Looks, noun: str, instance: str, seed: int
    ) -> tuple[list[Image.Image], list[Sequence[str]]]:
        from engine.toon.from_looks import album_of, captions_of
        from engine.toon.world import render

        scenes = album_of(looks, noun, self.drawings, seed)
        return [render(scene) for scene in scenes], [captions_of(one, instance, looks, CAPTIONS) for one in scenes]


TOON = Toon(
    name="toon",
    guidance=4.0,
    draw_steps=25,
    # Attention alone learns neither a person nor a style on this small base.
    adapter_targets=ATTENTION + CONVOLUTIONS,
    style_targets=None,
    # Its small text encoder recognises the token only after words that it was trained after.
    instance_prompts=(
        "a photo of {instance}",
        "{instance}",
        "portrait of {instance}",
        "a portrait of {instance}",
        "a picture of {instance}",
        "photo of a {instance}",
    ),
    # They cover everything that prompts can name: what no class picture shows, the adapter forgets.
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
        # Without the text encoder, and with class pictures alone, 38 % of identity was learned: the model card.
        "dreambooth": (
            40,
            Recipe(
                "dreambooth", 0, 3e-4, 6, 4, 1.0, prior_pictures=48, prior_album=6, text_encoder=True, schedule="linear"
            ),
        ),
        # Pre-training taught the small text encoder to ignore tokens such as cr7d, so the U-Net alone cannot tell them
        # apart: the text encoder is trained too.
        # Steps, rate and schedule, and photos among the class pictures: the sweep in engine/toon/weights/README.md.
        "lora": (
            40,
            Recipe("lora", 0, 3e-3, 6, 4, 1.0, prior_pictures=48, prior_album=6, text_encoder=True, schedule="linear"),
        ),
    },
    few_step_adapter=WEIGHTS / "few",
    # In a small picture nothing can be seen of a face that is small in its photo.
    album_crop="face",
    captions_drawings=True,
    # A photographed face is nothing that its autoencoder and its captions know.
    nouns=naming.PEOPLE,
    # Pre-training drew squares of 128 px alone. At 160 px half of the pictures have parts of a second head; at 96 px
    # heads are cut off.
    shapes=((1, 1),),
    drawings=8,
    likeness="judge",
    prompt_score=True,
    sample_captions=True,
    notice="cartoon",
)
