"""The names that people use for colours, and which colours they accept under each name.

A name has a centre and a radius in OKLab, where equal distances look about equally different (Björn Ottosson, "A
perceptual color space for image processing", 2020, https://bottosson.github.io/posts/oklab/). The centres are the
authors' judgement; several are those of CSS.
"""

import math
from collections.abc import Mapping
from functools import cache
from random import Random

RGB = tuple[int, int, int]
"""An sRGB colour: red, green and blue from 0 to 255."""

CENTRES: Mapping[str, str] = {
    # reds
    "red": "#d93636", "bright red": "#ee2222", "dark red": "#8b1a1a", "crimson": "#c0143c", "scarlet": "#e8321e",
    "cherry red": "#c41e3a", "brick red": "#a8392e", "maroon": "#701a24", "burgundy": "#7a1832", "wine red": "#6e2035",
    # oranges and corals
    "orange": "#f28c28", "bright orange": "#ff7f0e", "dark orange": "#d9660f", "tangerine": "#f88a2e",
    "burnt orange": "#c4581a", "amber": "#ffb81c", "peach": "#ffc9a3", "apricot": "#fbb98a", "coral": "#ff7f5e",
    "salmon": "#fa8a78", "terracotta": "#c9694a", "rust": "#b0461a",
    # yellows
    "yellow": "#f7d038", "bright yellow": "#ffe81f", "light yellow": "#fbf0a0", "lemon": "#fff34f",
    "gold": "#dcaf32", "golden": "#e2b33a", "mustard": "#cfa024", "cream": "#fff3d2", "ivory": "#fbf8ea",
    # browns
    "brown": "#7b4a2b", "dark brown": "#4b2d1c", "light brown": "#ac7c50", "chocolate": "#58341f",
    "coffee": "#6b4a35", "chestnut": "#83432e", "caramel": "#c08443", "bronze": "#a9743a", "copper": "#b87345",
    "tan": "#cfb08a", "sand": "#dcc797", "beige": "#e8d5b0", "khaki": "#bdb07c",
    # greens
    "green": "#3c9d4e", "bright green": "#2ecc40", "light green": "#a7e8a0", "dark green": "#1e5631",
    "lime": "#a8e02a", "lime green": "#62d636", "neon green": "#43fb2a", "olive": "#7d7f2e", "olive green": "#6f7a34",
    "mint": "#a8e8cb", "mint green": "#9fe5bd", "sage": "#9cae8c", "emerald": "#1fa968", "emerald green": "#16a061",
    "forest green": "#2a6a3a", "jade": "#2fa37e", "moss green": "#75864a",
    # between green and blue
    "teal": "#148080", "turquoise": "#3fd0c3", "aqua": "#5ce1e0", "aquamarine": "#7ff0d0", "cyan": "#1fd4ee",
    # blues
    "blue": "#3a6fd8", "bright blue": "#1f6bff", "light blue": "#8fcdf5", "dark blue": "#25406e",
    "sky blue": "#80c8ee", "baby blue": "#a9d6f5", "powder blue": "#b8dbe6", "pale blue": "#c6e2f7",
    "royal blue": "#3158d0", "cobalt blue": "#1f47ab", "electric blue": "#1f7bff", "denim blue": "#4a6c98",
    "steel blue": "#4c80b0", "navy": "#1a2866", "navy blue": "#1e2f6a", "midnight blue": "#191f4a",
    # purples
    "purple": "#8a4fbf", "light purple": "#b48ee0", "dark purple": "#4b2570", "violet": "#7f3fd0",
    "indigo": "#42309a", "lavender": "#c9b8ee", "lilac": "#c8a6da", "mauve": "#b487a9", "plum": "#75386c",
    "periwinkle": "#9a9ee8", "magenta": "#d4229e", "fuchsia": "#e83fbe",
    # pinks
    "pink": "#ff8fb3", "light pink": "#ffc2d4", "hot pink": "#ff4fa3", "rose": "#e4607f", "dusty pink": "#d5a3a4",
    "blush": "#f3cdca",
    # without a hue
    "white": "#f6f6f6", "off-white": "#f3efe6", "silver": "#c3c7cc", "light gray": "#cdd0d3", "gray": "#929598",
    "dark gray": "#565a5f", "charcoal": "#383c42", "slate gray": "#6c7a89", "black": "#23272b",
}  # fmt: skip
"""Each name's most typical colour, as hex."""

RADIUS = 0.055
"""How far from its centre a name is accepted, as a weighted distance in OKLab, where black and white are 1 apart."""

LIGHTNESS, CHROMA, HUE, TINT = 0.65, 1.0, 1.7, 4.0
"""Weights of differences in lightness, chroma and hue; `TINT` replaces the last two for names without a hue.

People call a lighter or a duller red still red, but soon say orange when its hue turns, and soon name the hue of a
tinted white or gray.
"""

NEUTRAL = 0.025
"""Centres of less chroma have no hue."""

RADII: Mapping[str, float] = {
    "red": 0.08, "orange": 0.075, "yellow": 0.08, "brown": 0.085, "green": 0.11, "blue": 0.11, "purple": 0.1,
    "pink": 0.085, "gray": 0.1, "black": 0.12, "dark green": 0.085, "light green": 0.075, "light blue": 0.065,
    "dark blue": 0.075, "navy": 0.09,
    "navy blue": 0.08, "dark brown": 0.065, "dark red": 0.07, "dark purple": 0.08, "dark gray": 0.065,
    "bright green": 0.09, "neon green": 0.08, "bright blue": 0.09, "magenta": 0.08, "fuchsia": 0.08, "violet": 0.09,
    "indigo": 0.09, "teal": 0.075, "turquoise": 0.07, "cyan": 0.075, "lime": 0.075, "lime green": 0.075,
    "white": 0.04, "off-white": 0.03, "ivory": 0.03, "cream": 0.04, "blush": 0.045, "silver": 0.05,
    "light gray": 0.05, "pale blue": 0.045, "baby blue": 0.045, "powder blue": 0.045, "sand": 0.045, "beige": 0.05,
}  # fmt: skip
"""The radii that differ: wide for the words that everybody uses, narrow where neighbours are near."""

ALSO: Mapping[str, tuple[str, ...]] = {
    "bright red": ("red",), "dark red": ("red",), "crimson": ("red",), "scarlet": ("red",), "cherry red": ("red",),
    "brick red": ("red",), "maroon": ("dark red",), "burgundy": ("dark red",), "wine red": ("dark red",),
    "bright orange": ("orange",), "dark orange": ("orange",), "tangerine": ("orange",), "burnt orange": ("orange",),
    "bright yellow": ("yellow",), "light yellow": ("yellow",), "lemon": ("yellow",), "golden": ("gold",),
    "gold": ("golden",), "dark brown": ("brown",), "light brown": ("brown",), "chocolate": ("dark brown", "brown"),
    "coffee": ("brown",), "chestnut": ("brown",), "bright green": ("green",), "light green": ("green",),
    "dark green": ("green",), "lime green": ("green",), "neon green": ("bright green", "green"),
    "olive": ("olive green",), "olive green": ("olive",), "mint": ("mint green", "light green"),
    "mint green": ("mint", "light green"), "emerald": ("green",), "emerald green": ("green",),
    "forest green": ("dark green", "green"), "moss green": ("green",), "bright blue": ("blue",),
    "light blue": ("blue",), "dark blue": ("blue",), "sky blue": ("light blue", "blue"), "baby blue": ("light blue",),
    "pale blue": ("light blue",), "powder blue": ("light blue",), "royal blue": ("blue",), "cobalt blue": ("blue",),
    "electric blue": ("bright blue", "blue"), "denim blue": ("blue",), "steel blue": ("blue",),
    "navy": ("navy blue", "dark blue", "blue"), "navy blue": ("navy", "dark blue", "blue"),
    "midnight blue": ("dark blue",), "light purple": ("purple",), "dark purple": ("purple",), "violet": ("purple",),
    "lavender": ("light purple",), "lilac": ("light purple",), "light pink": ("pink",), "hot pink": ("pink",),
    "fuchsia": ("pink",), "blush": ("light pink",), "dusty pink": ("pink",), "light gray": ("gray",),
    "dark gray": ("gray",), "slate gray": ("gray",), "charcoal": ("dark gray",), "off-white": ("white",),
    "ivory": ("off-white",), "cream": ("off-white",),
}  # fmt: skip
"""Wider names that are accepted wherever a narrow one is."""

SAMPLED = 0.7
"""Samples lie within this share of a name's radius."""


def _linear(channel: float) -> float:
    """sRGB's transfer function (IEC 61966-2-1), both sides from 0 to 1."""
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _encoded(channel: float) -> float:
    return channel * 12.92 if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


def oklab(rgb: RGB) -> tuple[float, float, float]:
    """sRGB to OKLab: lightness from 0 to 1, green to red and blue to yellow, each about -0.3 to 0.3."""
    r, g, b = (_linear(channel / 255) for channel in rgb)
    long = math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    medium = math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    short = math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _srgb(lightness: float, a: float, b: float) -> RGB | None:
    """OKLab to sRGB; None outside of sRGB's gamut."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    if not all(0.0 <= channel <= 1.0 for channel in linear):
        return None
    red, green, blue = (round(255 * _encoded(channel)) for channel in linear)
    return red, green, blue


def rgb_of(text: str) -> RGB:
    """#rrggbb as numbers."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def hex_of(rgb: RGB) -> str:
    """Numbers as #rrggbb."""
    return "#" + "".join(f"{channel:02x}" for channel in rgb)


@cache
def _centre(name: str) -> tuple[float, float, float]:
    return oklab(rgb_of(CENTRES[name]))


def distance(rgb: RGB, name: str) -> float:
    """How far a colour is from a name's centre, in radii of the name: up to 1 the name is accepted."""
    return _difference(oklab(rgb), _centre(name)) / RADII.get(name, RADIUS)


def _difference(lab: tuple[float, float, float], centre: tuple[float, float, float]) -> float:
    """The weighted distance of a colour from a centre, both in OKLab."""
    lightness = LIGHTNESS * (lab[0] - centre[0])
    offset = math.dist(lab[1:], centre[1:])
    if math.hypot(*centre[1:]) < NEUTRAL:
        return math.hypot(lightness, TINT * offset)
    chroma = math.hypot(*lab[1:]) - math.hypot(*centre[1:])
    hue = math.sqrt(max(0.0, offset**2 - chroma**2))
    return math.hypot(lightness, CHROMA * chroma, HUE * hue)


def names_of(rgb: RGB) -> tuple[str, ...]:
    """All names that people accept for a colour, best first; at least one.

    First are the names within whose radius the colour lies, least distant first, or the least distant one if there is
    none. The wider names of `ALSO` follow.
    """
    distances = {name: distance(rgb, name) for name in CENTRES}
    accepted = [name for name in distances if distances[name] <= 1.0] or [min(distances, key=distances.__getitem__)]
    accepted.sort(key=distances.__getitem__)
    wider = [also for name in accepted for also in ALSO.get(name, ())]
    return tuple(dict.fromkeys(accepted + wider))


def sample(name: str, random: Random) -> RGB:
    """A colour that people call `name`: uniform in OKLab within `SAMPLED` radii of the name's centre, inside of sRGB.

    Raises `KeyError` for a name that is not in `CENTRES`.
    """
    centre, radius = _centre(name), SAMPLED * RADII.get(name, RADIUS)
    reach = radius / min(LIGHTNESS, CHROMA)
    while True:
        lightness, a, b = (value + random.uniform(-reach, reach) for value in centre)
        if _difference((lightness, a, b), centre) > radius:
            continue
        found = _srgb(lightness, a, b)
        if found is not None:
            return found
