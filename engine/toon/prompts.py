"""The prompts of evaluations, and the attributes that a picture of each must show."""

from collections.abc import Mapping

ExpectedAttributes = Mapping[str, tuple[str, ...]]
"""The attributes that a prompt names, each with the values that count as right."""

PROMPTS: tuple[tuple[str, ExpectedAttributes], ...] = (
    ("a photo of {who}", {}),
    ("a photo of {who} in a suit", {"clothes": ("suit", "blazer")}),
    ("portrait of {who}, wearing a red hoodie, smiling, blue background",
     {"clothes": ("hoodie",), "clothes_colour": ("red",), "mouth": ("smiling",), "background": ("blue",)}),
    ("{who} with sunglasses, green background", {"glasses": ("sunglasses",), "background": ("green",)}),
    ("a picture of {who} in black overalls, white background",
     {"clothes": ("overalls",), "clothes_colour": ("black",), "background": ("white",)}),
    ("a photo of {who} wearing a yellow t-shirt, purple background, tongue out",
     {"clothes": ("t-shirt",), "clothes_colour": ("yellow",), "background": ("purple",), "mouth": ("tongue",)}),
    ("{who} in a white sweater, round glasses, orange background",
     {"clothes": ("sweater",), "clothes_colour": ("white",), "glasses": ("round glasses",), "background": ("orange",)}),
    ("a portrait of {who}, eyes closed, pink background", {"eyes": ("closed",), "background": ("pink",)}),
    ("a photo of {who}, wearing a purple v-neck, serious, gray background",
     {"clothes": ("v-neck",), "clothes_colour": ("purple",), "mouth": ("serious",), "background": ("gray",)}),
    ("a photo of {who} with glasses in a green graphic shirt",
     {"clothes": ("graphic shirt",), "clothes_colour": ("green",), "glasses": ("glasses",)}),
    ("close-up of {who}, screaming, yellow background",
     {"distance": ("close-up",), "mouth": ("screaming",), "background": ("yellow",)}),
    ("{who} wearing an orange scoop neck shirt, sad, light blue background",
     {"clothes": ("scoop-neck",), "clothes_colour": ("orange",), "mouth": ("sad",), "background": ("light blue",)}),
    ("a photo of {who} from afar in a dark blue blazer, beige background",
     {"clothes": ("blazer", "suit"), "clothes_colour": ("dark blue",), "distance": ("afar",),
      "background": ("beige",)}),
    ("a picture of {who}, winking, head tilted left, red background",
     {"eyes": ("winking",), "tilt": ("left",), "background": ("red",)}),
    ("{who} in a pink hoodie with an eyepatch, black background",
     {"clothes": ("hoodie",), "clothes_colour": ("pink",), "glasses": ("eyepatch",), "background": ("black",)}),
    ("a portrait of {who} wearing a brown suit, surprised, light green background",
     {"clothes": ("suit", "blazer"), "clothes_colour": ("brown",), "eyes": ("surprised",),
      "background": ("light green",)}),
    ("a photo of {who} in gray overalls, grimacing, head tilted right",
     {"clothes": ("overalls",), "clothes_colour": ("gray",), "mouth": ("grimacing",), "tilt": ("right",)}),
    ("{who}, crying, wearing a beige sweater, dark blue background",
     {"clothes": ("sweater",), "clothes_colour": ("beige",), "eyes": ("crying",), "background": ("dark blue",)}),
    ("a photo of {who} wearing a yellow winter hat and a blue t-shirt, white background",
     {"hat": ("winter hat",), "hat_colour": ("yellow",), "clothes": ("t-shirt",), "clothes_colour": ("blue",),
      "background": ("white",)}),
    ("{who} with heart eyes and round glasses in a light blue v-neck, brown background",
     {"clothes": ("v-neck",), "clothes_colour": ("light blue",), "eyes": ("in love",), "glasses": ("round glasses",),
      "background": ("brown",)}),
)  # fmt: skip
"""The prompts that are drawn for each person, and the attributes that the judge must find in each picture."""

SEED = 1000
"""Seed of the first prompt's picture; the others' follow."""
