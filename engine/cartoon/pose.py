"""The pose of a drawn figure: how its head is turned, and where the figure is in the picture.

The artwork is flat. A turned head is made by moving its outlines in parallax: points near the middle of the face move
the most, the silhouette of the hair hardly, and the far side of the face becomes narrower.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np

from engine.cartoon.artwork import CANVAS, Points

CENTRE = (140.0, 112.0)
"""The middle of the face."""

REACH = (118.0, 140.0)
"""Distances from `CENTRE`, to the side and up or down, at which a turn of the head moves nothing."""

RADIUS = (46.0, 40.0)
"""How far the middle of the face would move if the head turned by 90 degrees, to the side and up or down.

Smaller than the head's radius of 62: the head's own silhouette stays in place, so the face moves within it."""

NECK = (140.0, 190.0)
"""The figure turns about this point."""

YAW, PITCH, ROLL = 40.0, 20.0, 24.0
"""The largest angles, in degrees, to both sides."""


@dataclass(frozen=True)
class Pose:
    """The pose of a figure. Left and right are the viewer's."""

    yaw: float = 0.0
    """Degrees that the head is turned to the right, -40 to 40."""
    pitch: float = 0.0
    """Degrees that the head is turned down, -20 to 20: the view from above is positive."""
    roll: float = 0.0
    """Degrees that the figure is turned clockwise."""
    scale: float = 1.0
    """Size of the figure; 1.0 fills a square picture from shoulders to hair."""
    x: float = 0.0
    """How far the figure is moved to the right, as a share of the picture's shorter side."""
    y: float = 0.0
    """How far the figure is moved down, as a share of the picture's shorter side."""

    @property
    def turned(self) -> bool:
        """Whether the head is turned."""
        return bool(self.yaw or self.pitch)


def turn(points: Points, pose: Pose, depth: float = 1.0) -> Points:
    """Points (n, 2) of the head, moved by its turn.

    A point at relative distance rho from the middle of the face moves by depth * RADIUS * sin(angle) * f and towards
    the middle by (1 - cos(angle)) * f, with f = (1 - rho^2)^1.5. The derivative stays positive up to the largest
    angles, so outlines never fold.

    Args:
        depth: how far a part stands out: 1.0 lies on the face, more is in front of it, as a nose is.
    """
    if not pose.turned:
        return points
    offset = points - CENTRE
    rho2 = np.minimum(((offset / REACH) ** 2).sum(axis=1), 1.0)
    f = ((1 - rho2) ** 1.5)[:, None]
    angles = np.radians((pose.yaw, pose.pitch))
    moved: Points = points + depth * np.array(RADIUS) * np.sin(angles) * f - offset * (1 - np.cos(angles)) * f
    return moved


def ear_shift(side: int, pose: Pose) -> float:
    """How far an ear moves to the right. `side` is -1 for the viewer's left ear and 1 for the right one.

    The ear that the head turns away from comes forward over the cheek; the other one goes behind it.
    """
    angle = math.radians(pose.yaw)
    return -side * 12 * (1 - math.cos(angle)) * 2 + 10 * math.sin(angle)


def placement(pose: Pose, width: float, height: float) -> Points:
    """The affine map (2, 3) of canvas points into a picture of `width` x `height` canvas units.

    The figure's middle is the picture's, and its shoulders reach the lower edge at scale 1. A smaller figure still
    stands on the lower edge unless it is moved, and a larger one grows around its face.
    """
    shorter = min(width, height)
    scale = pose.scale * shorter / CANVAS
    fixed = np.array((140.0, 280.0 if pose.scale < 1 else 130.0))
    at = np.array((width / 2, height - (CANVAS - fixed[1]) * shorter / CANVAS)) + shorter * np.array((pose.x, pose.y))
    angle = math.radians(pose.roll)
    turned = scale * np.array(((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
    # picture = turned (point - NECK) + scale (NECK - fixed) + at
    moved = at + scale * (np.array(NECK) - fixed) - turned @ NECK
    return np.hstack((turned, moved[:, None]))


def place(points: Points, matrix: Points) -> Points:
    """Points (n, 2) under an affine map (2, 3)."""
    placed: Points = points @ matrix[:, :2].T + matrix[:, 2]
    return placed


def transform(matrix: Points) -> str:
    """An affine map (2, 3) as an SVG transform."""
    return "matrix(" + " ".join(f"{value:.4f}" for value in matrix.T.reshape(-1)) + ")"


USUAL = Pose()

LEVELS: Mapping[str, tuple[float, ...]] = {
    "yaw": (-40, -28, -17, -6, 6, 17, 28, 40),
    "pitch": (-20, -12, -4, 4, 12, 20),
    "roll": (-24, -15, -9, -3, 3, 9, 15, 24),
    "scale": (0.5, 0.66, 0.8, 0.93, 1.07, 1.2, 1.42, 1.7),
    "x": (-0.25, -0.12, -0.035, 0.035, 0.12, 0.25),
    "y": (-0.2, -0.1, -0.035, 0.035, 0.1, 0.2),
}
"""Edges of the intervals into which captions quantise a pose; the middle interval of each is the usual pose."""


def level(name: str, value: float) -> int:
    """The interval of `LEVELS` that a value is in, counted from the usual one: 0, or less or more."""
    edges = LEVELS[name]
    index = sum(value >= edge for edge in edges[1:-1])
    return index - (len(edges) - 2) // 2


def sample_pose(random: Random) -> Pose:
    """A pose for pre-training: half of them near the usual one, the others anywhere in their ranges."""

    def one(name: str, usual: float) -> float:
        edges = LEVELS[name]
        if random.random() < usual:
            middle = (len(edges) - 1) // 2
            return random.uniform(edges[middle], edges[middle + 1])
        return random.uniform(edges[0], edges[-1])

    still = random.random() < 0.4  # many albums are turned in one way only, or not at all
    share = 0.93 if still else 0.5
    return Pose(
        one("yaw", share), one("pitch", max(share, 0.65)), one("roll", max(share, 0.6)),
        one("scale", max(share, 0.55)), one("x", max(share, 0.7)), one("y", max(share, 0.7)),
    )  # fmt: skip
