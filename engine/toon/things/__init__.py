"""Places, costumes, headgear, things to hold and companions that are drawn with a person.

Every `Thing` is a few SVG fragments on the canvas of the drawn person: 280 x 280 units, face centre (140, 110), skull
from y = 36, ears at x = 74 and 206, chin at y = 188, shoulders from y = 199 down to the lower edge, eyes about
(114, 112) and (166, 112), mouth about (140, 155). A composer draws, from back to front: the background, `behind`, the
body, the clothes, `body`, the face and hair, `head`, `front`.
"""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from engine.toon.things import companions, costumes, headgear, held, places
from engine.toon.things.drawing import LAYERS, Thing, filled, palette

__all__ = ["LAYERS", "THINGS", "Thing", "fragments", "phrases"]

THINGS: Mapping[str, Thing] = MappingProxyType(
    {thing.name: thing for catalog in (places, costumes, headgear, held, companions) for thing in catalog.THINGS}
)
"""Every thing by its name."""


def phrases(thing: Thing) -> tuple[tuple[str, str], ...]:
    """The thing's wordings as (slot, text) of a caption: "with a cat" is ("with", "a cat"), "eating pizza" is
    ("loose", "eating pizza")."""
    slots = (wording.partition(" ") for wording in thing.wordings)
    return tuple(
        (first, rest) if first in ("with", "wearing") else ("loose", f"{first} {rest}") for first, _, rest in slots
    )


def fragments(thing: Thing, seed: int, *, skin: str = "#edb98a", mirrored: bool | None = None) -> dict[str, str]:
    """The thing's drawing by layer, as SVG in canvas coordinates. The same arguments give the same text.

    The seed decides the colours among `thing.colours`, the side, and a small shift and size of what does not sit on the
    body. Backgrounds (`behind` of a place) fill at least -120 to 400 in x and y, so that wider and taller canvases can
    show more of them.

    Args:
        skin: the person's skin as #rrggbb: hands that hold something have it.
        mirrored: whether left and right are swapped; None leaves that to the seed. Two things that are held on one
            canvas want different sides.
    """
    random = Random(f"{thing.name} {seed}")
    colours = palette(
        {name: random.choice(options) for name, options in sorted(thing.colours.items())} | {"skin": skin}
    )
    swapped = random.random() < 0.5 if mirrored is None else mirrored
    colours["upright"] = "scale(-1 1)" if swapped else ""  # letters and figures are not mirrored
    shifts = {
        "behind": (random.uniform(-8, 8), random.uniform(-5, 5), random.uniform(1.0, 1.1)),
        "front": (random.uniform(-3, 3), random.uniform(-3, 3), random.uniform(0.97, 1.03)),
    }
    drawn = {}
    for layer, svg in thing.layers.items():
        x, y, scale = shifts.get(layer, (0.0, 0.0, 1.0))
        # The scale's centre is the middle of the lower edge, where the figure stands.
        moved = f"translate({x + 140 * (1 - scale):.2f} {y + 280 * (1 - scale):.2f}) scale({scale:.3f})"
        flip = "translate(280 0) scale(-1 1) " if swapped else ""
        transform = f"{flip}{moved if layer in shifts else ''}".strip()
        body = filled(svg, colours)
        drawn[layer] = f'<g transform="{transform}">{body}</g>' if transform else f"<g>{body}</g>"
    return drawn
