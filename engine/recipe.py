"""Recipes: how to train on an album. The automatic one follows from photos, method and the base model's family."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from storage.errors import UserError

Method = Literal["lora", "dreambooth"]
AdapterForm = Literal["lora", "lokr"]
"""What is learned on each adapted layer: a product of two low-rank matrices, or a Kronecker product of a small matrix
and a larger one (arXiv 2309.14859)."""
Distillate = Literal["consistency", "endpoints"]
"""How a few-step adapter is distilled (`engine.learning.distillation`), which decides the sampling with it."""
Named = Literal["auto", "seed", "reference"]
Optimiser = Literal["adamw", "adamw8bit", "prodigy", "schedulefree"]
RateSchedule = Literal["constant", "linear", "cosine"]
Crop = Literal["centre", "face", "buckets"]
AlbumCrop = Literal["none", "face"]
"""How an album is prepared before the recipe's own crop: not at all, or cut to the square around each face."""
PriorTarget = Literal["base", "noise"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention projections that diffusers' train_dreambooth_lora.py trains, as ends of their names."""


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of one training."""

    method: Method
    steps: int
    learning_rate: float
    batch: int
    """Instance pictures in a batch of one device."""
    prior_batch: int
    """Class pictures in the same batch, for prior preservation (arXiv 2208.12242, section 3.2); 0 for none."""
    prior_weight: float
    rank: int = 16
    alpha: int = 16
    prior_pictures: int = 32
    """Class pictures that are drawn once for each base and class noun."""
    weight_decay: float = 0.01
    text_encoder: bool = False
    """Whether the text encoder is trained by a LoRA too, so that the token's embedding can carry the person (diffusers'
    train_dreambooth_lora.py: --train_text_encoder). With full DreamBooth it has the LoRA recipe's learning rate."""
    accumulation: int = 1
    """Batches whose gradients are accumulated for one step."""
    side: int | None = None
    """Pixels of the training pictures' sides; None for the base's own."""
    crop: Crop = "centre"
    """The centre square, the square around the largest face, or the uncropped picture in a bucket of its aspect
    ratio."""
    flip: bool = False
    """Whether pictures are mirrored at random. Off, since faces are not symmetric."""
    face_weight: float = 1.0
    """Weight of the loss within the box of the largest face, relative to the rest."""
    captions: bool = False
    """Whether each photo is trained with its own caption, where there are captions."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the photos, with {instance}; None for the family's."""
    prior_prompts: tuple[str, ...] | None = None
    """Prompts of class pictures, with {noun}; None for the family's."""
    prior_target: PriorTarget = "base"
    """The target of class pictures: the prediction of the base without the adapter, or the noise as in the paper."""
    prior_album: int = 0
    """How many times each photo is among the class pictures, with the class noun as prompt. Only the token then tells
    person and class apart, so it is learned sooner (ai-toolkit's diff_output_preservation uses nothing else). It needs
    the base's prediction as target: with the noise, the class itself would become the person."""
    timesteps: Literal["stratified", "uniform"] = "stratified"
    """Whether the timesteps of a batch are spread evenly over the noise schedule or drawn independently."""
    targets: tuple[str, ...] | None = None
    """A LoRA adapts the modules whose names end in one of these; None for the family's."""
    gaussian: bool = False
    """Whether LoRA's first factor starts from N(0, 1 / rank), as in diffusers' scripts, instead of He's uniform."""
    dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that larger ranks learn as fast (arXiv 2312.03732)."""
    adapter: AdapterForm = "lora"
    factor: int = 8
    """A LoKr's small matrix has at most this many rows and columns: fewer parameters the larger it is, and a change of
    higher rank than a LoRA of the same size."""
    pivotal: bool = False
    """Whether the token's embedding is trained too, in the first half of the steps (pivotal tuning, arXiv 2106.05744;
    half is the default of diffusers' train_dreambooth_lora_sdxl_advanced.py)."""
    word_learning_rate: float = 5e-4
    """The learning rate of the token's embedding: cloneofsimo/lora's for inversion."""
    optimiser: Optimiser = "adamw"
    schedule: RateSchedule = "constant"
    warmup: int = 0
    """Steps over which the learning rate rises to its full value."""
    min_snr: float = 0.0
    """Gamma of min-SNR weighting (arXiv 2303.09556, which recommends 5); 0 for none. Flow matching has none."""
    noise_offset: float = 0.0
    """Scale of offset noise, one value for each channel (crosslabs.org/blog/diffusion-with-offset-noise: 0.1)."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, which is saved; 0 saves the last weights."""
    max_norm: float = 1.0
    """Gradients are scaled down to this norm (diffusers' scripts: 1.0)."""
    precision: Precision = "auto"
    checkpointing: bool | None = None
    """Gradient checkpointing; None decides by the free memory."""

    def as_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Learner(Protocol):
    """The part of a family of base models that recipes depend on."""

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
"""What diffusers' training scripts do by default, instead of this engine's improvements."""

SEED = Recipe("dreambooth", 350, 2e-6, 1, 1, 1.0, side=512, prior_pictures=100, **PLAIN)
"""The seed's run: its parameters, and train_dreambooth.py's default of 100 class pictures.

The seed sets a class prompt, which that script uses only for prior preservation, so class pictures are trained too."""

REFERENCE: Mapping[Method, Recipe] = {
    # The README of diffusers' examples/dreambooth: 1e-4 x 500 with LoRA, 5e-6 x 400 in full, no class pictures.
    "lora": Recipe("lora", 500, 1e-4, 1, 0, 0.0, **PLAIN),
    "dreambooth": Recipe("dreambooth", 400, 5e-6, 1, 0, 0.0, **PLAIN),
}

STYLE = replace(Recipe("lora", 0, 1e-4, 16, 0, 0.0, **PLAIN), captions=True, checkpointing=None, precision="auto")
"""The defaults of diffusers' train_text_to_image_lora.py. `style` turns its 100 epochs into steps."""

STYLE_EPOCHS = 100

RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 1_000_000), "batch": (1, 64), "prior_batch": (0, 64), "rank": (1, 256), "accumulation": (1, 256),
    "learning_rate": (1e-8, 0.1), "prior_weight": (0.0, 100.0), "prior_album": (0, 100), "warmup": (0, 100_000),
    "min_snr": (0.0, 100.0), "noise_offset": (0.0, 1.0), "ema": (0.0, 0.99999), "face_weight": (1.0, 100.0),
    "factor": (2, 64),
}  # fmt: skip

STEPS_PER_PHOTO = (1, 1000)

LORA_ONLY = ("pivotal", "dora", "rslora", "rank", "adapter", "factor")
"""Options that full DreamBooth, which has no LoRA on the denoiser, does not take."""

NOT_LOKR = ("dora", "rslora")
"""Options that a LoKr does not take."""

AVATAR_STEPS = 20_000
"""Most steps of one avatar; a style may take more."""


def choose(photos: int, method: Method, family: Learner, named: Named = "auto", **overrides: Any) -> Recipe:
    """The recipe for an album of `photos` pictures. Any field may be overridden; None leaves it to the rule.

    By the seed's rule the steps grow with the photos, but as if there were 5 to 20: fewer photos do not need fewer
    steps, and more than 20 teach little that is new. `steps_per_photo` overrides the family's steps for each photo.

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
    """The recipe for a style from a captioned set of `pictures` pictures. Overrides are as in `choose`.

    Raises:
        UserError: `out_of_range`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = overridden(replace(STYLE, targets=family.style_targets), given)
    if "steps" in given:
        return recipe
    return replace(recipe, steps=STYLE_EPOCHS * math.ceil(pictures / (recipe.batch * recipe.accumulation)))


def overridden(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The recipe with some values replaced, and with the values that depend on them.

    Raises:
        UserError: `out_of_range`, `lora_only` for what full DreamBooth does not have, `not_for_lokr`, `factor_is_lokr`,
            or `prior_album_at_noise`.
    """
    for name, value in given.items():
        if name in RANGES:
            low, high = RANGES[name]
            # Prodigy finds the rate itself; this is a factor on it.
            check(name, value, low, 10.0 if name == "learning_rate" and given.get("optimiser") == "prodigy" else high)
    if recipe.method == "dreambooth":
        for name in LORA_ONLY:
            if given.get(name):
                raise UserError("lora_only", what=name.replace("_", " "))
    if given.get("adapter") == "lokr":
        for name in NOT_LOKR:
            if given.get(name):
                raise UserError("not_for_lokr", what=name)
    elif given.get("factor") and recipe.adapter != "lokr":
        raise UserError("factor_is_lokr")
    if given.get("prior_album") and recipe.prior_target == "noise":
        raise UserError("prior_album_at_noise")
    follows: dict[str, Any] = {}
    if "rank" in given and "alpha" not in given:
        # With alpha equal to the rank, the learning rate keeps its effect.
        follows["alpha"] = given["rank"]
    if given.get("prior_weight") == 0:
        follows["prior_batch"] = 0
    elif given.get("prior_weight") and not recipe.prior_batch:
        # As many class pictures as photos in a batch, as in diffusers' train_dreambooth.py.
        follows["prior_batch"] = given.get("batch", recipe.batch)
    if given.get("optimiser") == "prodigy" and "learning_rate" not in given:
        follows["learning_rate"] = 1.0  # Prodigy finds its own; its authors' default (arXiv 2306.06101)
    return replace(recipe, **{**follows, **given})


def check(name: str, value: float | None, low: float, high: float) -> None:
    """Raises UserError `out_of_range` for a value outside of low..high."""
    if value is not None and not low <= value <= high:
        raise UserError("out_of_range", what=name.replace("_", " "), low=low, high=high, value=value)
