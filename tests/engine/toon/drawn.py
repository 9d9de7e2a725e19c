"""A plain person of the artwork with things, composed as `engine.toon.things` says. For tests."""

import io
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from numpy.typing import NDArray
from PIL import Image

from engine.toon.things import LAYERS, Thing, fragments

HAIR, SKIN, BACKGROUND = "#00ff40", "#ff00ff", "#808080"
"""Colours that no thing has, so that pixels of each can be counted."""

Pixels = NDArray[np.int16]


@cache
def _artwork() -> Style:
    return Style(json.loads(files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8")))


@cache
def _plain(top: str) -> str:
    options: dict[str, object] = {
        "seed": "plain", "size": 280, "backgroundColor": [BACKGROUND], "topVariant": [top], "hairColor": [HAIR],
        "skinColor": [SKIN], "accessoriesProbability": 0, "facialHairProbability": 0, "clothesVariant": ["shirtVNeck"],
        "clothesColor": ["#404040"], "eyesVariant": ["default"], "eyebrowsVariant": ["default"],
        "mouthVariant": ["smile"],
    }  # fmt: skip
    return str(Avatar(_artwork(), options).to_string())


def svg(layers: Mapping[str, str], *, top: str = "theCaesar", hair_clip: str = "", clothes: bool = True) -> str:
    """The person with fragments by layer; without clothes or with clipped hair where a thing asks for that."""
    text = _plain(top)

    def after(pattern: str, addition: str, keep: bool = True) -> None:
        nonlocal text
        text, count = re.subn(pattern, lambda match: (match[0] if keep else "") + addition, text)
        assert count == 1, pattern

    if hair_clip:
        hair = re.search(r'<use [^>]*href="#top-[^>]*/>', text)
        assert hair is not None
        clip = f'<clipPath id="hair"><path d="{hair_clip}"/></clipPath><g clip-path="url(#hair)">{hair[0]}</g>'
        text = text.replace(hair[0], clip)
    after(r'<rect width="280" height="280" fill="[^>]*/>', layers.get("behind", ""))
    after(r'<use [^>]*href="#clothes-[^>]*/>', layers.get("body", ""), keep=clothes)
    assert text.endswith("</g></svg>") and '<g transform="' not in _plain(top), "one group holds the whole picture"
    return text.removesuffix("</g></svg>") + layers.get("head", "") + layers.get("front", "") + "</g></svg>"


def rendered(text: str, size: int = 280) -> Pixels:
    """RGBA of an SVG, (size, size, 4)."""
    png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")).astype(np.int16)


def person(thing: Thing | None = None, seed: int = 0, *, top: str = "theCaesar", without: str = "") -> Pixels:
    """The plain person, with a thing, or with a thing less one layer."""
    drawn = fragments(thing, seed, skin=SKIN) if thing else {}
    assert set(drawn) <= set(LAYERS)
    layers = {layer: text for layer, text in drawn.items() if layer != without}
    clip, hidden = (thing.hair_clip, thing.hides) if thing else ("", frozenset[str]())
    return rendered(svg(layers, top=top, hair_clip=clip, clothes="clothes" not in hidden))
