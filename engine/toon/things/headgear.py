"""Headgear and other single pieces that the person wears."""

from types import MappingProxyType

from engine.toon.things.drawing import HAT_CLIP, OWN, Thing

BRIGHT = ("#e0403a", "#3a6fd8", "#f2a52c", "#3c9d4e", "#8a4fbf", "#e85d9a", "#2b2f3a")
"""Colours that caps, scarfs and the like come in."""


def _worn(name: str, *nouns: str, extra: tuple[str, ...] = (), clip: str = "", neck: bool = False,
          **colours: tuple[str, ...]) -> Thing:  # fmt: skip
    """A piece; each of `nouns`, such as "a crown", gives three wordings. `neck` is for what leaves the head free."""
    wordings = [f"{verb} {noun}" for noun in nouns for verb in ("wearing", "with", "in")]
    hides = frozenset() if neck else frozenset({"hat"})
    return Thing(name, "headgear", (*wordings, *extra), "wearing", hides, MappingProxyType(colours), clip, OWN)


THINGS = (
    _worn("crown", "a crown", "a golden crown", "a gold crown", clip=HAT_CLIP),
    _worn("top-hat", "a top hat", "a tall hat", "a black top hat", clip=HAT_CLIP,
          main=("#b8262f", "#5b3fa0", "#8a929f")),
    _worn("headphones", "headphones", "big headphones", "a headset", extra=("listening to music", "as a dj"),
          main=("#e0403a", "#3a6fd8", "#f2a52c", "#3c9d4e", "#e85d9a")),
    _worn("flower-crown", "a flower crown", "flowers on the head", "a crown of flowers", "a wreath of flowers"),
    _worn("party-hat", "a party hat", "a birthday hat", extra=("celebrating with a party hat",),
          main=("#e0403a", "#3a6fd8", "#3c9d4e", "#8a4fbf", "#e85d9a")),
    _worn("baseball-cap", "a baseball cap", "a cap", "a snapback", clip=HAT_CLIP, main=BRIGHT),
    _worn("bunny-ears", "bunny ears", "rabbit ears", extra=("as a bunny", "as a rabbit", "dressed as a bunny"),
          main=("#ffffff", "#f4d9e4", "#8f8792")),
    _worn("cat-ears", "cat ears", "a cat ear headband", extra=("as a catgirl", "dressed as a cat")),
    _worn("halo", "a halo", "an angel halo", "a golden halo"),
    _worn("santa-hat", "a santa hat", "a christmas hat", "a santa claus hat", clip=HAT_CLIP),
    _worn("beret", "a beret", "a french beret", clip=HAT_CLIP, main=BRIGHT),
    _worn("sombrero", "a sombrero", "a mexican hat", extra=("in mexico", "as a mariachi"), clip=HAT_CLIP),
    _worn("bow-tie", "a bow tie", "a bowtie", neck=True, main=BRIGHT),
    _worn("scarf", "a scarf", "a warm scarf", "a winter scarf", neck=True, main=BRIGHT),
    _worn("tie", "a tie", "a necktie", neck=True, main=BRIGHT),
)  # fmt: skip
