"""Whether the base's own CLIP recognises the things in pictures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from engine.toon import things
from tests.evaluation import albums
from tests.evaluation.judging import rendered, squared
from tests.evaluation.prompts import THINGS, Prompt

WORDINGS = 3
"""Wordings of each thing whose embeddings are averaged."""


class Recogniser:
    """Ranks all things of one kind for a picture (zero-shot classification, arXiv 2103.00020, section 3.1)."""

    def __init__(self, folder: Path) -> None:
        self.clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.side = int(self.clip.config.vision_config.image_size)
        self.texts = dict[tuple[str, str], tuple[list[str], Tensor]]()

    @torch.no_grad()
    def _of_kind(self, kind: str, noun: str) -> tuple[list[str], Tensor]:
        """The names of a kind's things, and one embedding (n, d) for each."""
        if (kind, noun) not in self.texts:
            names = [thing.name for thing in things.THINGS.values() if thing.kind == kind]
            rows = []
            for name in names:
                texts = [f"{noun} {wording}" for wording in things.THINGS[name].wordings[:WORDINGS]]
                tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
                embedded = F.normalize(self.clip.get_text_features(tokens).pooler_output, dim=1)
                rows.append(F.normalize(embedded.mean(dim=0), dim=0))
            self.texts[kind, noun] = names, torch.stack(rows)
        return self.texts[kind, noun]

    @torch.no_grad()
    def first(self, pictures: Sequence[Image.Image], kind: str, noun: str) -> list[str]:
        """For each picture the thing of this kind that the CLIP finds most likely."""
        if not pictures:
            return []
        names, texts = self._of_kind(kind, noun)
        size = (self.side, self.side)
        rows = np.stack(
            [np.asarray(squared(one).convert("RGB").resize(size, Image.Resampling.BOX), np.uint8) for one in pictures]
        )
        pixels = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1  # (n, 3, h, w) in [-1, 1]
        found = F.normalize(self.clip.get_image_features(pixels).pooler_output, dim=1)
        return [names[number] for number in (found @ texts.T).argmax(dim=1).tolist()]


def on_renders(recogniser: Recogniser, side: int, each: int = 3) -> dict[str, float]:
    """How often the CLIP itself is right, by kind of thing: on renders of every thing that prompts ask for."""
    random, answers = Random("recognised renders"), defaultdict[str, list[bool]](list)
    for attribute, names in THINGS.items():
        for name in names:
            kind = things.THINGS[name].kind
            for number in range(each):
                person = albums.person(20_000 + 7 * len(answers[kind]) + number)
                shown = rendered(person, Prompt("render", "{who}", {attribute: (name,)}), random, side).picture
                answers[kind].append(recogniser.first([shown], kind, person.noun) == [name])
    return {kind: sum(given) / len(given) for kind, given in sorted(answers.items())}


KNOWN_WORDINGS: Mapping[str, frozenset[str]] = {
    name: frozenset(thing.wordings) for name, thing in things.THINGS.items()
}
"""Wordings that pre-training's captions contain too."""


def recogniser_of(folder: Path) -> Recogniser | None:
    """The CLIP beside a base model's weights; None if there is none."""
    return Recogniser(folder / "clip") if (folder / "clip").is_dir() else None
