"""Animals and others beside the person."""

from types import MappingProxyType

from engine.toon.things.drawing import FLUENT, OWN, Thing


def _companion(name: str, *wordings: str, icon: bool = False, **colours: tuple[str, ...]) -> Thing:
    source = FLUENT if icon else OWN
    return Thing(name, "companion", wordings, "with", colours=MappingProxyType(colours), source=source)


THINGS = (
    _companion("cat", "with a cat", "holding a cat", "with a kitten", "and a cat", "with his cat", "with her cat",
               "petting a cat", main=("#f2a03d", "#8d939c", "#4a4550", "#c98a55")),
    _companion("dog", "with a dog", "holding a dog", "with a puppy", "and a dog", "with his dog", "with her dog",
               "petting a dog", main=("#c98a4b", "#d8b07a", "#b9875a"), ears=("#7a4a2a", "#4a3328")),
    _companion("parrot", "with a parrot", "with a parrot on the shoulder", "with a parrot on his shoulder",
               "with a parrot on her shoulder", "with a bird on the shoulder", "and a parrot", icon=True),
    _companion("horse", "with a horse", "and a horse", "next to a horse", "beside a horse", "riding a horse",
               icon=True),
    _companion("bear", "with a bear", "and a bear", "next to a bear", "beside a bear", "with a brown bear", icon=True),
    _companion("robot", "with a robot", "and a robot", "next to a robot", "beside a robot", "with a robot friend",
               icon=True),
)  # fmt: skip
