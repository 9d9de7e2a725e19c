"""Pictures, captions and prompts of the drawn world, sampled at random: what few-step adapters are distilled from."""

from random import Random

from PIL import Image

from engine.toon.captions import caption, describe_person, instance_caption
from engine.toon.world import render, sample_person, sample_scene

NAMES = ("a man", "a woman", "man", "woman", "cr7d man", "mia7 woman", "a person", "person")
"""Class nouns, and tokens with their class nouns."""


def world(side: int, count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """`count` pictures of `side` x `side` pixels and their captions; none of them shows a held-out person."""
    random = Random(seed)
    scenes = [sample_scene(random) for _ in range(count)]
    return [render(scene, side) for scene in scenes], [caption(scene, random) for scene in scenes]


def prompts(count: int, seed: int = 0) -> list[str]:
    """Prompts as users may write them for the embedded base. Of five, three are captions of its world, one describes a
    person in words, and one names a token or a class noun."""
    random = Random(f"prompts {seed}")

    def prompt(kind: int) -> str:
        scene = sample_scene(random)
        if kind < 3:
            return caption(scene, random)
        who = describe_person(sample_person(random, held_out=False)) if kind == 3 else random.choice(NAMES)
        return f"a photo of {who}" if random.random() < 0.2 else instance_caption(who, scene.look, random)

    return [prompt(random.randrange(5)) for _ in range(count)]
