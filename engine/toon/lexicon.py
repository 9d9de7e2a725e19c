"""Which words of a prompt a base that was trained on captions of a drawn world does not know.

Such a base has read nothing but its captions. A word that no caption has changes the picture at random, so people
should be told.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

GRAMMAR = frozenset(
    "a an the and or of on at by to in into from with without is are was be being been has have having who whose that "
    "this these those it its his her their he she they his him them as like very really too so much more most some any "
    "all no not but just only also both each one two up down out over under near next front behind beside background "
    "please draw make show give me my your our us want i you can could would picture photo image there here when while "
    "doing looks look looking view style color colour colors colours coloured colored wearing wears wear "
    "dressed".split()
)
"""Words that need no drawing of their own."""

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", re.UNICODE)

ENDINGS = ("s", "es", "ed", "ing", "'s", "’s")
"""Endings that make no other word of a word."""


def _stems(word: str) -> set[str]:
    """The word without an ending: itself, and "smil" for "smiles" as for "smiling"."""
    found = {word}
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 2:
            found.add(word.removesuffix(ending).removesuffix("e"))
    return found | {stem.removesuffix("e") for stem in found if len(stem) > 3}


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The phrases that a base was trained on."""

    phrases: frozenset[str]
    """Lower case, such as "red hoodie" or "as a pirate"."""
    examples: Mapping[str, tuple[str, ...]]
    """Some of what can be drawn, by what it is, such as "places"."""

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of the phrases."""
        return frozenset(word for phrase in self.phrases for word in WORD.findall(phrase.lower())) | GRAMMAR

    def knows(self, word: str) -> bool:
        """Whether the word is in a phrase, with whatever ending."""
        word = word.lower().replace("’", "'")
        parts = [part for part in word.split("-") if part]
        if len(parts) > 1 and word not in self.words:
            return all(self.knows(part) for part in parts)
        return word in self.words or not self._stems.isdisjoint(_stems(word))

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(stem for word in self.words for stem in _stems(word))

    def unknown(self, prompt: str, names: Iterable[str] = ()) -> tuple[str, ...]:
        """The words of a prompt that cannot be drawn, in their order; neighbours are one phrase.

        Args:
            names: tokens and style names in the prompt, such as "cr7d", which stand for what was learned.
        """
        spared = {name.lower() for name in names}
        phrases: list[list[str]] = []
        end = -1
        for found in re.finditer(r"[\w'’-]+", prompt):
            word = found.group()
            # Numbers and tokens with digits are no words.
            if word.lower() in spared or not WORD.fullmatch(word) or self.knows(word):
                continue
            if phrases and prompt[end : found.start()].isspace():
                phrases[-1].append(word.lower())
            else:
                phrases.append([word.lower()])
            end = found.end()
        return tuple(dict.fromkeys(" ".join(words) for words in phrases))

    def similar(self, phrase: str, count: int = 3) -> tuple[str, ...]:
        """Known words that are spelled almost like the words of `phrase`, such as "pirate" for "pirrate"."""
        known = sorted(word for word in self.words - GRAMMAR if len(word) > 3)
        found = [match for word in phrase.split() for match in get_close_matches(word, known, count, cutoff=0.8)]
        return tuple(dict.fromkeys(found))[:count]
