"""Draw a scene: outlines, turned with the head, as SVG and as pixels."""

import io
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import resvg_py
from PIL import Image

from engine.cartoon import SIZE, artwork, world
from engine.cartoon.artwork import CANVAS, Points, Shape
from engine.cartoon.pose import CENTRE, Pose, ear_shift, place, placement, transform, turn
from engine.cartoon.world import Person, Scene
from engine.toon import things

DEPTHS: Mapping[str, float] = {"nose": 1.28, "accessories": 1.06, "mouth": 1.03}
"""How far parts of the head stand out; all others are 1."""


def _coloured(shape: Shape, colours: Mapping[str, str]) -> str:
    return colours[shape.fill[1:-1]] if shape.fill.startswith("{") else shape.fill


def _narrowed(points: Points, width: float) -> Points:
    """Points of a head that is `width` times as wide. The neck keeps its width."""
    share = np.clip((200 - points[:, 1]) / 40, 0, 1)  # 0 below the chin, 1 on the face
    moved = points.copy()
    moved[:, 0] += (points[:, 0] - CENTRE[0]) * (width - 1) * share
    return moved


def _drawn(
    shapes: Sequence[Shape], person: Person, pose: Pose, colours: Mapping[str, str], depth: float = 1.0,
    fixed: bool = False,
) -> str:  # fmt: skip
    """Shapes of the head as SVG. `fixed`: they reach down to the shoulders, which do not turn."""
    texts = []
    for shape in shapes:
        narrowed = _narrowed(shape.points, person.face_width)
        points = turn(narrowed, pose, depth)
        if fixed:
            share = np.clip((215 - narrowed[:, 1:]) / 45, 0, 1)  # 1 on the head, 0 from the collar down
            points = narrowed + share * (points - narrowed)
        texts.append(shape.to_svg(points, _coloured(shape, colours)))
    return "".join(texts)


FULL = frozenset(
    "bigHair bob curly curvy dreads fro froBand longButNotTooLong miaWallace straight01 straight02 straightAndStrand "
    "frida".split()
)
"""Hair styles that surround the face: behind a turned head there is hair, not background."""


def _hair_behind(top: str, person: Person) -> str:
    if top not in FULL:
        return ""
    back = artwork.outline(artwork.ellipse_data(140, 112, 66, 76), world.darker(person.hair, 0.85))
    return back.to_svg(back.points, back.fill)


def _below(body: str) -> str:
    """What is worn, drawn out downwards from the canvas's lower edge: a figure that is moved or turned shows it."""
    clip = '<clipPath id="below"><rect x="-200" y="278" width="680" height="400"/></clipPath>'
    return (
        f'{clip}<g clip-path="url(#below)"><g transform="translate(0 272) scale(1 18) translate(0 -272)">{body}</g></g>'
    )


def _clipped(hair: str, clips: Sequence[str], person: Person, pose: Pose) -> str:
    """Hair inside the outlines that headgear leaves for it, which turn with the head."""
    for number, clip in enumerate(clips):
        shape = artwork.outline(clip, "black")
        turned = shape.to_svg(turn(_narrowed(shape.points, person.face_width), pose), "black")
        hair = f'<clipPath id="hair{number}">{turned}</clipPath><g clip-path="url(#hair{number})">{hair}</g>'
    return hair


def _ears(person: Person, pose: Pose, colours: Mapping[str, str], behind: bool) -> str:
    """The ears that are behind the head, or those in front of it."""
    _, *ears, _ = artwork.skin_parts()
    texts = []
    for side, ear in zip((-1, 1), ears, strict=True):
        # The ear on the side that the head turns to goes behind the head.
        if behind == (side * pose.yaw >= 0):
            points = turn(_narrowed(ear.points, person.face_width), pose, 0.7)
            points = points + np.array((ear_shift(side, pose), 0.0))
            texts.append(ear.to_svg(points, _coloured(ear, colours)))
    return "".join(texts)


def _brows(variant: str, person: Person, pose: Pose) -> str:
    """The brows, in their own colour and weight."""
    shapes = artwork.part("eyebrows", variant)
    thick = []
    for shape in shapes:
        middle = shape.points[:, 1].mean()
        points = shape.points.copy()
        points[:, 1] = middle + (points[:, 1] - middle) * person.brow_weight
        thick.append(Shape(shape.operations, points, person.brows, {**shape.attributes, "fill-opacity": ".8"}))
    return _drawn(thick, person, pose, {})


def svg(scene: Scene, size: int = SIZE) -> str:
    """The scene as SVG text, `size` pixels on its shorter side."""
    person, look, random = scene.person, scene.look, Random(scene.grain)
    pose = look.pose
    width, height = canvas(scene)
    # 1. What the seed decides, in a fixed order
    top = random.choice(world.HATS[look.hat] or (person.hair_style,))
    glasses = random.choice(world.GLASSES[look.glasses]) if look.glasses != "none" else ""
    eyes, mouth = random.choice(world.EYES[look.eyes]), random.choice(world.MOUTHS[look.mouth])
    brows = random.choice(world.BROWS_OF_MOUTH[look.mouth])
    print_, frames = random.choice(world.PRINTS), random.choice(world.FRAMES)
    colours = {
        "skin": person.skin, "hair": person.hair, "facialHair": person.beard, "hat": look.hat_colour,
        "clothes": look.clothes_colour, "accessories": frames,
    }  # fmt: skip
    layers = {"behind": "", "body": "", "head": "", "front": ""}
    hidden, clips = set[str](), list[str]()
    for name in look.things:
        thing = things.THINGS[name]
        hidden |= thing.hides
        clips += [thing.hair_clip] if thing.hair_clip else []
        for layer, fragment in things.fragments(thing, scene.grain, skin=person.skin).items():
            layers[layer] += fragment
    # 2. The figure, from the back to the front
    head, _, _, shadow = artwork.skin_parts()

    def part(component: str, variant: str) -> str:
        return _drawn(artwork.part(component, variant), person, pose, colours, DEPTHS.get(component, 1.0))

    def flat(component: str, variant: str) -> str:
        return "".join(s.to_svg(s.points, _coloured(s, colours)) for s in artwork.part(component, variant))

    clothes = "" if "clothes" in hidden else flat("clothes", world.CLOTHES[look.clothes])
    if look.clothes == "graphic shirt" and clothes:
        clothes += flat("clothesGraphic", print_)
    parts = [
        "" if clips else _hair_behind(top, person),
        _ears(person, pose, colours, behind=True),
        _drawn([head], person, pose, colours, fixed=True),
        _drawn([shadow], person, pose, colours, fixed=True),
        _ears(person, pose, colours, behind=False),
        _below(clothes + layers["body"]),
        clothes,
        layers["body"],
        part("mouth", mouth),
        part("nose", "default"),
        part("eyes", eyes),
        _brows(brows, person, pose),
        _clipped(part("top", top), clips, person, pose),
        part("facialHair", beard) if (beard := world.FACIAL_HAIRS[person.facial_hair]) else "",
        part("accessories", glasses) if glasses and "glasses" not in hidden else "",
        _turned_layer(layers["head"], pose),
    ]
    # 3. The picture
    shown_width, shown_height = size * width // CANVAS, size * height // CANVAS
    behind = _stretched(layers["behind"], width, height)
    front = layers["front"]
    if front:  # held things stay upright, and large enough to be recognised
        front = f'<g transform="{transform(placement(Pose(scale=max(0.75, pose.scale)), width, height))}">{front}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" fill="none" '
        f'width="{shown_width}" height="{shown_height}">'
        f'<rect width="{width}" height="{height}" fill="{look.background}"/>{behind}'
        f'<g transform="{transform(placement(pose, width, height))}">{"".join(parts)}</g>{front}</svg>'
    )


def canvas(scene: Scene) -> tuple[int, int]:
    """Width and height of the scene's picture, in canvas units."""
    across, down = world.RATIOS[scene.look.ratio]
    return CANVAS * across // min(across, down), CANVAS * down // min(across, down)


FEATURES = np.array([[112.0, 116.0], [168.0, 116.0], [140.0, 160.0]])
"""The middles of the eyes and the mouth."""


def features(scene: Scene) -> Points:
    """Where the viewer's left eye, the right eye and the mouth are in the picture, (3, 2), in canvas units."""
    pose = scene.look.pose
    turned = turn(_narrowed(FEATURES, scene.person.face_width), pose)
    return place(turned, placement(pose, *canvas(scene)))


def _stretched(fragment: str, width: int, height: int) -> str:
    """A place behind the figure. Its drawing reaches 120 units beyond a square canvas; a little more is needed."""
    if not fragment:
        return ""
    scale = 1.06 if max(width, height) > CANVAS else 1.0
    x, y = width / 2 - CANVAS / 2 * scale, height - CANVAS * scale
    return f'<g transform="translate({x:.2f} {y:.2f}) scale({scale})">{fragment}</g>'


def _turned_layer(fragment: str, pose: Pose) -> str:
    """Headgear moves with the middle of the forehead; it is stiff, so it is moved and narrowed as one."""
    if not fragment or not pose.turned:
        return fragment
    at = np.array([[140.0, 60.0], [118.0, 60.0], [162.0, 60.0]])
    moved = turn(at, pose)
    (x, y), narrow = moved[0], (moved[2, 0] - moved[1, 0]) / 44
    return f'<g transform="translate({x:.2f} {y:.2f}) scale({narrow:.3f} 1) translate(-140 -60)">{fragment}</g>'


def rasterised(text: str, width: int, height: int) -> Image.Image:
    """SVG text as an RGB picture."""
    png = resvg_py.svg_to_bytes(svg_string=text, width=width, height=height, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Draw the scene as an RGB picture with `size` pixels on its shorter side."""
    width, height = canvas(scene)
    return rasterised(svg(scene, size), size * width // CANVAS, size * height // CANVAS)
