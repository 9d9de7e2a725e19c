"""The automatic recipe: how to learn an album, from the number of photos, the method and the base model's family."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from storage.errors import UserError

Method = Literal["lora", "dreambooth"]
Distillate = Literal["consistency", "endpoints"]
"""How a few-step adapter is learned (`engine.learning.distillation`), which decides how is drawn with it."""
Named = Literal["auto", "seed", "reference"]
Optimiser = Literal["adamw", "adamw8bit", "prodigy", "schedulefree"]
RateSchedule = Literal["constant", "linear", "cosine"]
Crop = Literal["centre", "face", "buckets"]
AlbumCrop = Literal["none", "face"]
"""How an album is prepared before the recipe's own crop: not at all, or cut to the square around each face."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Ends of the names of the attention projections that diffusers' train_dreambooth_lora.py trains."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how one album is learned."""

    method: Method
    steps: int
    learning_rate: float
    batch: int
    """Instance pictures that one device takes at once."""
    prior_batch: int
    """Class pictures beside them, for prior preservation (arXiv 2208.12242, section 3.2); 0 for none."""
    prior_weight: float
    rank: int = 16
    alpha: int = 16
    prior_pictures: int = 32
    """Class latents drawn once for each base and class noun."""
    weight_decay: float = 0.01
    text_encoder: bool = False
    """Whether the text encoder gets a LoRA too, so that the token can come to mean the person before the U-Net reads it
    (diffusers' train_dreambooth_lora.py: --train_text_encoder); beside full DreamBooth it learns at the LoRA recipe's
    rate."""
    accumulation: int = 1
    """So many batches make one step."""
    side: int | None = None
    """Pixels of the training pictures' sides; the base's own if None."""
    crop: Crop = "centre"
    """The middle square, the square around the largest face, or the whole picture in a bucket of its aspect."""
    flip: bool = False
    """Whether the mirror image is learned too. Off, since nobody's face is symmetric."""
    face_weight: float = 1.0
    """How much more an error within the largest face's box counts than one outside it."""
    captions: bool = False
    """Whether each photo is learned under its own caption, where it has one."""
    prompts: tuple[str, ...] | None = None
    """What the photos are learned under, with {instance}; the family's wordings if None."""
    prior_prompts: tuple[str, ...] | None = None
    """What class pictures are drawn with, with {noun}; the family's if None."""
    prior_target: Literal["base", "noise"] = "base"
    """What the prior rows are held at: the unadapted base's answer, or the noise as in the paper."""
    prior_album: int = 0
    """How many times each photo stands among the class pictures, under the class noun: there nothing but the token
    tells person and class apart, so it is heard sooner (ai-toolkit's diff_output_preservation holds nothing else). Only
    where rows are held at the base's answer: held at the noise, the whole class would become the person."""
    timesteps: Literal["stratified", "uniform"] = "stratified"
    """Whether the rows of a step are spread over the noise schedule or drawn one by one."""
    targets: tuple[str, ...] | None = None
    """Ends of the names of the modules that a LoRA is put on; the family's if None."""
    gaussian: bool = False
    """First factors drawn from N(0, 1 / rank), as diffusers' scripts do, instead of He's uniform."""
    dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that larger ranks learn as fast (arXiv 2312.03732)."""
    pivotal: bool = False
    """Whether the token's own embedding is learned too, over the first half of the steps (pivotal tuning,
    arXiv 2106.05744; the half is diffusers' train_dreambooth_lora_sdxl_advanced.py's default)."""
    word_learning_rate: float = 5e-4
    """The embedding's learning rate: cloneofsimo/lora's for inversion."""
    optimiser: Optimiser = "adamw"
    schedule: RateSchedule = "constant"
    warmup: int = 0
    """Steps over which the learning rate rises to its full value."""
    min_snr: float = 0.0
    """Gamma of min-SNR weighting (arXiv 2303.09556, which recommends 5); 0 for none. Flow matching has none."""
    noise_offset: float = 0.0
    """Scale of the noise that a channel's pixels share (crosslabs.org/blog/diffusion-with-offset-noise: 0.1)."""
    ema: float = 0.0
    """Decay of the running mean of the weights that is kept in the end; 0 keeps the last weights."""
    max_norm: float = 1.0
    """Gradients are scaled down to this norm (diffusers' scripts: 1.0)."""
    precision: Precision = "auto"
    checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass; None decides by the free memory."""

    def as_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Learner(Protocol):
    """What recipes depend on of a family of base models."""

    @property
    def recipes(self) -> Mapping[Method, tuple[int, Recipe]]:
        """By method: steps for each photo, and the recipe's other values."""

    @property
    def style_targets(self) -> tuple[str, ...] | None:
        """`Recipe.targets` of a style."""


PLAIN: Mapping[str, Any] = {
    "prompts": ("a photo of {instance}",), "prior_prompts": ("a photo of {noun}",), "prior_target": "noise",
    "timesteps": "uniform", "gaussian": True, "precision": "float32", "text_encoder": False, "crop": "centre",
    "targets": ATTENTION, "rank": 4, "alpha": 4, "weight_decay": 0.01, "checkpointing": False,
}  # fmt: skip
"""Values that take what diffusers' training scripts do by default in place of this engine's own improvements."""

SEED = Recipe("dreambooth", 350, 2e-6, 1, 1, 1.0, side=512, prior_pictures=100, **PLAIN)
"""The seed's run: its parameters one by one, and train_dreambooth.py's own number of class pictures, 100.

It names a class prompt, which that script reads for prior preservation alone, so class pictures are learned beside."""

REFERENCE: Mapping[Method, Recipe] = {
    # The README of diffusers' examples/dreambooth: 1e-4 x 500 with LoRA, 5e-6 x 400 in full, no class pictures.
    "lora": Recipe("lora", 500, 1e-4, 1, 0, 0.0, **PLAIN),
    "dreambooth": Recipe("dreambooth", 400, 5e-6, 1, 0, 0.0, **PLAIN),
}

STYLE = replace(Recipe("lora", 0, 1e-4, 16, 0, 0.0, **PLAIN), captions=True, checkpointing=None, precision="auto")
"""The defaults of diffusers' train_text_to_image_lora.py; its 100 epochs are counted in `style`."""

STYLE_EPOCHS = 100

RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 1_000_000), "batch": (1, 64), "prior_batch": (0, 64), "rank": (1, 256), "accumulation": (1, 256),
    "learning_rate": (1e-8, 0.1), "prior_weight": (0.0, 100.0), "prior_album": (0, 100), "warmup": (0, 100_000),
    "min_snr": (0.0, 100.0), "noise_offset": (0.0, 1.0), "ema": (0.0, 0.99999), "face_weight": (1.0, 100.0),
}  # fmt: skip

STEPS_PER_PHOTO = (1, 1000)

LORA_ONLY = ("pivotal", "dora", "rslora", "rank")
"""What full DreamBooth, which has no LoRA on the denoiser, does not have."""

AVATAR_STEPS = 20_000
"""Most steps of one avatar; a style may take more."""


def choose(photos: int, method: Method, family: Learner, named: Named = "auto", **overrides: Any) -> Recipe:
    """The recipe for an album of `photos` pictures; any field may be overridden, None leaves it to the rule.

    The number of steps follows the seed's rule, so many for each photo, but as if there were 5 to 20: fewer photos
    do not need less learning, and more than 20 teach little that is new. `steps_per_photo` replaces that many.

    Args:
        named: "auto" for the rule, "seed" for the seed's own run, "reference" for the defaults of diffusers' scripts.
    Raises:
        UserError: `out_of_range` for an override outside `RANGES`, `lora_only`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    per_photo = given.pop("steps_per_photo", None)
    check("steps_per_photo", per_photo, *STEPS_PER_PHOTO)
    check("steps", given.get("steps"), 1, AVATAR_STEPS)
    if named == "auto":
        usual, recipe = family.recipes[method]
        recipe = replace(recipe, steps=(per_photo or usual) * min(20, max(5, photos)))
    else:
        recipe = SEED if named == "seed" else REFERENCE[method]
        recipe = replace(recipe, steps=per_photo * photos) if per_photo else recipe
    return overridden(recipe, given)


def style(pictures: int, family: Learner, **overrides: Any) -> Recipe:
    """The recipe for a style from a captioned set of `pictures` pictures; None leaves a field as it is.

    Raises:
        UserError: `out_of_range`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = overridden(replace(STYLE, targets=family.style_targets), given)
    if "steps" in given:
        return recipe
    return replace(recipe, steps=STYLE_EPOCHS * math.ceil(pictures / (recipe.batch * recipe.accumulation)))


def overridden(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The recipe with these values in place of its own; what follows from them follows.

    Raises:
        UserError: `out_of_range`, `lora_only` for what full DreamBooth does not have, or `prior_album_at_noise`.
    """
    for name, value in given.items():
        if name in RANGES:
            low, high = RANGES[name]
            # Prodigy's is a factor on the rate that it finds.
            check(name, value, low, 10.0 if name == "learning_rate" and given.get("optimiser") == "prodigy" else high)
    if recipe.method == "dreambooth":
        for name in LORA_ONLY:
            if given.get(name):
                raise UserError("lora_only", what=name.replace("_", " "))
    if given.get("prior_album") and recipe.prior_target == "noise":
        raise UserError("prior_album_at_noise")
    follows: dict[str, Any] = {}
    if "rank" in given and "alpha" not in given:
        # Alpha as large as the rank leaves the learning rate's meaning as it is.
        follows["alpha"] = given["rank"]
    if given.get("prior_weight") == 0:
        follows["prior_batch"] = 0
    elif given.get("prior_weight") and not recipe.prior_batch:
        # As many class pictures as photos, as diffusers' train_dreambooth.py takes them.
        follows["prior_batch"] = given.get("batch", recipe.batch)
    if given.get("optimiser") == "prodigy" and "learning_rate" not in given:
        follows["learning_rate"] = 1.0  # Prodigy finds its own; its authors' default (arXiv 2306.06101)
    return replace(recipe, **{**follows, **given})


def check(name: str, value: float | None, low: float, high: float) -> None:
    """Raises UserError `out_of_range` for a value outside of low..high."""
    if value is not None and not low <= value <= high:
        raise UserError("out_of_range", what=name.replace("_", " "), low=low, high=high, value=value)
