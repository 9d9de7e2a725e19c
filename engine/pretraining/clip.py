"""Pre-train the small CLIP that scores pictures.

Image and text tower learn together which caption belongs to which picture (arXiv 2103.00020, figure 3), in the standard
layout of `CLIPModel`. The contrastive loss alone teaches little about details: two captions of a batch nearly always
differ in a colour, so mouths can be ignored. Therefore the same linear heads also read every attribute from the
embeddings of both towers, which brings both into one space within a few hundred steps.
"""

from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from engine.cartoon.attributes import ATTRIBUTES, COLOURS, truth
from engine.cartoon.captions import caption
from engine.device.precision import autocast
from engine.pretraining.judge import held_out
from engine.pretraining.loop import Run, join_processes, load_as_float32, pretrain
from engine.pretraining.pictures import Pictures
from engine.pretraining.text_encoder import Heads, Targets, text_config, tokens_of
from engine.pretraining.vae import to_input

EMBEDDING = 160
SIDE = 128
MIN_ATTRIBUTES = 3
"""Captions name at least this many attributes when retrieval is measured: "a photo of a man" fits many pictures."""


def build(words: CLIPTokenizer) -> CLIPModel:
    """A fresh CLIP of 2 million parameters for pictures of 128 x 128 pixels."""
    text = text_config(words, 144, layers=2, heads=4)
    vision = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=16,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=EMBEDDING))


class Towers(nn.Module):
    """A CLIP, and the heads that both of its towers share. Only the CLIP is kept."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.heads = Heads(EMBEDDING)

    def forward(self, tokens: Tensor, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (n, m) of n pictures (n, 3, 128, 128) against m captions (m, 64), and both embeddings."""
        with autocast(tokens.device):
            answer = self.clip(input_ids=tokens, pixel_values=picture)
        return answer.logits_per_image.float(), answer.image_embeds.float(), answer.text_embeds.float()

    def read(self, embedding: Tensor, target: Targets) -> Tensor:
        """The loss of what is read from embeddings (n, 160) of unit length."""
        # At the scale of hidden states, so that the heads' weights need not grow first.
        states = EMBEDDING**0.5 * embedding
        return self.heads.loss(dict.fromkeys((*ATTRIBUTES, *COLOURS), states), target)


def train(run: Run, pictures: Pictures, words: CLIPTokenizer, out: Path, *, steps: int, batch: int) -> None:
    """Train the CLIP and save it to `out`, with tokenizer and image processor.

    Raises:
        OutOfTime: the run's deadline came first.
    """
    rank, processes = join_processes(run.device)
    device, pixels, scenes = run.device, pictures.pixels, pictures.scenes
    rows_of = [truth(scene) for scene in scenes]

    learned = len(scenes) - held_out(len(scenes))

    def seen(rows: list[int]) -> Tensor:
        return F.interpolate(to_input(pixels[np.array(rows)], device), SIDE, mode="area")

    def tokens(rows: list[int], source: Random, least: int) -> Tensor:
        return tokens_of(words, [caption(scenes[row], source, least) for row in rows], device)

    def loss(step: int) -> dict[str, Tensor]:
        random = Random(step * processes + rank)
        rows = sorted(random.sample(range(learned), batch))
        scores, image, text = towers(tokens(rows, random, random.randrange(4)), seen(rows))
        order, target = torch.arange(batch, device=device), Targets([rows_of[row] for row in rows], device)
        contrast = (F.cross_entropy(scores, order) + F.cross_entropy(scores.T, order)) / 2
        shown, told = towers.read(image, target), towers.read(text, target)
        return {"loss": contrast + shown + told, "contrast": contrast, "seen": shown, "read": told}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        source, right = Random(1), []
        for start in range(learned, len(scenes), 100):
            rows = list(range(start, min(start + 100, len(scenes))))
            scores, _, _ = module(tokens(rows, source, MIN_ATTRIBUTES), seen(rows))
            right.append(scores.argmax(dim=1).cpu() == torch.arange(len(rows)))
        return {"right_of_100": float(torch.cat(right).float().mean())}

    torch.manual_seed(0)
    towers = Towers(build(words))
    best = pretrain(towers, loss, run, steps=steps, learning_rate=1e-3, on_save=measure)
    if rank:
        return
    assert isinstance(best, Towers)
    best.clip.half().save_pretrained(out)
    load_as_float32(out / "config.json")  # the dtype of pictures
    words.save_pretrained(out)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=half, image_std=half
    ).save_pretrained(out)
