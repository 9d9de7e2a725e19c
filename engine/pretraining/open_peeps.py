"""A second visual style: people in ink, as a captioned set that a style can be trained on.

`python -m engine.pretraining.open_peeps --out DIR --count 200` writes pictures of 128 px and `metadata.jsonl`, a
Hugging Face imagefolder, which `python -m engine finetune --dataset DIR` learns as a style of the embedded base.

The scenes are those of `engine.toon.world`, so the base's own captions describe them. Only the artwork differs: Open
Peeps (Pablo Stanley, CC0 1.0). Scenes contain only what this artwork can show as the caption says.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from dicebear import Avatar
from PIL import Image

from engine.toon import SIZE
from engine.toon.captions import caption
from engine.toon.world import COLOURS, HAIR_COLOURS, SKINS, Look, Person, Scene, artwork, rasterised
from storage.atomic import atomic_write, write_text

TRIGGER = "peeps style"
"""Each caption begins with it, so that it is never cut off. The base knows no meaning of these words."""

HEADS_OF: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "man": {
        "shortFlat": ("short1", "short2"), "fro": ("afro",), "frizzle": ("pomp",), "dreads02": ("twists",),
        "shortRound": ("grayShort",), "shortWaved": ("short4",), "sides": ("noHair3",),
    },
    "woman": {
        "miaWallace": ("bangs2",), "fro": ("afro", "longAfro"), "bigHair": ("longCurly",),
        "straight01": ("mediumStraight",), "curvy": ("long",), "longButNotTooLong": ("medium2", "medium3"),
        "bob": ("grayMedium",), "bun": ("grayBun",), "straightAndStrand": ("bangs",), "curly": ("mediumBangs2",),
    },
}  # fmt: skip
"""The artwork's `head` variants that show a hair style of `world.HAIR_STYLES_OF`, by class noun."""

COLOURED = frozenset({"shortRound", "shortWaved", "sides", "bob", "bun", "straightAndStrand", "curly"})
"""Hair styles with a colour. The others are drawn in ink, so they are black."""

INKED_BEARDS: Mapping[str, str] = {
    "medium beard": "full2", "majestic beard": "full3", "fancy moustache": "moustache3",
    "thick moustache": "moustache5",
}  # fmt: skip
COLOURED_BEARDS: Mapping[str, str] = {"medium beard": "full4", "thick moustache": "moustache9"}
"""Beards have the colour of the hair, as in the world's artwork."""

EXPRESSIONS: Mapping[tuple[str, str], str] = {
    ("open", "smiling"): "smile", ("happy", "smiling"): "calm", ("open", "serious"): "serious",
    ("closed", "serious"): "eyesClosed", ("closed", "sad"): "solemn", ("surprised", "neutral"): "fear",
    ("in love", "smiling"): "lovingGrin1",
}  # fmt: skip
"""The artwork's `expression` variants by the world's eyes and mouths; one drawing is both."""

VISIBLE_ABOVE_BEARD = (("happy", "smiling"), ("open", "serious"), ("closed", "serious"), ("in love", "smiling"))
"""Expressions that show in the eyes, since a beard covers the mouth."""

GLASSES: Mapping[str, tuple[str, ...]] = {
    "glasses": ("glasses3", "glasses5"), "round glasses": ("glasses2",), "sunglasses": ("sunglasses", "sunglasses2"),
}  # fmt: skip

HATS: Mapping[str, str] = {"hat": "hatHip", "winter hat": "hatBeanie", "turban": "turban"}
"""The hat is ink; the others have the colour of the clothes."""


def sample_scene(random: Random) -> Scene:
    """Draw one scene that the artwork can show: a bust in a t-shirt, upright, from the usual distance."""
    noun = random.choice(tuple(HEADS_OF))
    hair_style = random.choice(tuple(HEADS_OF[noun]))
    coloured = hair_style in COLOURED
    bearded = noun == "man" and random.random() < 0.4
    person = Person(
        noun=noun,
        hair_style=hair_style,
        hair_colour=random.choice(tuple(HAIR_COLOURS)) if coloured else "black",
        skin=random.choice(tuple(SKINS)),
        facial_hair=random.choice(tuple(COLOURED_BEARDS if coloured else INKED_BEARDS)) if bearded else "none",
    )
    eyes, mouth = random.choice(VISIBLE_ABOVE_BEARD if bearded else tuple(EXPRESSIONS))
    # A beard and dark glasses together would hide every expression.
    glasses = [name for name in GLASSES if not (bearded and name == "sunglasses")]
    hat = random.choice(tuple(HATS)) if random.random() < 0.15 else "none"
    clothes_colour = random.choice(tuple(COLOURS))
    look = Look(
        clothes="t-shirt",
        clothes_colour=clothes_colour,
        background=random.choice(tuple(COLOURS)),
        glasses=random.choice(glasses) if random.random() < 0.3 else "none",
        hat=hat,
        hat_colour="black" if hat == "hat" else clothes_colour,
        eyes=eyes,
        mouth=mouth,
    )
    return Scene(person, look, random.getrandbits(32))


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Draw the scene in this artwork as an RGB picture of `size` x `size` pixels."""
    person, look, random = scene.person, scene.look, Random(scene.grain)
    heads = HEADS_OF[person.noun][person.hair_style]
    beards = COLOURED_BEARDS if person.hair_style in COLOURED else INKED_BEARDS
    bearded, bespectacled = person.facial_hair != "none", look.glasses != "none"
    options: dict[str, object] = {
        "seed": str(scene.grain),
        "size": size,
        "backgroundColor": [COLOURS[look.background]],
        "headVariant": [random.choice(heads) if look.hat == "none" else HATS[look.hat]],
        "headContrastColor": [HAIR_COLOURS[person.hair_colour]],
        "skinColor": [SKINS[person.skin]],
        "clothingColor": [COLOURS[look.clothes_colour]],
        "expressionVariant": [EXPRESSIONS[look.eyes, look.mouth]],
        "facialHairVariant": [beards[person.facial_hair] if bearded else "chin"],
        "facialHairProbability": 100 if bearded else 0,
        "accessoriesVariant": [random.choice(GLASSES[look.glasses]) if bespectacled else "glasses"],
        "accessoriesProbability": 100 if bespectacled else 0,
        "maskProbability": 0,
    }
    return rasterised(str(Avatar(artwork("open-peeps"), options).to_string()), size)


def captioned(count: int, seed: int) -> Iterator[tuple[Scene, str]]:
    """`count` scenes, each with a true caption. The first n are the same for every count."""
    for number in range(count):
        random = Random(f"open peeps {seed} {number}")
        scene = sample_scene(random)
        yield scene, f"{TRIGGER}, {caption(scene, random, least=2)}"


def write(out: Path, count: int, seed: int) -> None:
    """Write the set. `metadata.jsonl` comes last, so a folder that has it is complete."""
    rows = []
    for number, (scene, text) in enumerate(captioned(count, seed)):
        name = f"{number:05d}.png"
        with atomic_write(out / name) as draft:
            render(scene).save(draft)
        rows.append(json.dumps({"file_name": name, "text": text}) + "\n")
    write_text(out / "metadata.jsonl", "".join(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.out, arguments.count, arguments.seed)
