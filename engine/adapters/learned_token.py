"""A learned token embedding, applied only to its avatar's rows of a batch.

The tokenizers and the text encoders' embedding tables stay as they are, since other requests use the same resident
base: a hook on each table changes the vectors wherever the token's pieces follow one another in a prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from engine.bases.base import BaseModel
from engine.bases.interfaces import Tokenizer


class LearnedToken:
    """A learned embedding of `token` in the text encoders: `vectors`, (pieces, sum of the embedding tables' widths).

    A new one has the tables' own vectors, so that it changes nothing.
    """

    def __init__(self, base: BaseModel, token: str, vectors: Tensor | None = None) -> None:
        """A new one with the vectors of the base's embedding tables, or one with learned `vectors`.

        Raises:
            ValueError: the vectors have other sizes, or the tokenizers split the token differently.
        """
        self.token = token
        splits = {tuple(pieces_of(base.parts[name], token)) for name in base.family.text_encoders.values()}
        if len(splits) != 1:
            raise ValueError("the tokenizers split the token differently")
        self.pieces = splits.pop()
        self._tokenizer: Tokenizer = base.parts[next(iter(base.family.text_encoders.values()))]
        rows = torch.tensor(self.pieces, device=base.device)
        own = [table.weight.detach()[rows].float() for table in _tables(base)]
        self.own = torch.cat(own, dim=1)  # (pieces, widths)
        if vectors is not None and vectors.shape != self.own.shape:
            raise ValueError(f"the learned token is {tuple(vectors.shape)} and not {tuple(self.own.shape)}")
        self.vectors = nn.Parameter(self.own.clone() if vectors is None else vectors.to(self.own))

    def found_in(self, ids: Tensor) -> Tensor:
        """Where the token is a word of a prompt's `ids` (tokens,): its first columns, int64 (found,).

        Within another word, as cr7d in xcr7d, it is not.
        """
        columns = positions(ids, self.pieces)
        if not len(columns):
            return columns
        before = ids[(columns - 1).clamp_min(0)].tolist()
        starts = [ends_word(self._tokenizer, number) for number in before]
        return columns[torch.tensor(starts, device=columns.device) | (columns == 0)]

    def offset(self, start: int, width: int) -> Tensor:
        """The difference to the vectors of the table whose columns begin at `start`, (pieces, width)."""
        return (self.vectors - self.own)[:, start : start + width]


Tokens = Sequence[tuple[LearnedToken, float]]
"""The learned tokens of one row of a batch, and their weights."""


@contextmanager
def apply_learned_tokens(base: BaseModel, rows: Sequence[Tokens]) -> Iterator[None]:
    """Within, row n of every batch of prompts is encoded with exactly the learned tokens of rows[n].

    A batch of a multiple of len(rows) repeats them in the same order. Of nested contexts only the innermost counts.
    """
    before, base.learned_tokens = base.learned_tokens, rows
    try:
        with ExitStack() as hooks:
            start = 0
            for table in _tables(base) if any(rows) else ():
                hooks.callback(table.register_forward_hook(partial(_hook, base, rows, start)).remove)
                start += table.embedding_dim
            yield
    finally:
        base.learned_tokens = before


def _hook(
    base: BaseModel, rows: Sequence[Tokens], start: int, table: nn.Embedding, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """The hook of one table: its embeddings (n, tokens, width) with the rows' learned tokens."""
    if base.learned_tokens is not rows:
        return output
    for number in range(len(output)):
        for token, weight in rows[number % len(rows)]:
            columns = token.found_in(inputs[0][number])  # (found,)
            if len(columns):
                columns = columns[:, None] + torch.arange(len(token.pieces), device=output.device)  # (found, pieces)
                offset = (weight * token.offset(start, table.embedding_dim)).to(output).expand(len(columns), -1, -1)
                row = torch.tensor(number, device=output.device)
                output = output.index_put((row, columns), offset, accumulate=True)
    return output


def _tables(base: BaseModel) -> list[nn.Embedding]:
    return [encoder.get_input_embeddings() for encoder in base.text_encoders.values()]


def pieces_of(tokenizer: Any, token: str) -> list[int]:
    """The ids of the token's pieces, without beginning and end."""
    return list(tokenizer(token, add_special_tokens=False).input_ids)


@lru_cache(maxsize=4096)
def ends_word(tokenizer: Tokenizer, number: int) -> bool:
    """Whether CLIP's tokenizer ends a word with this id: such a piece has a mark, and the start of a prompt is none."""
    piece = tokenizer.convert_ids_to_tokens([number])[0]
    return piece.endswith("</w>") or piece.startswith("<|")


def positions(ids: Tensor, pieces: Sequence[int]) -> Tensor:
    """Where `pieces` follow one another in a prompt's `ids` (tokens,): their first columns, int64 (found,)."""
    if len(ids) < len(pieces):
        return torch.empty(0, dtype=torch.long, device=ids.device)
    windows = ids.unfold(0, len(pieces), 1)  # (tokens - pieces + 1, pieces)
    return (windows == torch.tensor(pieces, device=ids.device)).all(dim=1).nonzero().flatten()
