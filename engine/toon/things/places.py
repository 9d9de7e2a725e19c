"""Places: what is behind the person."""

from types import MappingProxyType

from engine.toon.things.drawing import FLUENT, OWN, Thing


def _place(name: str, *wordings: str, icon: bool = False, **colours: tuple[str, ...]) -> Thing:
    source = FLUENT if icon else OWN
    return Thing(name, "place", wordings, "loose", frozenset({"background"}), MappingProxyType(colours), source=source)


THINGS = (
    _place("moon", "on the moon", "standing on the moon", "on the surface of the moon", "moon landing",
           "on the moon's surface", icon=True),
    _place("space", "in space", "in outer space", "floating in space", "among the stars and planets",
           "with planets in the background", "space background", icon=True),
    _place("beach", "at the beach", "on the beach", "on a beach", "at a beach", "by the sea", "on a tropical island",
           "beach background", "on vacation", icon=True),
    _place("snow", "in the snow", "in winter", "in a snowy landscape", "snowy background", "with snow falling",
           "in a winter wonderland", icon=True),
    _place("forest", "in a forest", "in the forest", "in the woods", "among trees", "forest background"),
    _place("city", "in the city", "in a city", "on the street", "on a city street", "in the street", "downtown",
           "in new york", "city background", "with skyscrapers behind"),
    _place("desert", "in the desert", "in a desert", "with cactuses", "in the sahara", "desert background", icon=True),
    _place("mountains", "in the mountains", "on a mountain", "hiking in the mountains", "with mountains behind",
           "in the alps", "mountain background", icon=True),
)  # fmt: skip
