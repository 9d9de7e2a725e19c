"""Scores of pictures: how well one shows what its prompt says."""

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
    """CLIP score (arXiv 2104.08718) with the embedded base's own small CLIP, which knows drawn people alone."""

    def __init__(self, folder: Path = WEIGHTS / "clip") -> None:
        self._clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._words = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """Cosines in [-1, 1], float32 (pictures, prompts)."""
        tokens = self._words(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        rows = np.stack([np.asarray(picture.convert("RGB").resize((SIZE, SIZE)), np.uint8) for picture in pictures])
        seen = F.normalize(self._clip.get_image_features(as_input(rows)).pooler_output, dim=1)
        said = F.normalize(self._clip.get_text_features(tokens).pooler_output, dim=1)
        return (seen @ said.T).numpy()
