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
    _place("kitchen", "in a kitchen", "in the kitchen", "cooking", "cooking in the kitchen", "at home in the kitchen",
           "kitchen background", wall=("#f7e3c0", "#cfe8e0", "#f2d6cf"), cupboard=("#4f9d94", "#c98a55", "#5f7fb0")),
    _place("office", "in an office", "in the office", "at the office", "at work", "at a desk", "office background",
           "in a meeting room"),
    _place("underwater", "under water", "underwater", "in the ocean", "under the sea", "diving in the sea",
           "at the bottom of the sea", "swimming with fish", "in an aquarium", icon=True),
    _place("stage", "on a stage", "on stage", "in a theater", "in a theatre", "at a concert", "performing on stage",
           curtain=("#b8262f", "#8a2f6b", "#2f5fae")),
    _place("library", "in a library", "in the library", "in front of bookshelves", "in front of a bookshelf",
           "with books in the background", "in a bookstore"),
    _place("garden", "in a garden", "in the garden", "among flowers", "in a field of flowers", "in a flower garden",
           "in a park", "in the park", "in spring"),
    _place("rain", "in the rain", "in a storm", "on a rainy day", "in a thunderstorm", "with rain falling",
           "in bad weather"),
    _place("classroom", "in a classroom", "at school", "in front of a blackboard", "in school", "as a teacher",
           "in class", icon=True),
    _place("stadium", "in a stadium", "at a stadium", "in the stadium", "at a football match", "on a football field",
           "on a soccer field", "in front of a crowd"),
    _place("castle", "in a castle", "in front of a castle", "at a castle", "with a castle behind", "in a fairy tale",
           "in the middle ages"),
    _place("night", "at night", "at night under stars", "under the stars", "under a starry sky", "at midnight",
           "starry night", "night sky background", "in the moonlight"),
    _place("sunset", "at sunset", "at sunrise", "in the sunset", "during sunset", "with a sunset behind",
           "at golden hour", "sunset background"),
    _place("bedroom", "in a bedroom", "in bed", "in the bedroom", "at home in bed", "going to sleep",
           wall=("#c8b6e8", "#a9d3ea", "#f0c6c9"), quilt=("#3a6fd8", "#e85d7a", "#f2a52c", "#3c9d6e")),
    _place("paris", "in paris", "at the eiffel tower", "in front of the eiffel tower", "in paris at the eiffel tower",
           "in france", "with the eiffel tower behind", icon=True),
    _place("car", "in a car", "driving a car", "driving", "in the car", "behind the wheel", "inside a car",
           seat=("#8a5f3c", "#4a5568", "#b5473f")),
    _place("jungle", "in a jungle", "in the jungle", "in a rainforest", "in the rainforest", "jungle background",
           icon=True),
    _place("volcano", "in front of a volcano", "at a volcano", "with a volcano behind", "on a volcano",
           "near a volcano", "with an erupting volcano", "volcano background"),
    _place("gym", "in a gym", "at the gym", "in the gym", "lifting weights", "working out", "gym background"),
    _place("party", "at a party", "at a birthday party", "with balloons and confetti", "celebrating",
           "party background", wall=("#6a4bb0", "#2f7fb8", "#d9558f")),
    _place("farm", "on a farm", "at a farm", "in front of a barn", "in the countryside", "on the farm"),
    _place("fireworks", "with fireworks", "at new year", "on new year's eve", "fireworks in the background",
           "watching fireworks", "under fireworks"),
)  # fmt: skip
