"""Prompt following: how well pictures match their prompts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from engine.toon import SIZE, WEIGHTS
from engine.toon.judge import as_input


class PromptScore:
    """CLIP score (arXiv 2104.08718) by the embedded base's small CLIP, which knows only the drawn world."""

    def __init__(self, folder: Path = WEIGHTS / "clip") -> None:
        self._clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """Cosines in [-1, 1], float32 (pictures, prompts)."""
        tokens = self._tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        rows = np.stack([np.asarray(picture.convert("RGB").resize((SIZE, SIZE)), np.uint8) for picture in pictures])
        image_embeds = F.normalize(self._clip.get_image_features(as_input(rows)).pooler_output, dim=1)
        text_embeds = F.normalize(self._clip.get_text_features(tokens).pooler_output, dim=1)
        return (image_embeds @ text_embeds.T).numpy()
