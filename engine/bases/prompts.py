"""Prompts: their weights, and the windows in which a text encoder with few positions reads them.

The syntax is that of the Stable Diffusion WebUI (github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features,
"Attention/emphasis"), which most people know.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from engine.bases.interfaces import Tokenizer

STEP = 1.1
"""One pair of round brackets multiplies the weight by this, one pair of square brackets divides it."""

MOST_WEIGHT = 10.0
"""Weights stay between -10 and 10: larger ones overflow in half precision and only spoil the picture."""

MOST_WINDOWS = 8
"""Most windows of a prompt, 600 tokens of CLIP's; no prompt of `engine.drawing.drawing.PROMPT_LIMIT` characters in
English needs more than four."""

BREAK = "BREAK"
"""This word ends a window."""

_SYNTAX = re.compile(
    r"\\([()\[\]\\])|(\()|(\[)|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(\))|(\])|([^\\()\[\]:]+|.)", re.DOTALL
)


@dataclass(frozen=True)
class Phrase:
    """A part of a prompt, and its weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A prompt in its phrases."""

    phrases: tuple[Phrase, ...]

    @classmethod
    def literal(cls, text: str) -> "Prompt":
        """A prompt without weights: brackets are text, as in captions."""
        return cls((Phrase(text),))

    @classmethod
    def parse(cls, text: str) -> "Prompt":
        """A prompt as people write it: `(word)` 1.1 times, `((word))` 1.21 times, `[word]` 1 / 1.1 times, `(word:1.3)`
        1.3 times, and a bracket itself after a backslash. A bracket that is not closed reaches to the end, and one
        that was not opened is text.
        """
        return cls(tuple(_merged(_parsed(text))))

    @property
    def text(self) -> str:
        """The prompt without its syntax."""
        return "".join(phrase.text for phrase in self.phrases)

    @property
    def weighted(self) -> bool:
        """Whether any phrase has a weight other than 1."""
        return any(phrase.weight != 1 for phrase in self.phrases)


def _parsed(text: str) -> list[Phrase]:
    phrases = list[Phrase]()
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for number in range(start, len(phrases)):
            weight = max(-MOST_WEIGHT, min(MOST_WEIGHT, phrases[number].weight * factor))
            phrases[number] = Phrase(phrases[number].text, weight)

    for found in _SYNTAX.finditer(text):
        escaped, round_opens, square_opens, weight, round_closes, square_closes, plain = found.groups()
        if round_opens or square_opens:
            opened[found[0]].append(len(phrases))
        elif weight and opened["("]:
            multiply(opened["("].pop(), float(weight))
        elif round_closes and opened["("]:
            multiply(opened["("].pop(), STEP)
        elif square_closes and opened["["]:
            multiply(opened["["].pop(), 1 / STEP)
        else:
            phrases.append(Phrase(escaped or plain or found[0]))
    for start in opened["("]:
        multiply(start, STEP)
    for start in opened["["]:
        multiply(start, 1 / STEP)
    return phrases


def _merged(phrases: Sequence[Phrase]) -> list[Phrase]:
    """Neighbours of one weight as one phrase; a prompt has one phrase at least."""
    merged = list[Phrase]()
    for phrase in phrases:
        if merged and merged[-1].weight == phrase.weight:
            merged[-1] = Phrase(merged[-1].text + phrase.text, phrase.weight)
        else:
            merged.append(phrase)
    return merged or [Phrase("")]


@dataclass(frozen=True)
class Window:
    """A part of a prompt as the text encoder reads it, with start, end and padding."""

    ids: tuple[int, ...]
    """As many as the text encoder has positions."""
    weights: tuple[float, ...]
    """Of each id."""


@dataclass(frozen=True)
class Reading:
    """What a text encoder reads of a prompt."""

    windows: tuple[Window, ...]
    """One at least."""
    unread: str
    """The words that are not read, after the last window."""


@lru_cache(maxsize=256)
def read(tokenizer: Tokenizer, prompt: Prompt, most: int = MOST_WINDOWS) -> Reading:
    """The prompt in windows, each with its own start and end, as the WebUI reads prompts of more than 75 tokens.

    A word is in one window as a whole, so that an avatar's token is never cut in two. A word that is longer than a
    window is cut.
    """
    length = tokenizer.model_max_length - 2
    windows: list[tuple[list[int], list[float]]] = [([], [])]
    unread = list[str]()
    for word, weight in _words(prompt):
        if unread or (word == BREAK and len(windows) == most):
            unread += [word] if word != BREAK else []
            continue
        if word == BREAK:
            windows.append(([], []))
            continue
        ids = _ids(tokenizer, word)
        while ids:
            if len(windows[-1][0]) + min(len(ids), length) > length:
                if len(windows) == most:
                    unread.append(word)
                    break
                windows.append(([], []))
            part, ids = ids[:length], ids[length:]
            windows[-1][0].extend(part)
            windows[-1][1].extend([weight] * len(part))
    filled = [one for one in windows if one[0]] or windows[:1]
    return Reading(tuple(_window(tokenizer, *one) for one in filled), " ".join(unread))


def _words(prompt: Prompt) -> list[tuple[str, float]]:
    """The words between blanks, and their weights. Blanks say nothing to CLIP's tokenizers."""
    return [
        (word, phrase.weight)
        for phrase in prompt.phrases
        for word in re.sub(rf"\b{BREAK}\b", f" {BREAK} ", phrase.text).split()
    ]


@lru_cache(maxsize=8192)
def _ids(tokenizer: Tokenizer, word: str) -> tuple[int, ...]:
    return tuple(tokenizer(word, add_special_tokens=False).input_ids)


@lru_cache(maxsize=16)
def _frame(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of the empty prompt: start, end and padding."""
    empty = tokenizer(
        [""], padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return tuple(int(number) for number in empty.input_ids[0])


def _window(tokenizer: Tokenizer, ids: Sequence[int], weights: Sequence[float]) -> Window:
    start, end, *padding = _frame(tokenizer)
    rest = len(padding) - len(ids)
    return Window((start, *ids, end, *padding[:rest]), (1.0, *weights, 1.0, *[1.0] * rest))
