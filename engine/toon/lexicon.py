"""Which words of a prompt a base that was trained on captions of a drawn world does not know.

Such a base has read nothing but its captions. A word that no caption has changes the picture at random, so people
should be told.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

GRAMMAR = frozenset(
    "a an the and or of on at by to in into from with without is are was be being been has have having who whose that "
    "this these those it its his her their he she they him them as like very really too so much more most some any all "
    "no not but just only also both each one two three four five six seven eight nine ten up down out over under near "
    "next front behind beside background please draw make show give me my your our us want i you can could would "
    "picture photo image there here when while then than that's it's i'm around across through between against inside "
    "off onto together other others another every many few little bit lot lots kind sort type something someone "
    "somebody thing things own same such let let's get gets getting got put puts go goes going way including featuring "
    "depicting showing shown seen am doing looks look looking view style color colour colors colours coloured colored "
    "wearing wears wear dressed".split()
)
"""Words that need no drawing of their own."""

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
TOKEN = re.compile(r"<[^<>\s]+>|[^\W_]+(?:['’-][^\W_]+)*")
"""A word, a number, an avatar's token such as "cr7d", or a pose's such as "<yaw+2>"."""

ENDINGS = ("s", "es", "ed", "ing", "ly", "'s")
"""Endings that make no other word of a word."""

SPELLED = 5
"""Fewest letters of a word whose misspellings are recognised: a mistake makes another word of most shorter ones."""

IRREGULAR: Mapping[str, str] = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "wore": "wear", "worn": "wear", "held": "hold", "ate": "eat", "eaten": "eat",
    "drank": "drink", "drove": "drive", "rode": "ride", "sang": "sing", "swam": "swim", "slept": "sleep",
    "stood": "stand", "sat": "sit", "ran": "run", "stuck": "stick", "shaven": "shave", "grey": "gray",
    "moustache": "mustache",
}  # fmt: skip
"""Plural and past forms that endings do not explain, and words that are spelled in two ways."""


def _stems(word: str) -> set[str]:
    """The word without an ending: itself, "smil" for "smiles" as for "smiling", "hug" for "hugging", "scarf" for
    "scarves", "man" for "men"."""
    found = {word, IRREGULAR.get(word, word)}
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word.removesuffix(ending)
            found |= {stem, IRREGULAR.get(stem, stem)}
            if ending in ("ed", "ing") and stem[-1] == stem[-2]:
                found.add(stem[:-1])
            if ending in ("es", "ed", "ly") and stem[-1] == "i":
                found.add(f"{stem[:-1]}y")
            if ending == "es" and stem[-1] == "v":
                found.add(f"{stem[:-1]}f")
    return found | {stem.removesuffix("e") for stem in found if len(stem) > 3}


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The phrases that a base was trained on."""

    phrases: frozenset[str]
    """Lower case, such as "red hoodie" or "as a pirate"."""
    examples: Mapping[str, tuple[str, ...]]
    """Some of what can be drawn, by what it is, such as "places"; each as people type it, such as "on the moon"."""

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
        for found in TOKEN.finditer(prompt):
            word = found.group()
            # Numbers and tokens with digits are no words, and a single letter abbreviates one.
            if word.lower() in spared or not WORD.fullmatch(word) or re.fullmatch("[A-Za-z]", word) or self.knows(word):
                continue
            if phrases and not prompt[end : found.start()].strip(" \t\n_"):
                phrases[-1].append(word.lower())
            else:
                phrases.append([word.lower()])
            end = found.end()
        return tuple(dict.fromkeys(" ".join(words) for words in phrases))

    def similar(self, phrase: str, count: int = 3) -> tuple[str, ...]:
        """Known words that `phrase` may misspell, best first, such as "pirate" for "pirrate"; at most `count`.

        They have at least `SPELLED` letters and begin with the same one. Up to seven letters have one mistake, longer
        words two: with more, "playing" would be "plain".
        """
        found = list[tuple[int, str]]()
        for word in phrase.split():
            most = 0 if len(word) < SPELLED else 1 if len(word) < 8 else 2
            near = [(mistakes(word, other), other) for other in self._spellings.get(word[0], ()) if most]
            found += [one for one in near if one[0] <= most]
        return tuple(dict.fromkeys(word for _, word in sorted(found)))[:count]

    @cached_property
    def _spellings(self) -> Mapping[str, Sequence[str]]:
        known = sorted(word for word in self.words - GRAMMAR if len(word) >= SPELLED)
        return {first: tuple(words) for first, words in groupby(known, lambda word: word[0])}


def mistakes(a: str, b: str) -> int:
    """Letters to insert, leave out, replace or swap with the next one until `a` is `b` (optimal string alignment)."""
    before, row = list[int](), list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]
