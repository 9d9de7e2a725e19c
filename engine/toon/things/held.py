"""Things that the person holds, eats, drinks or plays."""

from types import MappingProxyType

from engine.toon.things.drawing import FLUENT, OWN, Thing

BRIGHT = ("#e0403a", "#3a6fd8", "#f2a52c", "#3c9d4e", "#8a4fbf", "#e85d9a", "#1fa39a")
"""Colours that many things come in."""


def _held(name: str, *wordings: str, slot: str = "loose", icon: bool = False, **colours: tuple[str, ...]) -> Thing:
    source = FLUENT if icon else OWN
    return Thing(name, "held", wordings, slot, colours=MappingProxyType(colours), source=source)


THINGS = (
    _held("pizza", "eating pizza", "eating a slice of pizza", "with a slice of pizza", "with pizza", "having pizza",
          "holding a pizza slice", "with a pizza"),
    _held("ice-cream", "eating ice cream", "with ice cream", "eating an ice cream", "with an ice cream cone",
          "holding an ice cream", "licking an ice cream", "with an ice cream", icon=True),
    _held("coffee", "drinking coffee", "with a cup of coffee", "with coffee", "holding a coffee cup", "with a coffee",
          "having a coffee", "drinking a cup of coffee", "with a mug", "drinking tea", "with a cup of tea",
          main=("#f4f4f4", "#e0403a", "#3a6fd8", "#f2c14e", "#2f3542")),
    _held("flowers", "holding flowers", "with flowers", "with a bouquet of flowers", "with a bouquet",
          "holding a bouquet", "with a bunch of flowers", icon=True),
    _held("book", "with a book", "reading a book", "reading", "holding a book", "with an open book", main=BRIGHT),
    _held("balloon", "with a balloon", "holding a balloon", "with balloons", main=BRIGHT),
    _held("guitar", "playing guitar", "playing the guitar", "with a guitar", "holding a guitar",
          "playing an acoustic guitar", main=("#d9913f", "#b5651d", "#e0a95c", "#a63a2a")),
    _held("football", "with a football", "with a soccer ball", "holding a football", "holding a soccer ball",
          "with a ball", icon=True),
    _held("phone", "with a phone", "holding a phone", "with a smartphone", "with a mobile phone", "using a phone",
          "looking at a phone", "taking a selfie", "on the phone"),
    _held("camera", "with a camera", "holding a camera", "taking a photo", "taking pictures", "as a photographer"),
    _held("microphone", "singing into a microphone", "singing", "with a microphone", "holding a microphone",
          "as a singer", "doing karaoke"),
    _held("umbrella", "with an umbrella", "holding an umbrella", "under an umbrella", main=BRIGHT),
    _held("birthday-cake", "with a birthday cake", "with a cake", "holding a birthday cake", "holding a cake",
          "eating cake", "celebrating a birthday", icon=True),
    _held("burger", "with a burger", "eating a burger", "eating a hamburger", "with a hamburger", "holding a burger",
          icon=True),
    _held("sword", "with a sword", "holding a sword", "wielding a sword"),
    _held("heart", "with a heart", "holding a heart", "with a red heart", "holding a big heart"),
    _held("laptop", "with a laptop", "using a laptop", "working on a laptop", "holding a laptop", "with a computer",
          "at a computer"),
    _held("gift", "with a gift", "holding a gift", "with a present", "holding a present", "with a gift box",
          main=BRIGHT, ribbon=("#ffd23f", "#ffffff", "#ff9ec4")),
    _held("trophy", "with a trophy", "holding a trophy", "winning a trophy", "with a gold cup", "as a champion",
          icon=True),
    _held("skateboard", "with a skateboard", "holding a skateboard", "as a skater", main=BRIGHT),
    _held("money", "with money", "holding money", "with cash", "with a lot of money", "with dollar bills"),
    _held("popcorn", "eating popcorn", "with popcorn", "holding popcorn", "with a box of popcorn", icon=True),
    _held("doughnut", "eating a doughnut", "eating a donut", "with a doughnut", "with a donut", "holding a donut",
          icon=True),
    _held("beer", "drinking beer", "with a beer", "drinking a beer", "holding a beer", "with a glass of beer",
          icon=True),
    _held("apple", "eating an apple", "with an apple", "holding an apple", "with a red apple", icon=True),
    _held("magic-wand", "with a magic wand", "holding a magic wand", "with a wand", "doing magic", "as a magician"),
    _held("teddy-bear", "with a teddy bear", "holding a teddy bear", "hugging a teddy bear", "with a teddy",
          icon=True),
    _held("basketball", "with a basketball", "playing basketball", "holding a basketball", "as a basketball player",
          icon=True),
    _held("hot-dog", "eating a hot dog", "with a hot dog", "holding a hot dog", "eating a hotdog", icon=True),
    _held("fries", "eating french fries", "eating fries", "with french fries", "with fries", "eating chips", icon=True),
    _held("banana", "eating a banana", "with a banana", "holding a banana", icon=True),
    _held("watermelon", "eating watermelon", "with a watermelon", "with a slice of watermelon", icon=True),
    _held("lollipop", "with a lollipop", "eating a lollipop", "holding a lollipop", "eating candy", "with candy",
          icon=True),
    _held("cookie", "eating a cookie", "with a cookie", "holding a cookie", "eating cookies", "with a biscuit",
          icon=True),
    _held("rose", "with a rose", "holding a rose", "with a red rose", "holding a red rose", icon=True),
    _held("wine", "drinking wine", "with a glass of wine", "holding a glass of wine", "with wine", "with a wine glass",
          icon=True),
    _held("bubble-tea", "drinking bubble tea", "with bubble tea", "with a milkshake", "with an iced coffee", icon=True),
    _held("sandwich", "eating a sandwich", "with a sandwich", "holding a sandwich", "eating lunch", icon=True),
    _held("tennis-racket", "playing tennis", "with a tennis racket", "holding a tennis racket", "as a tennis player",
          icon=True),
    _held("controller", "playing video games", "with a game controller", "with a controller", "gaming", "as a gamer",
          "playing a video game", icon=True),
    _held("shield", "with a shield", "holding a shield", "behind a shield", main=BRIGHT),
    _held("fishing-rod", "fishing", "with a fishing rod", "with a fish", "holding a fish", "holding a fishing rod"),
    _held("drum", "playing the drums", "playing drums", "with a drum", "drumming", "as a drummer"),
)  # fmt: skip
