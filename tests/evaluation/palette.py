"""The evaluation's own colours: values for the names that people type, and for hair and skin.

None of them was taken from the world that the base is pre-trained on. `test_albums` checks that people accept each
value's name, by `engine.toon.colours`.
"""

from collections.abc import Mapping
from random import Random

RGB = tuple[int, int, int]

COLOURS: Mapping[str, str] = {
    "red": "#d62828", "dark red": "#8e1616", "crimson": "#b8102f", "maroon": "#6b1722", "burgundy": "#74182e",
    "orange": "#f48a1f", "burnt orange": "#c2561c", "coral": "#ff7d62", "salmon": "#f98c79", "peach": "#ffcba6",
    "amber": "#feb715", "rust": "#ad471d", "terracotta": "#c7694d", "yellow": "#f5cf2f", "bright yellow": "#ffe723",
    "lemon": "#fff252", "gold": "#d9ad2b", "mustard": "#cda021", "cream": "#fff2d4", "beige": "#e7d4ae",
    "khaki": "#bbae79", "sand": "#dac595", "tan": "#cdae88", "brown": "#7a4b2d", "dark brown": "#4c2e1e",
    "light brown": "#ab7b51", "chocolate": "#563320", "copper": "#b67447", "bronze": "#a8743c", "green": "#3a9b4c",
    "dark green": "#1f5833", "light green": "#a9e7a2", "lime": "#a9df30", "lime green": "#60d534", "olive": "#7c7e30",
    "mint": "#aae7cc", "sage": "#9bad8b", "emerald": "#21a869", "forest green": "#2b6b3c", "teal": "#16817f",
    "turquoise": "#40cfc1", "aqua": "#60e0df", "cyan": "#24d3ed", "blue": "#396dd4", "light blue": "#90ccf4",
    "dark blue": "#263f6c", "sky blue": "#81c9ec", "royal blue": "#3259ce", "navy": "#1d2c5a", "purple": "#8a50bd",
    "lavender": "#c8b9ec", "lilac": "#c7a6d8", "violet": "#7e40ce", "indigo": "#43328f", "plum": "#74396b",
    "magenta": "#d2259c", "pink": "#ff91b4", "hot pink": "#ff51a3", "white": "#fafafa", "silver": "#c2c6ca",
    "gray": "#8f9194", "charcoal": "#3a3d43", "black": "#202327",
}  # fmt: skip
"""Names of colours that people type, with a value of our own for each."""

HAIR: Mapping[str, tuple[str, ...]] = {
    "black": ("#201a1b", "#2a2224"), "dark brown": ("#44302a", "#503529"), "brown": ("#6e4634", "#774c38"),
    "auburn": ("#9a5029", "#8c4a2c"), "red": ("#c1431c", "#cd5524"), "golden": ("#b07e48", "#bb8a4e"),
    "blonde": ("#d9b877", "#cfae6e"), "platinum": ("#eadbc0", "#efe3cf"), "gray": ("#a3a0a1", "#918f91"),
    "white": ("#e9e5e2", "#f0edea"), "pink": ("#ee89a8", "#f3a0b2"), "blue": ("#4a74c4", "#5e8fd6"),
    "green": ("#4d9a6c", "#6aa862"), "purple": ("#7f55a8", "#9470b8"),
}  # fmt: skip
"""Colours of hair and beards, by name: a person's lies between the two."""

HAIR_SHARES: Mapping[str, float] = {
    "black": 24, "dark brown": 24, "brown": 17, "blonde": 9, "gray": 6, "golden": 5, "red": 4, "auburn": 4, "white": 2,
    "platinum": 1, "pink": 1, "blue": 1, "green": 1, "purple": 1,
}  # fmt: skip
"""How many of a hundred people have each colour."""

SKIN: Mapping[str, tuple[str, str]] = {
    "very light": ("#ffe2cb", "#fbd8bd"), "light": ("#f4c8a2", "#eec09a"), "medium": ("#dea679", "#d9a070"),
    "tan": ("#c78d5c", "#c0855a"), "brown": ("#a3683f", "#97603c"), "dark": ("#674433", "#57382a"),
}  # fmt: skip
"""Six tones of skin, from the lightest to the darkest: a person's lies between the two."""

SKIN_SHARES: Mapping[str, float] = {"very light": 20, "light": 28, "medium": 16, "tan": 12, "brown": 13, "dark": 11}
"""How many of a hundred people have each tone."""


def rgb(colour: str) -> RGB:
    """`#rrggbb` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def text(channels: tuple[float, ...]) -> str:
    """Three numbers as `#rrggbb`, each cut off at 0 and 255."""
    return "#" + "".join(f"{min(255, max(0, round(value))):02x}" for value in channels)


def near(random: Random, colour: str, reach: int = 5) -> str:
    """A colour whose channels differ from `colour` by at most `reach` of 255."""
    return text(tuple(value + random.uniform(-reach, reach) for value in rgb(colour)))


def between(random: Random, pair: tuple[str, ...]) -> str:
    """A colour on the line between the first two of `pair`."""
    share = random.random()
    return text(tuple(a + share * (b - a) for a, b in zip(rgb(pair[0]), rgb(pair[1]), strict=True)))


def weighted(random: Random, shares: Mapping[str, float]) -> str:
    """One of the names, as often as its share says."""
    return random.choices(tuple(shares), tuple(shares.values()))[0]
