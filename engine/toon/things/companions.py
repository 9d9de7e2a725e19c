"""Animals and others beside the person."""

from types import MappingProxyType

from engine.toon.things.drawing import FLUENT, OWN, Thing


def _companion(name: str, *wordings: str, icon: bool = False, **colours: tuple[str, ...]) -> Thing:
    source = FLUENT if icon else OWN
    return Thing(name, "companion", wordings, "with", colours=MappingProxyType(colours), source=source)


THINGS = (
    _companion("cat", "with a cat", "holding a cat", "with a kitten", "and a cat",
               "petting a cat", main=("#f2a03d", "#8d939c", "#4a4550", "#c98a55")),
    _companion("dog", "with a dog", "holding a dog", "with a puppy", "and a dog",
               "petting a dog", main=("#c98a4b", "#d8b07a", "#b9875a"), ears=("#7a4a2a", "#4a3328")),
    _companion("parrot", "with a parrot", "with a parrot on the shoulder",
               "with a bird on the shoulder", "and a parrot", icon=True),
    _companion("horse", "with a horse", "and a horse", "next to a horse", "beside a horse", "riding a horse",
               icon=True),
    _companion("bear", "with a bear", "and a bear", "next to a bear", "beside a bear", "with a brown bear", icon=True),
    _companion("robot", "with a robot", "and a robot", "next to a robot", "beside a robot", "with a robot friend",
               icon=True),
    _companion("panda", "with a panda", "and a panda", "next to a panda", "beside a panda", "with a panda bear",
               icon=True),
    _companion("fox", "with a fox", "and a fox", "next to a fox", "beside a fox", icon=True),
    _companion("lion", "with a lion", "and a lion", "next to a lion", "beside a lion", "with a tame lion", icon=True),
    _companion("monkey", "with a monkey", "and a monkey", "next to a monkey", "beside a monkey", icon=True),
    _companion("rabbit", "with a rabbit", "and a rabbit", "next to a rabbit", "beside a rabbit", "with a bunny",
               "holding a rabbit", icon=True),
    _companion("penguin", "with a penguin", "and a penguin", "next to a penguin", "beside a penguin", icon=True),
    _companion("owl", "with an owl", "and an owl", "next to an owl", "beside an owl", "with an owl on the shoulder",
               "with a bird", icon=True),
    _companion("unicorn", "with a unicorn", "and a unicorn", "next to a unicorn", "beside a unicorn",
               "riding a unicorn", icon=True),
    _companion("dragon", "with a dragon", "and a dragon", "next to a dragon", "beside a dragon", "with a baby dragon",
               icon=True),
)  # fmt: skip
