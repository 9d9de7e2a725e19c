"""What a thing is, and how its drawing is read from the SVG files beside this module."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from xml.dom import minidom

LAYERS = ("behind", "body", "head", "front")
"""Layers of a drawing, from back to front: over the background and under the figure; over or instead of the clothes;
over the hair, moving with the head; before everything."""

OWN = "own"
"""Source of the drawings that the authors made."""

FLUENT = "own, with icons of @iconify-json/fluent-emoji-flat 1.2.6 (Fluent Emoji, Microsoft Corporation, MIT)"
"""Source of the drawings that contain files of `drawings/icons`."""

HAT_CLIP = "M-60 190Q20 66 84 62H196Q260 66 340 190V420H-60Z"
"""Where hair shows under a hat whose brim is about y = 62: below the brim, pressed down at the sides."""

FACE_CLIP = "M88 92Q88 70 112 70H168Q192 70 192 92V148Q192 194 140 196Q88 194 88 148Z"
"""Where hair shows in a helmet or hood that is open before the face."""

GLASS_CLIP = "M66 118a74 74 0 1 0 148 0a74 74 0 1 0 -148 0Z"
"""Where hair shows behind the round glass of a space helmet."""

BALD_CLIP = "M0 0Z"
"""Shows no hair."""

DARKER, LIGHTER = 0.72, 0.4
"""A placeholder `{main-dark}` is the colour times the first; `{main-light}` is mixed with the second part of white."""


@dataclass(frozen=True)
class Thing:
    """Something that people ask for and that is drawn with the person.

    `kind` is "place", "costume", "headgear", "held" or "companion". `wordings` are whole phrases that people type, in
    lower case. `slot` is where captions put most of them: "loose", "with" or "wearing". `hides` names what of the plain
    person and picture it replaces: "background", "clothes", "hat" (no hat of the artwork may be worn with it) or "hair"
    (most of it). `hair_clip` is SVG path data: where not empty, the composer draws hair only inside it. `colours` maps
    a placeholder of the drawing, such as `{main}`, to the hex colours it may have.
    """

    name: str
    kind: str
    wordings: tuple[str, ...]
    slot: str
    hides: frozenset[str] = frozenset()
    colours: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    hair_clip: str = ""
    source: str = OWN

    @property
    def layers(self) -> Mapping[str, str]:
        """SVG fragments by layer, with placeholders for colours, in canvas coordinates."""
        return _layers(self.name)


def _read(path: str) -> minidom.Element:
    root = minidom.parseString(files(__package__).joinpath("drawings", *path.split("/")).read_bytes()).documentElement
    assert root is not None
    return root


def _inner(element: minidom.Element) -> str:
    text = "".join(node.toxml() for node in element.childNodes if isinstance(node, minidom.Element))
    return re.sub(r'<use href="([\w/.-]+\.svg)"(?: transform="([^"]*)")?/>', _included, text)


def _included(use: re.Match[str]) -> str:
    transform = f' transform="{use[2]}"' if use[2] else ""
    return f"<g{transform}>{_inner(_read(use[1]))}</g>"


@cache
def _layers(name: str) -> Mapping[str, str]:
    groups = [node for node in _read(f"{name}.svg").childNodes if isinstance(node, minidom.Element)]
    return MappingProxyType({group.getAttribute("id"): _inner(group) for group in groups})


def palette(colours: Mapping[str, str]) -> dict[str, str]:
    """Colours by placeholder, with a darker and a lighter shade of each: "main", "main-dark", "main-light"."""
    shades = {}
    for name, colour in colours.items():
        channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        shades[name] = colour
        shades[f"{name}-dark"] = "#" + "".join(f"{round(c * DARKER):02x}" for c in channels)
        shades[f"{name}-light"] = "#" + "".join(f"{round(c + (255 - c) * LIGHTER):02x}" for c in channels)
    return shades


def filled(svg: str, colours: Mapping[str, str]) -> str:
    """The fragment with every placeholder replaced. A placeholder without a colour raises `KeyError`."""
    return re.sub(r"\{([\w-]+)\}", lambda match: colours[match[1]], svg)
