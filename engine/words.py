"""A token's own embedding, learned for one avatar and put in place only while that avatar is in use.

The tokenizer and the text encoder's table stay as they are, since the resident base serves others: a hook on the table
gives the learned vectors wherever the pieces of the token stand one after another in a prompt.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.base import BaseModel


class LearnedWord:
    """Vectors (pieces, width) that stand for `word` in the text encoder; switched on from its making on.

    `vectors` start as the table's own, so that a fresh word changes nothing.
    """

    def __init__(self, base: BaseModel, word: str, vectors: Tensor | None = None) -> None:
        self.word, self.on = word, True
        table: nn.Embedding = base.text_encoder.get_input_embeddings()
        # Behind a space, as it stands in a prompt: some tokenizers write the first word differently.
        self.pieces = pieces(base, word)
        own = table.weight.detach()[torch.tensor(self.pieces, device=table.weight.device)].float()
        self.vectors = nn.Parameter(own.clone() if vectors is None else vectors.to(own))
        self._hook = table.register_forward_hook(self._replace)

    def _replace(self, table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not self.on:
            return output
        found = places(inputs[0], self.pieces)
        if not len(found):
            return output
        rows = found[:, :1].expand(-1, len(self.pieces))
        columns = found[:, 1:] + torch.arange(len(self.pieces), device=found.device)
        values = self.vectors.to(output).expand(len(found), -1, -1)
        return output.index_put((rows, columns), values)

    def remove(self) -> None:
        """The table is itself again."""
        self._hook.remove()


def pieces(base: BaseModel, word: str) -> list[int]:
    """The numbers of the word's pieces, without beginning and end."""
    tokenizer: Any = base.tokenizer
    return list(tokenizer(word, add_special_tokens=False).input_ids)


def places(ids: Tensor, pieces: Sequence[int]) -> Tensor:
    """Where `pieces` stand one after another in `ids` (n, tokens): int64 (found, 2), row and first column."""
    if ids.shape[1] < len(pieces):
        return torch.empty(0, 2, dtype=torch.long, device=ids.device)
    windows = ids.unfold(1, len(pieces), 1)  # (n, tokens - pieces + 1, pieces)
    return (windows == torch.tensor(pieces, device=ids.device)).all(dim=2).nonzero()
