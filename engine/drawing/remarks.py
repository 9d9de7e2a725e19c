"""What a drawing could not do as it was asked: words that the base does not know, a size that it cannot draw.

The facts are for the person who asked. They quote the prompt, so they may be kept where the prompt is, and in no log.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.adapters.file import FILE
from engine.bases.base import BaseModel
from engine.bases.prompts import Prompt
from engine.drawing.drawing import Plan, asked_size

PHRASES_MOST = 12
"""Most unknown phrases that are reported of a prompt."""


@dataclass(frozen=True)
class UnknownPhrase:
    """Neighbouring words of a prompt that the base does not know."""

    phrase: str
    similar: tuple[str, ...]
    """Known words that it may misspell."""


@dataclass(frozen=True)
class Size:
    """The size that was asked for and the one that was drawn: width and height in pixels."""

    asked: tuple[int, int]
    drawn: tuple[int, int]


@dataclass(frozen=True)
class Remarks:
    """The remarks on a drawing."""

    size: Size
    unknown: tuple[UnknownPhrase, ...] = ()
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where words are unknown, examples of what the base knows, by what they are, such as "places"."""

    def as_json(self) -> dict[str, Any]:
        """The remarks as JSON values, by their names here."""
        return asdict(self)


def remarks(plan: Plan, base: BaseModel) -> Remarks:
    """The remarks on a drawing. Names of what was learned, which no base knows by itself, are not unknown words."""
    lexicon, size = base.family.lexicon(), Size(asked_size(plan.drawing, base), (plan.width, plan.height))
    if lexicon is None:
        return Remarks(size)
    prompt = Prompt.parse(plan.drawing.prompt).text
    phrases = lexicon.unknown(prompt, learned_names(plan))[:PHRASES_MOST]
    unknown = tuple(UnknownPhrase(phrase, lexicon.similar(phrase)) for phrase in phrases)
    return Remarks(size, unknown, lexicon.examples if unknown else {})


def learned_names(plan: Plan) -> set[str]:
    """The names of a drawing's adapters: tokens and class nouns of avatars, and what styles' folders or files are
    called."""
    names = {name for file, _ in plan.adapters for name in (file.facts.token, file.facts.noun)}
    for path in plan.drawing.avatars:
        called = path.parent.name if path.name == FILE else path.stem
        names |= {called, *called.split("-")}
    return names
