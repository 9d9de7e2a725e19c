"""Words of a prompt that a base cannot draw."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.toon.lexicon import GRAMMAR, Lexicon

LEXICON = Lexicon(
    frozenset({"a man", "red hoodie", "as a pirate", "eating pizza", "smiling", "t-shirt", "in the snow", "glasses"}),
    {"costumes": ("pirate",)},
)


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
    ],
)
def test_only_words_that_no_caption_has_are_unknown(prompt: str, unknown: tuple[str, ...]) -> None:
    assert LEXICON.unknown(prompt, names=("mia",)) == unknown


def test_a_misspelled_word_has_a_suggestion() -> None:
    assert LEXICON.similar("pirrate") == ("pirate",)
    assert LEXICON.similar("submarine") == ()


@given(st.text(max_size=80))
def test_any_prompt_is_read_and_known_words_are_never_blamed(prompt: str) -> None:
    for phrase in LEXICON.unknown(prompt):
        assert phrase and not set(phrase.split()) & (GRAMMAR | {"man", "pirate", "pizza"})
