"""The parts of the drawn people, as outlines that can be bent.

The artwork is DiceBear's `avataaars` (Pablo Stanley, free for personal and commercial use), from the package
`dicebear-styles`. A part, such as a mouth, is a list of shapes. Each shape is a path of lines and cubic curves with its
control points in one array, so that a head can be turned by moving points.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from fontTools.pens.recordingPen import RecordingPen
from fontTools.svgLib.path import parse_path
from numpy.typing import NDArray

CANVAS = 280
"""Width and height of the artwork's canvas. All coordinates of this package are in its units."""

LONGEST = 16.0
"""Segments longer than this are split: between its control points a curve does not follow a bend."""

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shape:
    """One filled path. `operations` has a letter of M, L, C or Z for each segment, and `points` (n, 2) their points."""

    operations: str
    points: Points
    fill: str
    """A colour, or the role of a colour in braces, such as `{hair}`."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def to_svg(self, points: Points, fill: str) -> str:
        """The shape as an SVG element, with its points moved to `points` (n, 2)."""
        numbers = [f"{value:.2f}" for value in points.reshape(-1).tolist()]
        texts, at = [], 0
        for operation in self.operations:
            count = POINTS_OF[operation] * 2
            texts.append(operation + " ".join(numbers[at : at + count]))
            at += count
        attributes = "".join(f' {name}="{value}"' for name, value in self.attributes.items())
        return f'<path d="{"".join(texts)}" fill="{fill}"{attributes}/>'


Part = tuple[Shape, ...]

POINTS_OF = {"M": 1, "L": 1, "C": 3, "Z": 0}
"""Points that each operation takes."""


def outline(
    data: str, fill: str, attributes: Mapping[str, str] | None = None, origin: Sequence[float] = (0, 0)
) -> Shape:
    """A shape from an SVG path's data, moved by `origin`."""
    pen = RecordingPen()
    parse_path(data, pen)
    operations, points = [], list[Points]()
    here = np.zeros(2)
    for name, arguments in pen.value:
        if name in ("closePath", "endPath"):
            operations += ["Z"] if name == "closePath" else []
            continue
        if name == "moveTo":
            operations.append("M")
            here = np.array(arguments[0], float)
            points.append(here[None])
            continue
        ends = np.array([here, *arguments], float)
        here = ends[-1]
        if name == "qCurveTo":
            ends = np.stack(
                [ends[0], ends[0] + (ends[1] - ends[0]) * 2 / 3, ends[2] + (ends[1] - ends[2]) * 2 / 3, ends[2]]
            )
        for piece in _pieces(ends):
            operations.append("L" if len(piece) == 2 else "C")
            points.append(piece[1:])
    return Shape("".join(operations), np.concatenate(points) + np.array(origin, float), fill, attributes or {})


def _pieces(ends: Points) -> list[Points]:
    """A line (2, 2) or cubic curve (4, 2) in pieces whose control polygons are no longer than `LONGEST`."""
    length = float(np.linalg.norm(np.diff(ends, axis=0), axis=1).sum())
    if length <= LONGEST:
        return [ends]
    middle = ends
    left, right = [ends[0]], [ends[-1]]
    while len(middle) > 1:  # de Casteljau's algorithm at one half
        middle = (middle[1:] + middle[:-1]) / 2
        left.append(middle[0])
        right.append(middle[-1])
    return _pieces(np.array(left)) + _pieces(np.array(right[::-1]))


def ellipse_data(x: float, y: float, rx: float, ry: float) -> str:
    """The path data of an ellipse around (x, y)."""
    return f"M{x - rx} {y}a{rx} {ry} 0 1 0 {2 * rx} 0a{rx} {ry} 0 1 0 {-2 * rx} 0z"


def rectangle_data(x: float, y: float, width: float, height: float, radius: float = 0.0) -> str:
    """The path data of a rectangle with round corners."""
    r = min(radius, width / 2, height / 2)
    arc = f"a{r} {r} 0 0 1 "
    return (
        f"M{x + r} {y}h{width - 2 * r}{arc}{r} {r}v{height - 2 * r}{arc}{-r} {r}"
        f"h{2 * r - width}{arc}{-r} {-r}v{2 * r - height}{arc}{r} {-r}z"
    )


@cache
def _style() -> Mapping[str, Any]:
    style: Mapping[str, Any] = json.loads(files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8"))
    return style


@cache
def _origins() -> Mapping[str, tuple[float, float]]:
    """Where the canvas places each component."""
    origins = {}
    for element in _style()["canvas"]["elements"]:
        if element["type"] == "component":
            numbers = element["attributes"]["transform"].removeprefix("translate(").removesuffix(")").split()
            origins[element["name"]] = (float(numbers[0]), float(numbers[1]) if len(numbers) > 1 else 0.0)
    return origins


@cache
def part(component: str, variant: str) -> Part:
    """One variant of a component, at its place on the canvas.

    Raises:
        KeyError: the artwork has no such component or variant.
    """
    found = _style()["components"][component]["variants"][variant]
    x, y = _origins()["clothes"] if component == "clothesGraphic" else _origins()[component]
    origin = (x + PRINT[0], y + PRINT[1]) if component == "clothesGraphic" else (x, y)
    return tuple(_shapes(found["elements"], origin, {}))


PRINT = (45.0, 44.3)
"""Where a graphic shirt has its print, from the origin of the clothes."""


def _shapes(
    elements: Sequence[Mapping[str, Any]], origin: tuple[float, float], above: Mapping[str, Any]
) -> list[Shape]:
    shapes = list[Shape]()
    for element in elements:
        if element["type"] == "component":
            continue  # the print of a graphic shirt, which the caller chooses
        name, attributes = element["name"], {**above, **element.get("attributes", {})}
        if name == "g":
            shapes += _shapes(element.get("children", ()), origin, attributes)
            continue
        fill = attributes.get("fill", "black")
        fill = f"{{{fill['name']}}}" if isinstance(fill, Mapping) else str(fill)
        if name in DATA and not fill.startswith("url("):  # gradients are the gleam of two sunglasses
            kept = {key: str(attributes[key]) for key in KEPT if key in attributes}
            shapes.append(outline(DATA[name](attributes), fill, kept, origin))
    return shapes


KEPT = ("fill-rule", "fill-opacity", "opacity")

DATA: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "path": lambda a: a["d"],
    "circle": lambda a: ellipse_data(float(a["cx"]), float(a["cy"]), float(a["r"]), float(a["r"])),
    "rect": lambda a: rectangle_data(
        float(a.get("x", 0)), float(a.get("y", 0)), float(a["width"]), float(a["height"]), float(a.get("rx", 0))
    ),
}


HEAD = (
    "M140 36a56 56 0 0 0-56 56v32a56 56 0 0 0 32 56.6V199h-4a72 72 0 0 0-72 72v9h200v-9a72 72 0 0 0-72-72h-4v-18.38"
    "a56 56 0 0 0 32-56.6V92a56 56 0 0 0-56-56"
)
"""Head, neck and shoulders. The ears are shapes of their own (`EARS`), since a turned head hides one of them."""

EARS = (rectangle_data(74, 98, 24, 38, 12), rectangle_data(182, 98, 24, 38, 12))
"""The ear at the viewer's left, and that at the right."""

NECK_SHADOW = "M116 180.61v8a56 56 0 0 0 24 5.39 56 56 0 0 0 24-5.39v-8a56 56 0 0 1-24 5.39 56 56 0 0 1-24-5.39"


@cache
def skin_parts() -> tuple[Shape, Shape, Shape, Shape]:
    """Head with neck and shoulders, left ear, right ear, shadow on the neck."""
    return (
        outline(HEAD, "{skin}"),
        outline(EARS[0], "{skin}"),
        outline(EARS[1], "{skin}"),
        outline(NECK_SHADOW, "black", {"fill-opacity": ".1"}),
    )
