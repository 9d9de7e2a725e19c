"""How the evaluation draws: plain DiceBear pictures, framed, tinted and stored as a chat's members would send them.

Nothing here comes from the code that draws the pictures of pre-training.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import resvg_py
from dicebear import Avatar, Style
from PIL import Image, ImageDraw

from engine.toon import things
from tests.evaluation.palette import rgb, text

SIDE = 280
"""Width and height of the canvas of `avataaars`, and of the drawings of things."""

MIDDLE = SIDE / 2


@dataclass(frozen=True)
class Camera:
    """Where the figure is in the picture, in DiceBear's own terms."""

    scale: float = 1.0
    """Size of the figure, about the middle of the canvas."""
    x: float = 0.0
    """Shift to the right in percent of the canvas; `y` is the shift down."""
    y: float = 0.0
    turn: float = 0.0
    """Degrees clockwise."""
    flip: bool = False
    """Whether left and right are swapped."""
    yaw: float = 0.0
    """Degrees that the face is turned to the viewer's right."""
    pitch: float = 0.0
    """Degrees that the face is turned down."""

    def options(self) -> dict[str, object]:
        """The options of `dicebear.Avatar`."""
        return {
            "scale": round(self.scale, 3), "rotate": round(self.turn, 2), "flip": "horizontal" if self.flip else "none",
            "translateX": round(self.x, 2), "translateY": round(self.y, 2),
        }  # fmt: skip

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the artwork's canvas comes to lie on the picture's canvas."""
        x, y = (self.scale * (value - MIDDLE) for value in (x, y))
        x = -x if self.flip else x
        angle = math.radians(self.turn)
        x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
        return MIDDLE + x + self.x * SIDE / 100, MIDDLE + y + self.y * SIDE / 100


@dataclass(frozen=True)
class Print:
    """How a picture leaves the hands of whoever sends it."""

    side: int = 512
    """Pixels of the whole canvas's side."""
    width: float = 1.0
    """Share of the canvas's width that is left after cropping at both sides; `height` is cropped at the top."""
    height: float = 1.0
    round: bool = False
    """Whether the corners are cut off by a circle, as in many profile pictures."""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of red, green and blue."""
    format: str = "PNG"
    quality: int = 90
    """Of a JPEG or WebP file."""

    def tinted(self, colour: str) -> str:
        """The colour as the picture shows it."""
        return text(tuple(value * factor for value, factor in zip(rgb(colour), self.tint, strict=True)))


@cache
def artwork(name: str) -> Style:
    """One of DiceBear's artworks, by its file's name."""
    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")))


BODY = re.compile(r"(<defs>.*</defs>)?(<g clip-path=[^>]*>)(<rect [^>]*/>)(.*)</g></svg>$", re.DOTALL)
USE = re.compile(r'<use[^>]*href="#([A-Za-z]+)-[^"]*"/>')

SHIFTS: Mapping[str, float] = {
    "nose": 1.2, "mouth": 1.0, "eyes": 1.0, "eyebrows": 0.95, "accessories": 1.0, "facialHair": 0.85
}  # fmt: skip
"""How much each part of a turned face moves."""


def drawn(style: str, options: Mapping[str, object], camera: Camera) -> tuple[str, str, str]:
    """A DiceBear picture in three parts of SVG text: definitions, background and figure."""
    whole = str(Avatar(artwork(style), {**options, **camera.options()}).to_string())
    found = BODY.search(whole)
    assert found, whole[:300]
    return found[1] or "", found[3], found[4]


def turned(figure: str, camera: Camera) -> str:
    """The figure of `avataaars` with its face moved to a side, up or down: a flat drawing slides over its head."""
    if not camera.yaw and not camera.pitch:
        return figure
    x, y = 38 * math.sin(math.radians(camera.yaw)), 44 * math.sin(math.radians(camera.pitch))
    narrow = 1 - 0.55 * (1 - math.cos(math.radians(camera.yaw)))

    def moved(use: re.Match[str]) -> str:
        share = SHIFTS.get(use[1])
        if share is None:
            return use[0]
        at = f"translate({140 + share * x:.1f} {share * y:.1f}) scale({narrow:.3f} 1) translate(-140 0)"
        return f'<g transform="{at}">{use[0]}</g>'

    return USE.sub(moved, figure)


def with_things(figure: str, names: tuple[str, ...], seed: int, skin: str) -> tuple[str, str, str]:
    """The figure of `avataaars` with things: what is behind it, the figure, what is before it."""
    layers = dict.fromkeys(things.LAYERS, "")
    for name in names:
        for layer, fragment in things.fragments(things.THINGS[name], seed, skin=skin).items():
            layers[layer] += fragment
    uses = list(USE.finditer(figure))
    clothes = next((use.end() for use in uses if use[1] == "clothes"), 0)
    last = max(use.end() for use in uses)
    # What is worn replaces the clothes, so it lies where they would: under the face.
    under = clothes or min(use.start() for use in uses)
    figure = figure[:under] + layers["body"] + figure[under:last] + layers["head"] + figure[last:]
    return layers["behind"], figure, layers["front"]


def composed(parts: tuple[str, str, str], behind: str, front: str, box: tuple[float, float, float, float]) -> str:
    """One SVG document that shows `box` (left, top, width, height) of the canvas. The background fills it."""
    definitions, background, figure = parts
    left, top, width, height = box
    fill = re.search(r'fill="[^"]*"', background)
    assert fill
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}" fill="none">{definitions}'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" {fill[0]}/>{behind}{figure}{front}</svg>'
    )


def rasterised(document: str, width: int, height: int) -> Image.Image:
    """SVG text as an RGB picture."""
    png = resvg_py.svg_to_bytes(svg_string=document, width=width, height=height, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def printed(picture: Image.Image, how: Print) -> Image.Image:
    """The picture cropped, tinted and rounded."""
    across, down = round(picture.width * how.width), round(picture.height * how.height)
    left = (picture.width - across) // 2
    picture = picture.crop((left, picture.height - down, left + across, picture.height))
    if how.tint != (1.0, 1.0, 1.0):
        bands = [band.point([min(255, round(v * f)) for v in range(256)]) for band, f in
                 zip(picture.split(), how.tint, strict=True)]  # fmt: skip
        picture = Image.merge("RGB", bands)
    if how.round:
        mask = Image.new("L", picture.size, 0)
        ImageDraw.Draw(mask).ellipse((0, 0, picture.width - 1, picture.height - 1), fill=255)
        picture = Image.composite(picture, Image.new("RGB", picture.size, "white"), mask)
    return picture


def encoded(picture: Image.Image, how: Print) -> bytes:
    """The picture as a file's bytes."""
    stream = io.BytesIO()
    picture.save(stream, how.format, **({} if how.format == "PNG" else {"quality": how.quality}))
    return stream.getvalue()


SUFFIX: Mapping[str, str] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
