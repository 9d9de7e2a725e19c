"""The album's pictures as the loop learns them: latents, and the prompts that they are learned under."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from engine.bases.base import BaseModel
from engine.learning.objectives import face_weights
from engine.photos.crops import cropped, largest_face
from engine.photos.faces import is_drawing
from engine.recipe import Recipe


@dataclass(frozen=True)
class Example:
    """One picture to learn: the distribution that the VAE makes of it, and the prompts that it is learned under."""

    mean: Tensor
    """(c, h, w), mean of the latent's distribution; each step samples from the distribution."""
    deviation: Tensor
    """(c, h, w), standard deviation of the latent's distribution."""
    prompts: tuple[int, ...]
    """Indices of its prompts; each step takes one of them."""
    weights: Tensor | None = None
    """(1, h, w) with mean 1: how much an error counts at each pixel of the latent; None for all alike."""
    size: tuple[int, int, int, int] | None = None
    """`Conditioning.sizes` of the picture."""
    picture: str = ""
    """Digest of the pixels: the same picture has the same digest, whatever device encoded it."""


def encode_album(
    base: BaseModel, album: Sequence[Image.Image], recipe: Recipe, side: int, prompts: Sequence[Sequence[int]]
) -> list[Example]:
    """The album through the VAE: cropped as the recipe says, and mirrored as well if it says so.

    Args:
        side: pixels of the training pictures' sides.
        prompts: for each picture the indices of the prompts that it is learned under.
    """
    examples = []
    wants_faces = recipe.crop == "face" or recipe.face_weight != 1.0
    for picture, indices in zip(album, prompts, strict=True):
        face = largest_face(picture) if wants_faces else None
        part, box, size = cropped(picture, recipe.crop, side, base.multiple, face)
        views = [(part, box)]
        if recipe.flip:
            mirrored = box and (1 - box[2], box[1], 1 - box[0], box[3])
            views.append((part.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored))
        for view, face_box in views:
            mean, deviation = base.encode_pictures([view])  # (1, c, h, w) each
            weights = None
            if face_box and recipe.face_weight != 1.0:
                height, width = mean.shape[-2:]
                weights = face_weights(height, width, face_box, recipe.face_weight).to(mean.device)  # (1, h, w)
            digest = hashlib.sha256(view.tobytes()).hexdigest()
            examples.append(Example(mean[0], deviation[0], tuple(indices), weights, size, digest))
    return examples


def instance_prompts(
    base: BaseModel,
    album: Sequence[Image.Image],
    instance: str,
    recipe: Recipe,
    captions: Sequence[str | Sequence[str]],
    *,
    known_captions: Sequence[Sequence[str]] = (),
) -> list[list[str]]:
    """For each picture the prompts that it is learned under: its caption, or the recipe's or family's wordings.

    Args:
        instance: token and class noun, which replace {instance} in the wordings.
        captions: one or several for each picture, used if the recipe learns captions.
        known_captions: for each picture further captions, instead of the family's description of it.
    """
    if recipe.captions and captions:
        return [[texts] if isinstance(texts, str) else list(texts) for texts in captions]
    usual = [prompt.format(instance=instance) for prompt in recipe.prompts or base.family.instance_prompts]
    if recipe.prompts or not base.family.captions_drawings:
        return [usual] * len(album)
    if known_captions:
        return [[*usual, *known] for known in known_captions]
    return [[*usual, *(base.family.captions(one, instance) if is_drawing(one) else ())] for one in album]
