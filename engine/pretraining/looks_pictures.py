"""Variations of a labelled photo for the reader of looks: light, camera, pose, background, and drawn glasses and hats.

All work on a canvas: the photo put upright around the face (`engine.photos.alignment.aligned`), `CANVAS` pixels wide
with a margin of `CANVAS_PADDING` faces on each side.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from engine.photos.alignment import OUTSIDE, Points, placed, similarity, warped
from engine.photos.head_parts import lab, srgb

CANVAS, CANVAS_PADDING = 512, 1.9

FRAMES = (
    (20, 20, 22), (35, 30, 28), (70, 45, 30), (110, 75, 45), (120, 120, 125), (170, 170, 175), (190, 155, 90),
    (30, 45, 90), (120, 30, 35), (225, 225, 220), (90, 90, 60), (60, 60, 65),
)  # fmt: skip
"""Colours of glasses frames: black, tortoise-shell, metal, gold, and some bright ones."""


@dataclass(frozen=True)
class Canvas:
    """A face put upright. `backdrop`: how much each pixel belongs to a plain background, 0..255; None if unknown."""

    picture: Image.Image
    points: Points
    backdrop: Image.Image | None
    parts: NDArray[np.uint8] | None = None
    """0 for background and clothes, 1 for hair, 2 for skin, (CANVAS, CANVAS); known with plain backgrounds alone."""


def canvas_of(photo: Image.Image, points: Points, *, plain: bool) -> Canvas:
    """The canvas of a photo.

    Args:
        points: the face's landmarks in the photo.
        plain: whether the background is one smooth colour, so that it can be replaced.
    """
    transform = similarity(points, placed(CANVAS, CANVAS_PADDING))
    moved = points @ transform[:, :2].T + transform[:, 2]
    mask = warped(_plain_background(photo).convert("RGB"), transform, CANVAS).getchannel(0) if plain else None
    if mask is not None:
        inside = warped(Image.new("RGB", photo.size, "white"), transform, CANVAS).getchannel(0)
        mask = mask.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(1))  # no bright rim around hair
        mask = ImageChops.multiply(mask, inside.point(lambda value: 255 if value > 250 else 0))
    return Canvas(warped(photo, transform, CANVAS), moved, mask)


def with_parts(canvas: Canvas, *, bald: bool) -> Canvas:
    """The canvas with its hair and skin found, for a studio photo with a plain background and a white shirt.

    The hair above the forehead and the skin of the cheeks and forehead each give a mean colour. Every other pixel of
    the person belongs to the nearer one, inside bounds that the landmarks set. Checked by eye on 24 people.
    """
    assert canvas.backdrop is not None
    pixels = np.asarray(canvas.picture).astype(np.float64)
    values = lab(pixels)
    light = values[..., 0]
    unit = CANVAS / (1 + 2 * CANVAS_PADDING)
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / unit - CANVAS_PADDING  # in faces: the eyes are at y = 0.21
    person = (np.asarray(canvas.backdrop) <= 127) & (np.abs(pixels - OUTSIDE).max(axis=-1) > 0)

    def within(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        return inside

    cheeks = within(0.22, 0.62, 0.14, 0.14) | within(0.78, 0.62, 0.14, 0.14)
    skin = np.median(values[cheeks | within(0.5, -0.02, 0.2, 0.08)], axis=0)
    shirt = (light > min(70, skin[0] + 6)) & (np.hypot(values[..., 1], values[..., 2]) < 8) & (y > 1.1)
    parts = np.where(person & ~shirt, 2, 0).astype(np.uint8)
    top = person & ~within(0.5, 0.45, 0.68, 1.02) & (y < -0.1)
    if not bald and top.sum() > 200:
        to_hair = (((values - np.median(values[top], 0)) / (16, 7, 9)) ** 2).sum(axis=-1)
        to_skin = (((values - skin) / (14, 7, 8)) ** 2).sum(axis=-1)
        to_skin = np.where(light > skin[0], to_skin * 0.6, to_skin)
        hair = person & ~shirt & (to_hair < to_skin) & (y < 2.0) & (~within(0.5, 0.45, 0.6, 0.92) | (y < 0))
        hair &= ~((abs(x - 0.5) < 0.62) & (y > 0.7) & (y < 1.75) & (to_skin < to_hair * 3))  # shade and beard
        parts[(hair | top) & ~((abs(x - 0.5) < 0.5) & (y > 0) & (y < 1.7))] = 1
    backdrop = np.where(within(0.5, 0.45, 0.58, 0.9), 0, np.asarray(canvas.backdrop)).astype(np.uint8)
    found = np.array(Image.fromarray(parts).filter(ImageFilter.MedianFilter(7)))
    return replace(canvas, parts=found, backdrop=Image.fromarray(backdrop))


HAIR = {
    "black": ((12, 22), (-1, 3), (-1, 4)), "brown": ((24, 40), (5, 10), (7, 15)),
    "blonde": ((52, 72), (1, 8), (16, 30)), "red": ((32, 50), (16, 27), (18, 33)), "grey": ((42, 80), (-1, 2), (-2, 4)),
}  # fmt: skip
"""Ranges of CIELAB for dyed hair: lightness, a and b."""


def dyed(canvas: Canvas, random: Random) -> tuple[Image.Image, str]:
    """The canvas's picture with its hair in another colour, and that colour's name."""
    assert canvas.parts is not None
    name = random.choice(tuple(HAIR))
    mask = Image.fromarray((canvas.parts == 1).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1.5))
    alpha = np.asarray(mask)[..., None] / 255
    values = lab(np.asarray(canvas.picture).astype(np.float64))
    hair = values[canvas.parts == 1]
    target = np.array([random.uniform(*bounds) for bounds in HAIR[name]])
    spread = random.uniform(4, 7) if name == "black" else random.uniform(6, 13)
    change = (values - hair.mean(axis=0)) / (hair.std(axis=0) + 1) * (spread, 1.5, 2.5)
    new = srgb(np.clip(target + change, (2, -128, -128), (97, 127, 127)))
    mixed = np.asarray(canvas.picture) * (1 - alpha) + new * alpha
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)), name


def dressed(canvas: Canvas, random: Random) -> Image.Image:
    """The canvas's picture with the white shirt in another colour."""
    assert canvas.parts is not None and canvas.backdrop is not None
    inside = np.abs(np.asarray(canvas.picture).astype(np.int16) - OUTSIDE).max(axis=-1) > 0
    shirt = (canvas.parts == 0) & (np.asarray(canvas.backdrop) < 100) & inside
    mask = Image.fromarray(shirt.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
    tint = Image.new("RGB", canvas.picture.size, tuple(random.randint(5, 255) for _ in range(3)))
    picture = canvas.picture.copy()
    picture.paste(ImageChops.multiply(canvas.picture, tint), (0, 0), mask)
    return picture


def _plain_background(photo: Image.Image) -> Image.Image:
    """255 where a photo is near the smooth colour that a quadratic in x and y gives for its upper edges."""
    pixels = np.asarray(photo).astype(np.float64)
    high, wide = pixels.shape[:2]
    y, x = np.mgrid[0:high, 0:wide] / max(high, wide)
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    edge = np.zeros((high, wide), bool)
    edge[: high // 25] = True
    edge[: high // 2, : wide // 14] = edge[: high // 2, -(wide // 14) :] = True
    near = np.ones_like(edge)
    for channel in range(3):
        weights = np.linalg.lstsq(terms[edge], pixels[edge][:, channel], rcond=None)[0]
        near &= np.abs(terms @ weights - pixels[..., channel]) < 20
    return Image.fromarray((near * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(5))


def backdrop(random: Random, scenery: Sequence[Image.Image]) -> Image.Image:
    """A background: a part of a photo, mostly blurred, or a smooth change between two colours."""
    if scenery and random.random() < 0.65:
        photo = random.choice(scenery)
        side = random.randint(min(photo.size) // 3, min(photo.size))
        left, top = random.randint(0, photo.width - side), random.randint(0, photo.height - side)
        part = photo.crop((left, top, left + side, top + side)).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
        return part.filter(ImageFilter.GaussianBlur(random.choice((0, 1, 3, 8))))
    ramp = Image.linear_gradient("L").resize((CANVAS, CANVAS)).rotate(random.choice((0, 90, 180, 270)))
    colours = [tuple(random.randint(0, 255) for _ in range(3)) for _ in range(2)]
    gray = random.random() < 0.5
    black, white = ((c[0],) * 3 if gray else c for c in colours)
    return ImageOps.colorize(ramp, black, white)


def with_glasses(canvas: Canvas, random: Random) -> tuple[Image.Image, bool]:
    """The canvas's picture with drawn glasses, and whether they are sunglasses."""
    scale = 2
    right, left = canvas.points[:2].mean(axis=0), canvas.points[2:4].mean(axis=0)
    axis = right - left
    apart = float(np.linalg.norm(axis)) * scale
    turn = math.atan2(axis[1], axis[0])
    frame = random.choice(FRAMES)
    kind = random.choice(("thin", "thin", "usual", "usual", "thick", "half", "rimless"))
    stroke = apart * {"thin": random.uniform(0.018, 0.035), "usual": random.uniform(0.04, 0.075),
                      "thick": random.uniform(0.08, 0.14), "half": random.uniform(0.025, 0.06),
                      "rimless": random.uniform(0.01, 0.02)}[kind]  # fmt: skip
    dark = random.random() < 0.25
    tint = tuple(random.randint(0, 60) for _ in range(3)) if dark else random.choice(FRAMES[-3:])
    fill = random.randint(150, 255) if dark else random.choice((0, 0, 8, 20, 40))
    wide = apart * random.uniform(0.72, 1.0)
    high = wide * random.uniform(0.5, 1.0)
    outline = _lens(random, wide / 2, high / 2)
    drop = apart * random.uniform(-0.02, 0.14)
    ratio = np.linalg.norm(canvas.points[0] - canvas.points[1]) / np.linalg.norm(canvas.points[2] - canvas.points[3])
    layer = Image.new("RGBA", (CANVAS * scale, CANVAS * scale), (*frame, 0))
    pen = ImageDraw.Draw(layer)
    ends = []
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    for eye, side, width in ((right, 1, ratio**0.5), (left, -1, ratio**-0.5)):
        centre = eye * scale + rotation @ np.array([0, drop])
        shape = [tuple(centre + rotation @ np.array([x * side * width, y])) for x, y in outline]
        pen.polygon(shape, fill=(*tint, fill))
        if not dark and random.random() < 0.4:
            _reflection(layer, shape, random)
        if kind == "half":
            above = [point for point, (_, y) in zip(shape, outline, strict=True) if y < high * 0.1]
            pen.line(
                sorted(above, key=lambda point: float(point[0])),
                fill=(*frame, 255),
                width=max(1, round(stroke)),
                joint="curve",
            )
        else:
            rim = (*frame, 90 if kind == "rimless" else 255)
            pen.line([*shape, shape[0], shape[1]], fill=rim, width=max(1, round(stroke)), joint="curve")
        outer = centre + rotation @ np.array([side * width * wide / 2, -high * random.uniform(0.1, 0.35)])
        temple = outer + rotation @ np.array([side * apart * random.uniform(0.12, 0.45), random.uniform(-4, 14)])
        pen.line([tuple(outer), tuple(temple)], fill=(*frame, 255), width=max(2, round(stroke * 1.1)))
        ends.append(centre + rotation @ np.array([-side * width * wide / 2 * 0.97, -high * 0.12]))
    bow = (ends[0] + ends[1]) / 2 + rotation @ np.array([0, -apart * random.uniform(0.0, 0.07)])
    bridge = [tuple(ends[0]), tuple(bow), tuple(ends[1])]
    pen.line(bridge, fill=(*frame, 255), width=max(2, round(stroke)), joint="curve")
    layer = layer.resize((CANVAS, CANVAS), Image.Resampling.BOX)
    picture = canvas.picture.copy()
    if random.random() < 0.6:  # the shadow that the frame throws on the cheeks
        shade = layer.getchannel("A").filter(ImageFilter.GaussianBlur(3)).point(lambda value: round(value * 0.3))
        picture.paste(Image.new("RGB", picture.size), (0, random.randint(2, 7)), shade)
    picture.paste(layer, (0, 0), layer)
    return picture, dark


def _lens(random: Random, a: float, b: float) -> list[tuple[float, float]]:
    """The outline of a right lens around (0, 0) as 40 points: a superellipse, narrower below, its outer corner raised
    or not."""
    power = random.choice((2.0, 2.4, 3.0, 4.0, 6.0))
    taper, lift = random.uniform(0, 0.22), random.choice((0, 0, random.uniform(0, 0.25)))
    points = []
    for step in range(40):
        angle = 2 * math.pi * step / 40
        cos, sin = math.cos(angle), math.sin(angle)
        x = a * math.copysign(abs(cos) ** (2 / power), cos)
        y = b * math.copysign(abs(sin) ** (2 / power), sin)
        x *= 1 - taper * (y / b + 1) / 2
        points.append((x, y - lift * b * max(0.0, x / a) * (1 if y < 0 else 0.4)))
    return points


def _reflection(layer: Image.Image, lens: list[tuple[float, float]], random: Random) -> None:
    """Light a band of a lens."""
    xs, ys = [x for x, _ in lens], [y for _, y in lens]
    mask = Image.new("L", layer.size)
    ImageDraw.Draw(mask).polygon(lens, fill=random.randint(40, 190))
    band = Image.new("L", layer.size)
    start, wide = random.uniform(min(xs), max(xs)), random.uniform(0.1, 0.6) * (max(xs) - min(xs))
    lean = random.uniform(-0.5, 0.5) * (max(ys) - min(ys))
    ImageDraw.Draw(band).polygon(
        [(start, min(ys)), (start + wide, min(ys)), (start + wide + lean, max(ys)), (start + lean, max(ys))], fill=255
    )
    light = random.choice(((255, 255, 255), (200, 225, 255), (210, 255, 220), (235, 210, 255)))
    layer.paste((*light, 150), (0, 0), ImageChops.multiply(mask, band))


def with_hat(canvas: Canvas, random: Random) -> Image.Image:
    """The canvas's picture with a drawn cap, woollen hat or brimmed hat that covers the head above the brows."""
    unit = CANVAS / (1 + 2 * CANVAS_PADDING)
    x, brow = CANVAS / 2, CANVAS_PADDING * unit + unit * random.uniform(-0.35, -0.02)
    half, high = unit * random.uniform(0.68, 0.85), unit * random.uniform(0.55, 0.95)
    colour = tuple(random.randint(10, 240) for _ in range(3))
    layer = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    pen.pieslice((x - half, brow - high, x + half, brow + high), 180, 360, fill=(*colour, 255))
    style = random.choice(("cap", "wool", "brim"))
    darker = tuple(round(c * random.uniform(0.55, 0.95)) for c in colour)
    if style == "cap":
        pen.ellipse((x - half * 0.9, brow - unit * 0.14, x + half * 0.9, brow + unit * 0.16), fill=(*darker, 255))
    elif style == "wool":
        pen.rounded_rectangle((x - half, brow - unit * 0.3, x + half, brow + unit * 0.05), 12, fill=(*darker, 255))
    else:
        wide = unit * random.uniform(1.0, 1.5)
        pen.ellipse((x - wide, brow - unit * 0.12, x + wide, brow + unit * 0.12), fill=(*darker, 255))
    grain = np.random.default_rng(random.getrandbits(32)).normal(0, random.uniform(2, 14), (CANVAS, CANVAS, 1))
    pixels = np.asarray(layer).astype(np.float64)
    pixels[..., :3] = np.clip(pixels[..., :3] + grain, 0, 255)
    hat = Image.fromarray(pixels.astype(np.uint8)).rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC)
    picture = canvas.picture.copy()
    picture.paste(hat, (0, 0), hat)
    return picture


def photographed(picture: Image.Image, random: Random) -> Image.Image:
    """The picture as another camera might take it: other light, colours, sharpness, noise and compression."""
    pixels = np.asarray(picture).astype(np.float32) / 255
    pixels = pixels ** math.exp(random.gauss(0, 0.2))
    warm = random.gauss(0, 0.11)
    gains = np.exp([warm + random.gauss(0, 0.03), random.gauss(0, 0.04), -warm + random.gauss(0, 0.03)])
    pixels *= (gains * math.exp(random.gauss(0, 0.15))).astype(np.float32)
    if random.random() < 0.4:  # light from one side
        high, wide = pixels.shape[:2]
        angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0.1, 0.55)
        y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
        pixels *= (1 + strength * np.clip(math.cos(angle) * x + math.sin(angle) * y, -1, 1))[..., None]
    noise = np.random.default_rng(random.getrandbits(32)).normal(0, random.choice((0, 0, 0.01, 0.03)), pixels.shape)
    image = Image.fromarray((np.clip(pixels + noise, 0, 1) * 255).astype(np.uint8))
    image = ImageEnhance.Color(image).enhance(0.0 if random.random() < 0.03 else random.uniform(0.6, 1.3))
    image = ImageEnhance.Contrast(image).enhance(random.uniform(0.75, 1.25))
    small = round(image.width * random.choice((1, 1, 0.7, 0.5, 0.35, 0.25)))
    image = image.resize((small, small), Image.Resampling.BOX)
    if random.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2)))
    if random.random() < 0.6:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=random.randint(30, 95))
        image = Image.open(out)
    return image.resize(picture.size, Image.Resampling.BICUBIC)


def posed(canvas: Canvas, picture: Image.Image, side: int, padding: float, jitter: Points) -> Image.Image:
    """The aligned square (see `aligned`) of a varied canvas, with landmarks that are `jitter` (5, 2) pixels
    off."""
    transform = similarity(canvas.points + jitter, placed(side, padding))
    return warped(picture, transform, side)


def jitter(random: Random) -> Points:
    """Errors of landmarks, (5, 2) pixels of the canvas: shift, turn and scale of all, and of each alone."""
    rng = np.random.default_rng(random.getrandbits(32))
    unit = CANVAS / (1 + 2 * CANVAS_PADDING)
    offsets: NDArray[np.float64] = placed(CANVAS, CANVAS_PADDING)
    offsets = offsets - offsets.mean(axis=0)
    angle, scale = rng.normal(0, 0.06), math.exp(rng.normal(0, 0.05))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    moved = offsets @ np.array([[cos, sin], [-sin, cos]])
    shifted: Points = moved - offsets + rng.normal(0, 0.02 * unit, (1, 2)) + rng.normal(0, 0.012 * unit, (5, 2))
    return shifted
