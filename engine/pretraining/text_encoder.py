"""Pre-train the text encoder: `python -m engine.pretraining.text_encoder --tokenizer DIR --work DIR --out DIR`.

A `CLIPTextModel` learns to predict every attribute of a scene from its caption. The predictions are read from its last
hidden states by cross-attention, one query for each attribute, exactly as the U-Net will read them. So the meaning of
each word, and what it refers to, is learned before the U-Net draws its first picture. No pictures are needed: a second
of this teaches more words than a minute of training together with the U-Net, where words explain next to nothing at
first. Ran once; kept so that it can be repeated.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.device.precision import autocast
from engine.pretraining.judge import labels
from engine.pretraining.loop import pretrain
from engine.toon import WEIGHTS
from engine.toon.captions import caption
from engine.toon.judge import ATTRIBUTES
from engine.toon.world import sample_scene

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
    """A fresh text encoder of 1.6 million parameters: three causal layers, as in CLIP's text tower."""
    return CLIPTextModel(text_config(words, WIDTH, layers=3, heads=6))


def load(folder: Path = WEIGHTS / "text_encoder") -> CLIPTextModel:
    """The text encoder in `folder`, float32 and frozen; its hidden states, (n, 48, 192), condition the U-Net."""
    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


class Reader(nn.Module):
    """A text encoder, and cross-attention that reads attributes from its hidden states. Only the encoder is kept."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.Parameter(0.02 * torch.randn(len(ATTRIBUTES), WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 6, batch_first=True)
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Logits (n, values) for each attribute from token ids (n, 48)."""
        with autocast(torch.device("cpu")):
            states = self.encoder(tokens).last_hidden_state.float()
        # No mask on the padding: the U-Net's cross attention sees none either.
        read, _ = self.attention(self.queries.expand(len(tokens), -1, -1), states, states, need_weights=False)
        return {name: head(read[:, n]) for n, (name, head) in enumerate(self.heads.items())}


def main(tokenizer: Path, start: Path | None, work: Path, out: Path, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    random, words = Random(0), CLIPTokenizer.from_pretrained(tokenizer)
    reader = Reader(load(start).requires_grad_(True) if start else build(words))

    def loss(step: int) -> dict[str, Tensor]:
        scenes = [sample_scene(random) for _ in range(batch)]
        tokens = words(
            [caption(scene, random) for scene in scenes], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        truth = [labels(scene) for scene in scenes]
        # Captions leave attributes out, which can only be guessed: the lowest possible loss is well above zero.
        losses = {
            name: F.cross_entropy(answer, torch.tensor([row[name] for row in truth]))
            for name, answer in reader(tokens).items()
        }
        return {"loss": torch.stack(list(losses.values())).mean()} | losses

    best = pretrain(reader, loss, work, steps=steps, learning_rate=1e-3, save_every=500)
    assert isinstance(best, Reader)
    best.encoder.half().save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by engine.pretraining.tokenizer")
    parser.add_argument("--from", dest="start", type=Path, help="text encoder to go on from")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    main(
        arguments.tokenizer, arguments.start, arguments.work, arguments.out, arguments.steps, arguments.batch
    )  # fmt: skip
