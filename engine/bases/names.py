"""Whether a base model knows parts of an avatar's token, and which token it does not know."""

from collections.abc import Collection
from itertools import permutations

from engine.bases.base import BaseModel
from engine.bases.interfaces import Tokenizer
from storage import naming
from storage.errors import UserError

SHORTEST = 2
"""Letters of the shortest word that is told: one letter means nothing."""

SHORTEST_PART = 3
"""Letters of the shortest word that is told within another: nearly all pairs of letters are such parts."""

RARE = "zxqvkwjh"
"""Letters that proposals end in: words of several of them are rare."""


def known_words(base: BaseModel, token: str, shortest_part: int = SHORTEST_PART) -> list[str]:
    """The words of a token that the base's text encoders know as words of their own, in the token's order.

    CLIP's vocabulary reads cr7d as the three words cr, 7 and d, so a person who is learned under it shares cr with
    every prompt that has it, and with the names that begin so. A token that is read in letters and parts of words
    shares nothing.

    Args:
        shortest_part: letters of the shortest word that is told within another.
    """
    found = list[str]()
    for name in base.family.text_encoders.values():
        found += [word for word in _known(base.parts[name], token, shortest_part) if word not in found]
    # A longer word says it all: of emma and ma, emma.
    return [word for word in found if not any(word != other and word in other for other in found)]


def _known(tokenizer: Tokenizer, token: str, shortest_part: int) -> list[str]:
    """The parts of the token that the tokenizer reads as one piece alone, and as that piece within the token."""
    # Language models write a blank into the piece that begins a word.
    blank = "" if _ids(tokenizer, " a") == _ids(tokenizer, "a") else " "
    pieces, known = _ids(tokenizer, blank + token), list[str]()
    for start in range(len(token)):
        for end in range(start + SHORTEST, len(token) + 1):
            word, before, after = token[start:end], token[:start], token[end:]
            own = _ids(tokenizer, blank + word) if word.isalpha() else []
            if len(own) != 1 or own[0] not in pieces:
                continue
            # A word of its own, as cr in cr7d; or the end of one, as mma in xkemma.
            apart = [*_ids(tokenizer, before), *own, *_ids(tokenizer, after)] == pieces and not blank
            if apart or len(word) >= shortest_part:
                known.append(word)
    return known


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def propose(base: BaseModel, token: str, noun: str, taken: Collection[str] = ()) -> str | None:
    """A token near this one of which the base knows no word; None if there is none among a few hundred.

    It has letters alone: CLIP's tokenizers make each digit a word.
    """
    root = "".join(letter for letter in token if letter.isalpha())[:3]
    for length in range(len(root), 0, -1):
        for end in permutations(RARE, 2):
            proposal = root[:length] + "".join(end)
            if proposal not in taken and _usable(proposal, noun) and not known_words(base, proposal, SHORTEST):
                return proposal
    return None


def _usable(token: str, noun: str) -> bool:
    try:
        naming.check_token(token, noun)
    except UserError:
        return False
    return True
