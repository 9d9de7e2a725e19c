"""Pre-train the small CLIP that scores pictures:
`python -m engine.toon.clip --set DIR --tokenizer DIR --text-encoder DIR --work DIR --out DIR`.

Image and text tower learn together which caption belongs to which picture (arXiv 2103.00020, figure 3), in the
standard layout of `CLIPModel`. The text tower starts from the text encoder, which can read already. Captions leave
most of a picture untold, so two captions of a batch may both be true of it; that is rare.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from engine.precision import autocast
from engine.toon import SIZE, pictures, text_encoder
from engine.toon.captions import caption
from engine.toon.judge import as_input
from engine.toon.pretraining import pretrain


def build(encoder: CLIPTextModel) -> CLIPModel:
    """A CLIP of 4 million parameters for pictures of 128 x 128 pixels, whose image tower is fresh."""
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=6,
        image_size=SIZE,
        patch_size=16,
    )
    text = encoder.config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=128))
    clip.text_model.load_state_dict(encoder.state_dict())
    return clip


def main(drawn_set: Path, tokenizer: Path, encoder: Path, work: Path, out: Path, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    random = Random(0)
    words = CLIPTokenizer.from_pretrained(tokenizer)
    drawn, scenes = pictures.load(drawn_set)
    clip = build(text_encoder.load(encoder)).requires_grad_(True)

    def tokens(rows: list[int], source: Random) -> Tensor:
        captions = [caption(scenes[row], source) for row in rows]
        return words(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids  # type: ignore[no-any-return]

    def logits(model: nn.Module, rows: list[int], source: Random) -> Tensor:
        with autocast(torch.device("cpu")):
            return model(input_ids=tokens(rows, source), pixel_values=as_input(drawn[rows])).logits_per_image.float()  # type: ignore[no-any-return]

    def loss(step: int) -> dict[str, Tensor]:
        rows = random.sample(range(len(scenes) - 1000), batch)
        scores, target = logits(clip, rows, random), torch.arange(batch)
        return {"loss": (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2}

    @torch.no_grad()
    def measure(module: nn.Module, step: int) -> dict[str, float]:
        source = Random(1)
        groups = [list(range(len(scenes) - start, len(scenes) - start + 100)) for start in range(1000, 0, -100)]
        right = [logits(module, rows, source).argmax(dim=1) == torch.arange(100) for rows in groups]
        return {"right_of_100": float(torch.cat(right).float().mean())}

    best = pretrain(clip, loss, work, steps=steps, learning_rate=1e-3, save_every=250, on_save=measure)
    assert isinstance(best, CLIPModel)
    best.half().save_pretrained(out)
    words.save_pretrained(out)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=half, image_std=half
    ).save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="folder written by engine.toon.pictures")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by engine.toon.tokenizer")
    parser.add_argument("--text-encoder", type=Path, required=True, help="folder written by engine.toon.text_encoder")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    main(
        arguments.set, arguments.tokenizer, arguments.text_encoder, arguments.work, arguments.out,
        arguments.steps, arguments.batch,
    )  # fmt: skip
