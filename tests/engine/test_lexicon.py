"""Words of a prompt that a base cannot draw."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.frontends.terminal import Script
from bot.table import COMMANDS
from engine.bases.families import FAMILIES, TOON
from engine.cartoon import captions as cartoon
from engine.cartoon import world as cartoon_world
from engine.toon import captions, world
from engine.toon.lexicon import GRAMMAR, Lexicon, mistakes

LEXICON = Lexicon(
    frozenset({"a man", "red hoodie", "as a pirate", "eating pizza", "smiling", "t-shirt", "in the snow", "glasses",
               "a scarf", "with a puppy", "hugging", "in a dress", "happy", "a woman", "sunglasses"}),
    {"costumes": ("as a pirate",)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a man in a red hoodie, smiling", ()),
        ("cr7d man as a PIRATE eating pizzas", ()),
        ("a man in a submarine", ("submarine",)),
        ("a man with a nuclear submarine and a red t-shirt", ("nuclear submarine",)),
        ("submarine, zeppelin, submarine", ("submarine", "zeppelin")),
        ("a snow-red man", ()),
        ("a snow-leopard man", ("snow-leopard",)),
        ("mia smiles at the pirate's glasses", ()),
        ("ein Mann mit Hut", ("ein mann mit hut",)),
        ("男 with 3 glasses", ("男",)),
        ("", ()),
        # As people write: quotes, weights, tags, pose tokens, abbreviations.
        ("a man in a 'submarine' and a \"hoodie\"", ("submarine",)),
        ("(nuclear submarine:1.3), [red] hoodie", ("nuclear submarine",)),
        ("red_hoodie, nuclear_submarine", ("nuclear submarine",)),
        ("a man <yaw+2> <lora:inks:0.8> w/ glasses", ()),
        # Plural and past forms.
        ("men and women with two scarves, puppies and hoodies in dresses", ()),
        ("a man who ate pizza, hugs a puppy, hugged, happily smiled", ()),
        ("knives and leaves", ("knives", "leaves")),
    ],
)
def test_only_words_that_no_caption_has_are_unknown(prompt: str, unknown: tuple[str, ...]) -> None:
    assert LEXICON.unknown(prompt, names=("mia",)) == unknown


VIVID = (
    # The prompt, and what is unknown to the base of squares and to the one that knows places and things.
    ("cr7d man in a suit, smiling, blue background", (), ()),
    ("close-up of cr7d woman with sunglasses and a yellow winter hat, tongue out", (), ()),
    ("cr7d man standing on the moon in a space suit, holding a flag", ("standing", "moon", "space", "holding", "flag"),
     ("flag",)),
    ("cr7d man as a pirate with a parrot on his shoulder", ("pirate", "parrot", "shoulder"), ()),
    ("cr7d man eating pizza in an Italian restaurant", ("eating pizza", "italian restaurant"),
     ("italian restaurant",)),
    ("cr7d man driving a submarine", ("driving", "submarine"), ("submarine",)),
    ("cr7d woman in a teal sweater and a crimson hat", ("teal", "crimson"), ()),
    ("cr7d woman in a light blue hoodie, grey background", (), ()),
    ("cr7d man's birthday party with balloons and a huge cake", ("birthday party", "balloons", "cake"), ()),
    ("a very old cr7d man with wrinkles and white hair", ("old", "wrinkles"), ("old", "wrinkles")),
    ("cr7d man riding a horse, looking left, three-quarter view", ("riding", "horse", "three-quarter"), ()),
)  # fmt: skip


@pytest.mark.parametrize(("prompt", "of_squares", "of_things"), VIVID)
def test_vivid_prompts_of_real_people(prompt: str, of_squares: tuple[str, ...], of_things: tuple[str, ...]) -> None:
    assert captions.lexicon().unknown(prompt) == of_squares
    assert cartoon.lexicon().unknown(prompt) == of_things


def test_every_word_of_a_caption_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (captions, cartoon):
        monkeypatch.setattr(module, "nonsense", lambda random: "zk1")
    random = Random(0)
    for _ in range(400):
        told = captions.caption(world.sample_scene(random), random)
        assert captions.lexicon().unknown(told) == (), told
        told = cartoon.caption(cartoon_world.sample_scene(random), random)
        assert cartoon.lexicon().unknown(told) == (), told


@pytest.mark.parametrize("lexicon", [captions.lexicon(), cartoon.lexicon()], ids=["squares", "things"])
def test_the_examples_of_what_is_known_are_known(lexicon: Lexicon) -> None:
    assert len(lexicon.examples) >= 3
    for examples in lexicon.examples.values():
        assert examples and not lexicon.unknown(", ".join(examples))


def test_every_prompt_that_the_bot_suggests_is_known() -> None:
    suggested = [*Script().prompts, COMMANDS["imagine"].example.removeprefix("/imagine"), "mia7 woman in a suit"]
    for prompt in suggested:
        assert captions.lexicon().unknown(prompt) == cartoon.lexicon().unknown(prompt) == ()


def test_only_the_embedded_base_has_words_that_it_does_not_know() -> None:
    known = {family.name for family in FAMILIES if family.lexicon() is not None}
    assert known == {TOON.name}


@pytest.mark.parametrize(
    ("phrase", "similar"),
    [
        ("pirrate", ("pirate",)),
        ("priate", ("pirate",)),
        ("hoddie", ("hoodie",)),
        ("cool sunglases", ("sunglasses",)),
        ("sunglsases", ("sunglasses",)),
        ("submarine", ()),
        ("playing", ()),  # no "plain"
        ("drums", ()),  # three mistakes from "dress"
        ("scar", ()),  # short words are other words
        ("男", ()),
    ],
)
def test_a_misspelled_word_has_a_suggestion(phrase: str, similar: tuple[str, ...]) -> None:
    lexicon = Lexicon(LEXICON.phrases | {"plain"}, {})
    assert lexicon.similar(phrase) == similar


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_mistakes_are_a_distance(a: str, b: str) -> None:
    assert mistakes(a, b) == mistakes(b, a)
    assert (mistakes(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= mistakes(a, b) <= max(len(a), len(b))


@given(st.text(max_size=80))
def test_any_prompt_is_read_and_known_words_are_never_blamed(prompt: str) -> None:
    for phrase in LEXICON.unknown(prompt):
        assert phrase and not set(phrase.split()) & (GRAMMAR | {"man", "pirate", "pizza"})
        LEXICON.similar(phrase)
