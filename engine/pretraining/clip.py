"""Pre-train the small CLIP that scores pictures:
`python -m engine.pretraining.clip --set DIR --tokenizer DIR --work DIR --out DIR`.

Image and text tower learn together which caption belongs to which picture (arXiv 2103.00020, figure 3), in the standard
layout of `CLIPModel`. The contrastive loss alone teaches little about details: two captions of a batch nearly always
differ in a colour, so mouths can be ignored. Therefore the same linear heads also read every attribute from the
embeddings of both towers, which brings both into one space within a few hundred steps. Ran once; kept so that it can be
repeated.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from engine.device.precision import autocast
from engine.pretraining import pictures
from engine.pretraining.judge import labels
from engine.pretraining.loop import load_as_float32, pretrain
from engine.pretraining.text_encoder import text_config
from engine.toon import SIZE
from engine.toon.captions import caption
from engine.toon.judge import ATTRIBUTES, as_input

EMBEDDING = 128
MIN_ATTRIBUTES = 3
"""Captions name at least this many attributes when retrieval is measured: "a photo of a man" fits many pictures."""


def build(words: CLIPTokenizer) -> CLIPModel:
    """A fresh CLIP of 1.6 million parameters for pictures of 128 x 128 pixels."""
    text = text_config(words, 128, layers=2, heads=4)
    vision = CLIPVisionConfig(
        hidden_size=144,
        intermediate_size=432,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=16,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=EMBEDDING))


class Towers(nn.Module):
    """A CLIP, and the heads that both of its towers share. Only the CLIP is kept."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.heads = nn.ModuleDict({name: nn.Linear(EMBEDDING, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, tokens: Tensor, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (n, m) of n pictures (n, 3, 128, 128) against m captions (m, 48), and both embeddings."""
        with autocast(torch.device("cpu")):
            answer = self.clip(input_ids=tokens, pixel_values=picture)
        return answer.logits_per_image.float(), answer.image_embeds.float(), answer.text_embeds.float()

    def attributes(self, embedding: Tensor, truth: dict[str, Tensor]) -> Tensor:
        """The mean cross-entropy of the attributes read from embeddings (n, 128) of unit length."""
        # At the scale of hidden states, so that the heads' weights need not grow first.
        states = EMBEDDING**0.5 * embedding
        return torch.stack([F.cross_entropy(head(states), truth[name]) for name, head in self.heads.items()]).mean()


def main(drawn_set: Path, tokenizer: Path, work: Path, out: Path, steps: int, batch: int, compiled: bool) -> None:
    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(tokenizer)
    drawn, scenes = pictures.load(drawn_set)
    numbers = [labels(scene) for scene in scenes]
    table = {name: torch.tensor([row[name] for row in numbers]) for name in ATTRIBUTES}
    towers = Towers(build(words))
    forward = torch.compile(towers) if compiled else towers

    def tokens(rows: list[int], source: Random, least: int) -> Tensor:
        captions = [caption(scenes[row], source, least) for row in rows]
        ids: Tensor = words(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return ids

    def loss(step: int) -> dict[str, Tensor]:
        # Every step has its own random numbers, also after a resume.
        random = Random(step)
        rows = random.sample(range(len(scenes) - 1000), batch)
        scores, image, text = forward(tokens(rows, random, random.randrange(4)), as_input(drawn[rows]))
        target, truth = torch.arange(batch), {name: values[rows] for name, values in table.items()}
        contrast = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        seen, read = towers.attributes(image, truth), towers.attributes(text, truth)
        return {"loss": contrast + seen + read, "contrast": contrast, "seen": seen, "read": read}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        source, right = Random(1), []
        for start in range(len(scenes) - 1000, len(scenes), 100):
            rows = list(range(start, start + 100))
            scores, _, _ = module(tokens(rows, source, MIN_ATTRIBUTES), as_input(drawn[rows]))
            right.append(scores.argmax(dim=1) == torch.arange(100))
        return {"right_of_100": float(torch.cat(right).float().mean())}

    best = pretrain(towers, loss, work, steps=steps, learning_rate=1e-3, save_every=500, on_save=measure)
    assert isinstance(best, Towers)
    best.clip.half().save_pretrained(out)
    load_as_float32(out / "config.json")  # the dtype of pictures
    words.save_pretrained(out)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=half, image_std=half
    ).save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.pretraining.pictures")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by engine.pretraining.tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="faster on a CPU; needs a C++ compiler")
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.tokenizer, arguments.work, arguments.out, arguments.steps, arguments.batch,
        arguments.compile,
    )  # fmt: skip
