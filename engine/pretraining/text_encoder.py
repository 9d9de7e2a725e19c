"""Pre-train the text encoder.

A `CLIPTextModel` learns to predict everything that a scene shows from its caption. The predictions are read from its
last hidden states by cross-attention, one query for each attribute, exactly as the U-Net will read them. So the meaning
of each word, and what it refers to, is learned before the U-Net draws its first picture. No pictures are needed: a
second of this teaches more words than a minute of training together with the U-Net, where words explain next to nothing
at first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.cartoon.attributes import ATTRIBUTES, COLOURS, UNSEEN, Truth, truth
from engine.cartoon.captions import caption
from engine.cartoon.world import sample_scene
from engine.device.precision import autocast
from engine.pretraining.loop import Run, join_processes, pretrain

WIDTH = 192


def text_config(words: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextConfig:
    """A CLIP text tower's configuration for this tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def build(words: CLIPTokenizer) -> CLIPTextModel:
    """A fresh text encoder of 1.8 million parameters: three causal layers, as in CLIP's text tower."""
    return CLIPTextModel(text_config(words, WIDTH, layers=3, heads=6))


@torch.no_grad()
def grow(words: CLIPTokenizer, old: CLIPTextModel, old_words: CLIPTokenizer) -> CLIPTextModel:
    """A text encoder for the tokenizer `words` with the layers of `old`.

    A token's embedding starts as the mean of the old embeddings of its text, so that the U-Net, which was trained with
    the old text encoder, reads most prompts from the start.
    """
    grown = build(words)
    state, old_state = grown.state_dict(), old.state_dict()
    for name, tensor in old_state.items():
        if state[name].shape == tensor.shape:
            state[name].copy_(tensor)
    positions = next(name for name in state if name.endswith("position_embedding.weight"))
    tokens = next(name for name in state if name.endswith("token_embedding.weight"))
    known = len(old_state[positions])
    state[positions][:known] = old_state[positions]
    state[positions][known:] = old_state[positions][-1]
    for number in range(len(words)):
        text = words.decode([number]).strip()
        ids = old_words(text, add_special_tokens=False).input_ids
        if number in (words.bos_token_id, words.eos_token_id):
            ids = [old_words.bos_token_id if number == words.bos_token_id else old_words.eos_token_id]
        if ids:
            state[tokens][number] = old_state[tokens][ids].mean(dim=0)
    grown.load_state_dict(state)
    return grown


def load(folder: Path) -> CLIPTextModel:
    """The text encoder in `folder`, float32 and frozen; its hidden states, (n, 64, 192), condition the U-Net."""
    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


class Heads(nn.Module):
    """Linear heads that read attributes and colours from one vector for each of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = {name: len(values) for name, values in ATTRIBUTES.items()} | dict.fromkeys(COLOURS, 3)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})

    def loss(self, vectors: Mapping[str, Tensor], target: "Targets") -> Tensor:
        """The mean over attributes of the cross-entropy, and of colours of twenty times the squared error.

        Args:
            vectors: (n, width) for each attribute and colour.
        """
        losses = list[Tensor]()
        for name, classes in target.classes.items():
            if bool((classes != UNSEEN).any()):
                losses.append(F.cross_entropy(self.heads[name](vectors[name]).float(), classes, ignore_index=UNSEEN))
        for name, (values, shown) in target.colours.items():
            error = (self.heads[name](vectors[name]).float() - values).pow(2).mean(dim=1)
            losses.append(20 * (error * shown).sum() / shown.sum().clamp_min(1))
        return torch.stack(losses).mean()


class Targets:
    """What a batch of scenes shows, as tensors."""

    def __init__(self, rows: Sequence[Truth], device: torch.device) -> None:
        self.classes = {
            name: torch.tensor([row.classes[name] for row in rows], device=device) for name in ATTRIBUTES
        }  # fmt: skip
        self.colours = {
            name: (
                torch.tensor([row.colours[name] or (0.0, 0.0, 0.0) for row in rows], device=device),
                torch.tensor([float(row.colours[name] is not None) for row in rows], device=device),
            )
            for name in COLOURS
        }
        self.pose = torch.tensor([row.pose for row in rows], device=device)


class Reader(nn.Module):
    """A text encoder, and cross-attention that reads attributes from its hidden states. Only the encoder is kept."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.Parameter(0.02 * torch.randn(len(ATTRIBUTES) + len(COLOURS), WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 6, batch_first=True)
        self.heads = Heads(WIDTH)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """A vector (n, 192) for each attribute and colour from token ids (n, 64)."""
        with autocast(tokens.device):
            states = self.encoder(tokens).last_hidden_state.float()
        # No mask on the padding: the U-Net's cross attention sees none either.
        read, _ = self.attention(self.queries.expand(len(tokens), -1, -1), states, states, need_weights=False)
        return {name: read[:, n] for n, name in enumerate((*ATTRIBUTES, *COLOURS))}


def tokens_of(words: CLIPTokenizer, captions: Sequence[str], device: torch.device) -> Tensor:
    """Token ids (n, 64) of captions."""
    ids: Tensor = words(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.to(device)


def train(run: Run, words: CLIPTokenizer, start: CLIPTextModel | None, out: Path, *, steps: int, batch: int) -> None:
    """Train the text encoder and save it to `out`.

    Raises:
        OutOfTime: the run's deadline came first.
    """
    rank, processes = join_processes(run.device)
    torch.manual_seed(0)
    reader = Reader(start or build(words))

    def loss(step: int) -> dict[str, Tensor]:
        random = Random(step * processes + rank)
        scenes = [sample_scene(random) for _ in range(batch)]
        tokens = tokens_of(words, [caption(scene, random) for scene in scenes], run.device)
        # Captions leave attributes out, which can only be guessed: the lowest possible loss is well above zero.
        return {"loss": reader.heads.loss(reader(tokens), Targets([truth(scene) for scene in scenes], run.device))}

    best = pretrain(reader, loss, run, steps=steps, learning_rate=1e-3)
    assert isinstance(best, Reader)
    if rank == 0:
        best.encoder.half().save_pretrained(out)
