"""A token's own embedding, learned for one avatar and heard only on the rows of a batch that wear that avatar.

The tokenizers and the text encoders' tables stay as they are, since the resident base serves others: a hook on each
table moves the vectors wherever the pieces of the token stand one after another in a prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from engine.bases.base import BaseModel


class LearnedWord:
    """Vectors that stand for `word` in the text encoders, (pieces, the tables' widths side by side).

    `vectors` start as the tables' own, so that a fresh word changes nothing.
    """

    def __init__(self, base: BaseModel, word: str, vectors: Tensor | None = None) -> None:
        """Of the base's tables, or with vectors that were learned before.

        Raises:
            ValueError: the vectors have other sizes, or the tokenizers cut the word differently.
        """
        self.word = word
        cuts = {tuple(pieces(base.parts[tokenizer], word)) for tokenizer in base.family.text_encoders.values()}
        if len(cuts) != 1:
            raise ValueError("the tokenizers cut the word differently")
        self.pieces = cuts.pop()
        own = [table.weight.detach()[torch.tensor(self.pieces, device=base.device)].float() for table in _tables(base)]
        self.own = torch.cat(own, dim=1)
        if vectors is not None and vectors.shape != self.own.shape:
            raise ValueError(f"the learned word is {tuple(vectors.shape)} and not {tuple(self.own.shape)}")
        self.vectors = nn.Parameter(self.own.clone() if vectors is None else vectors.to(self.own))

    def moved(self, start: int, width: int) -> Tensor:
        """By how much it moves the vectors of the table whose columns begin at `start`, (pieces, width)."""
        return (self.vectors - self.own)[:, start : start + width]


Row = Sequence[tuple[LearnedWord, float]]
"""The words that one row of a batch is read with, and how much each counts."""


@contextmanager
def heard(base: BaseModel, rows: Sequence[Row]) -> Iterator[None]:
    """Within, row n of every batch of prompts is read with exactly the words of rows[n].

    A batch of several times as many rows repeats them in the same order. The innermost context alone is heard.
    """
    before, base.heard = base.heard, rows
    try:
        with ExitStack() as hooks:
            start = 0
            for table in _tables(base) if any(rows) else ():
                hooks.callback(table.register_forward_hook(partial(_move, base, rows, start)).remove)
                start += table.embedding_dim
            yield
    finally:
        base.heard = before


def _move(
    base: BaseModel, rows: Sequence[Row], start: int, table: nn.Embedding, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """The table's answer (n, tokens, width) with the rows' words in it: the hook of one table."""
    if base.heard is not rows:
        return output
    for number in range(len(output)):
        for word, weight in rows[number % len(rows)]:
            columns = places(inputs[0][number], word.pieces)
            if len(columns):
                columns = columns[:, None] + torch.arange(len(word.pieces), device=output.device)
                moved = (weight * word.moved(start, table.embedding_dim)).to(output).expand(len(columns), -1, -1)
                row = torch.tensor(number, device=output.device)
                output = output.index_put((row, columns), moved, accumulate=True)
    return output


def _tables(base: BaseModel) -> list[nn.Embedding]:
    return [encoder.get_input_embeddings() for encoder in base.text_encoders.values()]


def pieces(tokenizer: Any, word: str) -> list[int]:
    """The numbers of the word's pieces, without beginning and end."""
    return list(tokenizer(word, add_special_tokens=False).input_ids)


def places(ids: Tensor, pieces: Sequence[int]) -> Tensor:
    """Where `pieces` stand one after another in a prompt's `ids` (tokens,): the first columns, int64 (found,)."""
    if len(ids) < len(pieces):
        return torch.empty(0, dtype=torch.long, device=ids.device)
    windows = ids.unfold(0, len(pieces), 1)  # (tokens - pieces + 1, pieces)
    return (windows == torch.tensor(pieces, device=ids.device)).all(dim=1).nonzero().flatten()
