"""What the base model reads for an avatar's name."""

from datetime import UTC, datetime

import pytest

from engine.work.handlers import as_learned
from storage.records import Avatar


def avatar(token: str, noun: str = "woman", word: str | None = None) -> Avatar:
    return Avatar(token, "owner", token, noun, "ready", "adapters/x", {}, datetime.now(UTC), word)


@pytest.mark.parametrize(
    ("prompt", "avatars", "read"),
    [
        ("mia7 in a suit", [avatar("mia7")], "mia7 woman in a suit"),
        ("Mia7 woman in a suit, like mia7", [avatar("mia7")], "mia7 woman in a suit, like mia7 woman"),
        ("bob5 in a suit", [avatar("bob5", word="mia7")], "mia7 woman in a suit"),
        ("mia7 in a suit", [avatar("bob5", word="mia7")], "mia7 woman in a suit"),
        ("mia77 and amia7", [avatar("mia7")], "mia77 and amia7"),
        ("ann3 with mia7 man", [avatar("ann3"), avatar("mia7", "man")], "ann3 woman with mia7 man"),
        # Each name stands for one avatar, even where another was learned under it.
        ("ann3 with mia7", [avatar("ann3", word="mia7"), avatar("mia7", "man", "bob5")], "mia7 woman with bob5 man"),
        ("a suit", [], "a suit"),
    ],
)
def test_names_become_what_was_learned(prompt: str, avatars: list[Avatar], read: str) -> None:
    assert as_learned(prompt, avatars) == read
