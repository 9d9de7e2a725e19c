"""What a run learns, gathered before its first step: pictures as latents, prompts as embeddings."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.learning.class_pictures import album_as_class, class_latents, class_picture_steps
from engine.learning.config import TrainingConfig
from engine.learning.examples import Example, encode_album, instance_prompts
from engine.learning.team import Team


@dataclass(frozen=True)
class Material:
    """What is learned. The VAE and the text encoders are not needed any more, unless the text encoders learn too."""

    examples: Sequence[Example]
    """The album."""
    class_latents: Tensor
    """(count, c, h, w), the class pictures for prior preservation; count may be 0."""
    class_prompts: Sequence[int]
    """The index of each class picture's prompt."""
    prompts: Sequence[str]
    """All distinct prompts; prompt indices count in this list."""
    embeddings: Conditioning
    """The embedding of each prompt, by the untrained text encoders."""
    run: str
    """Digest of everything that decides what is learned, and how: a checkpoint of another run is not continued."""
    lineage: str
    """As `run`, without the number of steps: a run of more steps goes on from the checkpoint of a shorter one."""


def gather(
    base: BaseModel,
    album: Sequence[Image.Image],
    config: TrainingConfig,
    team: Team,
    on_class_pictures: Callable[[int, int], None],
    on_warning: Callable[..., None] = lambda code, **facts: None,
) -> Material:
    """Encode album, class pictures and prompts.

    Raises:
        UserError: `out_of_memory` if not even one class picture can be drawn.
    """
    recipe, side = config.recipe, side_of(config, base)
    # 1. The album as latents. Every distinct prompt has an index.
    prompts_of = instance_prompts(
        base, album, config.instance, recipe, config.captions, known_captions=config.known_captions
    )
    index = {
        prompt: number for number, prompt in enumerate(dict.fromkeys(p for several in prompts_of for p in several))
    }
    examples = encode_album(
        base, album, recipe, side, [[index[prompt] for prompt in several] for several in prompts_of]
    )
    # 2. The class pictures as latents. A short run does not need all of them.
    count = min(recipe.prior_pictures, recipe.steps * recipe.prior_batch * recipe.accumulation * team.size)
    with team.main_process_first():
        latents, class_prompts = class_latents(
            base, config.noun, count, side, config.prior_folder, recipe.prior_prompts, on_class_pictures, on_warning,
            steps=class_picture_steps(base, recipe.prior_target),
        )  # fmt: skip
    if recipe.prior_album and count and recipe.prior_target == "base":
        without_token = [[without(config.token, config.noun, prompt) for prompt in several] for several in prompts_of]
        own, own_prompts = album_as_class(base, album, without_token, recipe.prior_album, side)
        latents, class_prompts = torch.cat((latents, own)), class_prompts + own_prompts
    # 3. The embedding of every prompt.
    lineage = _lineage(base, config, team, list(index), examples)
    for prompt in class_prompts:
        index.setdefault(prompt, len(index))
    prompts = list(index)
    if unread := sum(bool(base.unread_caption(prompt)) for prompt in prompts):
        on_warning("captions_unread", count=unread, of=len(prompts))
    return Material(
        examples=examples,
        class_latents=latents,
        class_prompts=[index[prompt] for prompt in class_prompts],
        prompts=prompts,
        embeddings=base.encode_set(prompts),
        run=_digest(base, config, team, prompts, examples),
        lineage=lineage,
    )


def without(token: str, noun: str, prompt: str) -> str:
    """The prompt with the class noun in the token's place: "cr7d man smiling" and "cr7d smiling" are "man smiling"."""
    return re.sub(rf"\b{re.escape(token)}\b(\s+{re.escape(noun)}\b)?", noun, prompt, flags=re.IGNORECASE)


def side_of(config: TrainingConfig, base: BaseModel) -> int:
    """Pixels of the training pictures' sides."""
    return config.side or config.recipe.side or base.side


def _digest(
    base: BaseModel, config: TrainingConfig, team: Team, prompts: Sequence[str], examples: Sequence[Example]
) -> str:
    """Sixteen hexadecimal digits. Checkpoints of earlier releases hold them: keep the order and form of the values."""
    seen = [(example.picture, example.prompts) for example in examples]
    values = [config.recipe.as_json(), config.seed, config.instance, side_of(config, base), team.size, base.fingerprint]
    return hashlib.sha256(json.dumps([*values, prompts, seen]).encode()).hexdigest()[:16]


def _lineage(
    base: BaseModel, config: TrainingConfig, team: Team, prompts: Sequence[str], examples: Sequence[Example]
) -> str:
    """As `_digest`, without the steps, and without the prompts of class pictures: a short run has fewer of them."""
    recipe = {name: value for name, value in config.recipe.as_json().items() if name != "steps"}
    seen = [(example.picture, example.prompts) for example in examples]
    values = [recipe, config.seed, config.instance, side_of(config, base), team.size, base.fingerprint, prompts, seen]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
