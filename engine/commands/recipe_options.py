"""The options that replace values of a recipe, each declared once, for all commands that learn."""

import argparse
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

from engine.recipe import AdapterForm, Crop, Optimiser, Precision, RateSchedule

NUMBERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "steps": (int, "training steps"),
    "batch": (int, "pictures in a batch of one device"),
    "accumulation": (int, "batches whose gradients are accumulated for one step"),
    "rank": (int, "rank of the LoRA, or of a LoKr's larger matrix"),
    "factor": (int, "size of a LoKr's small matrix"),
    "learning-rate": (float, "learning rate"),
    "warmup": (int, "steps over which the learning rate rises"),
    "weight-decay": (float, "weight decay"),
    "min-snr": (float, "gamma of min-SNR weighting, such as 5; 0 for none"),
    "noise-offset": (float, "scale of offset noise, such as 0.1; 0 for none"),
    "ema": (float, "decay of the moving average of the weights, such as 0.99; 0 for none"),
    "face-weight": (float, "weight of the loss in the face; it is 1 elsewhere"),
    "prior-weight": (float, "weight of prior preservation; 0 for none"),
    "prior-pictures": (int, "number of class pictures, which are drawn once for each base model and class noun"),
    "prior-album": (int, "copies of each photo among the class pictures, with the class noun as prompt"),
    "steps-per-photo": (int, "training steps for each photo"),
    "size": (int, "side of the training pictures in pixels"),
}
CHOICES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "adapter": (get_args(AdapterForm), "what is learned on each layer: a LoRA, or a LoKr (Kronecker product)"),
    "optimiser": (get_args(Optimiser), "optimiser"),
    "schedule": (get_args(RateSchedule), "schedule of the learning rate after the warmup"),
    "crop": (
        get_args(Crop),
        "the part of each photo to learn: centre square, square around the largest face, or all of it in a bucket of "
        "its aspect ratio",
    ),
    "precision": (get_args(Precision), "dtype of the computation"),
}
SWITCHES: Mapping[str, str] = {
    "text-encoder": "put a LoRA on the text encoder too",
    "pivotal": "learn a token embedding too (pivotal tuning)",
    "dora": "weight-decomposed LoRA (DoRA)",
    "rslora": "rank-stabilised scaling of the LoRA",
    "flip": "learn mirror images too; not for faces, which are not symmetric",
    "captions": "learn each photo with its caption from metadata.jsonl, metadata.csv or .txt files",
    "checkpointing": "gradient checkpointing, which saves memory",
}

ALL = frozenset((*NUMBERS, *CHOICES, *SWITCHES))
"""Every option."""
PRIOR = frozenset(("prior-weight", "prior-pictures", "prior-album", "steps-per-photo"))
"""Options of a person's recipe that a style's does not have."""
STUDIED = frozenset(("steps", "warmup", "schedule", "steps-per-photo"))
"""Options that a study does not have: it trains at a constant learning rate up to the largest of its multiples."""
EVALUATED = frozenset(("steps", "learning-rate", "rank", "prior-weight", "prior-album"))
"""Options of an evaluation."""
DISTILLED = frozenset(("steps", "batch", "rank", "learning-rate"))
"""Options of a distillation."""

COMMON: Mapping[str, str] = {
    "accumulation": "1", "warmup": "0", "weight-decay": "0.01", "min-snr": "0", "noise-offset": "0", "ema": "0",
    "face-weight": "1", "optimiser": "adamw", "precision": "auto, this machine's fastest", "size": "the base "
    "model's", "pivotal": "no", "dora": "no", "rslora": "no", "flip": "no", "checkpointing": "where memory is short",
    "adapter": "lora", "factor": "8",
}  # fmt: skip
"""Defaults that all recipes share, by option."""

PERSON: Mapping[str, str] = {
    **COMMON, "steps": "those of --steps-per-photo, for 5 to 20 photos", "batch": "1; embedded base 6",
    "rank": "16", "learning-rate": "1e-4, dreambooth 2e-6; embedded base 3e-3, dreambooth 3e-4", "prior-weight": "1",
    "prior-pictures": "32; embedded base 48", "prior-album": "0; embedded base 6",
    "steps-per-photo": "100, dreambooth 75; embedded base 40", "schedule": "constant; embedded base linear",
    "crop": "face; embedded base centre", "text-encoder": "no; embedded base yes", "captions": "no",
}  # fmt: skip
"""Defaults of a person's recipe."""

STYLE: Mapping[str, str] = {
    **COMMON, "steps": "100 times each picture", "batch": "16", "rank": "4", "learning-rate": "1e-4",
    "schedule": "constant", "crop": "centre", "text-encoder": "no", "captions": "yes",
}  # fmt: skip
"""Defaults of a style's recipe."""

DISTILLATION: Mapping[str, str] = {
    "steps": "1000, endpoints 2400", "batch": "8, endpoints 4", "rank": "64, endpoints 8",
    "learning-rate": "1e-4, endpoints 1e-3",
}  # fmt: skip
"""Defaults of a distillation."""

FIELDS: Mapping[str, str] = {name: "side" if name == "size" else name.replace("-", "_") for name in ALL}
"""The option's field of `engine.recipe.Recipe`."""


def add_recipe_options(
    parser: argparse.ArgumentParser, names: Collection[str] = ALL, defaults: Mapping[str, str] = PERSON
) -> None:
    """Add these options to a parser. Each is None by default, which leaves the value to the recipe.

    Args:
        defaults: what the recipe has, by option, to tell in the help.
    """
    group = parser.add_argument_group("values that replace the recipe's")
    for name, (kind, text) in NUMBERS.items():
        if name in names:
            group.add_argument(f"--{name}", dest=FIELDS[name], type=kind, help=f"{text} (default: {defaults[name]})")
    for name, (choices, text) in CHOICES.items():
        if name in names:
            group.add_argument(
                f"--{name}", dest=FIELDS[name], choices=choices, help=f"{text} (default: {defaults[name]})"
            )
    for name, text in SWITCHES.items():
        if name in names:
            said = f"{text} (default: {defaults[name]})"
            group.add_argument(f"--{name}", dest=FIELDS[name], action=argparse.BooleanOptionalAction, help=said)


def overrides(asked: argparse.Namespace) -> dict[str, Any]:
    """The values that were given, by field."""
    values = {field: getattr(asked, field, None) for field in FIELDS.values()}
    return {field: value for field, value in values.items() if value is not None}
