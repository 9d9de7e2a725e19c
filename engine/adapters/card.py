"""The card of an exported LoRA: what its file's header says to other programs and to the people who use it.

The WebUI and ComfyUI's managers show the keys of Stability AI's model specification (`modelspec.*`, github.com/
Stability-AI/ModelSpec) and those of kohya's scripts (`ss_*`, sd-scripts/train_network.py).
"""

import base64
import io
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from PIL import Image

from engine.adapters.adapters import AdapterFacts
from engine.bases.base import BaseModel
from storage import naming
from storage.errors import UserError

Format = Literal["diffusers", "kohya"]

ARCHITECTURES = {
    "sd1": ("stable-diffusion-v1/lora", "sd_v1"), "sd2": ("stable-diffusion-v2-768-v/lora", "sd_v2"),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"), "klein": ("flux-2-klein-4b/lora", "flux2"),
}  # fmt: skip
"""By family: `modelspec.architecture` and `ss_base_model_version`."""

THUMBNAIL = 256
"""Longest side of the thumbnail in pixels, which the specification recommends."""

TRIGGER = "modelspec.trigger_phrase"


def card(
    base: BaseModel,
    facts: AdapterFacts,
    form: Format,
    sizes: Mapping[str, Collection[float]],
    written: datetime,
    licence: str = "",
    thumbnail: Image.Image | Path | None = None,
) -> dict[str, str]:
    """The header of an exported file.

    Args:
        form: the names that the file's keys have.
        sizes: the layers' different values of "rank" and "alpha".
        written: when the adapter was learned.
        licence: of the file, such as "cc-by-4.0"; empty says nothing.
        thumbnail: a picture to show.
    """
    recipe = facts.recipe
    side = recipe.get("side") or base.side
    trigger = f"{facts.token} {facts.noun}".strip()
    family, version = ARCHITECTURES.get(base.family.name, (f"{base.family.name}/lora", base.family.name))
    said = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": family,
        "modelspec.implementation": "diffusers" if form == "diffusers" else "https://github.com/kohya-ss/sd-scripts",
        "modelspec.title": trigger or f"{facts.kind} for {base.source}",
        "modelspec.date": written.astimezone(UTC).isoformat(timespec="seconds"),
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": {"epsilon": "epsilon", "v_prediction": "v"}.get(base.schedule.prediction, ""),
        TRIGGER: trigger,
        "modelspec.usage_hint": f"Write “{trigger}” into the prompt." if trigger else "",
        "modelspec.license": licence,
        "modelspec.thumbnail": _data_url(thumbnail) if thumbnail else "",
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one(sizes["rank"]),
        "ss_network_alpha": _one(sizes["alpha"]),
        "ss_base_model_version": version,
        "ss_sd_model_name": Path(base.source).name,
        "ss_v2": str(base.family.name == "sd2"),
        "ss_resolution": f"({side}, {side})",
        "ss_steps": str(recipe.get("steps", "")),
        "ss_max_train_steps": str(recipe.get("steps", "")),
        "ss_learning_rate": str(recipe.get("learning_rate", "")),
        "ss_train_batch_size": str(recipe.get("batch", "")),
        "ss_seed": str(facts.seed),
        "ss_output_name": facts.token or facts.kind,
        # The WebUI takes the words of a LoRA's own prompt from here.
        "ss_tag_frequency": json.dumps({"album": {trigger: 1}}) if trigger else "",
    }
    return {key: value for key, value in said.items() if value}


def _one(values: Collection[float]) -> str:
    """The one value, or "Dynamic" as LoRAs of several ranks have it."""
    return f"{next(iter(values)):g}" if len(values) == 1 else "Dynamic"


def _data_url(picture: Image.Image | Path) -> str:
    """A small JPEG as a data URL.

    Raises:
        UserError: `bad_original` if the file is no picture.
    """
    try:
        image = (Image.open(picture) if isinstance(picture, Path) else picture).convert("RGB")
    except OSError as error:
        raise UserError("bad_original", file=picture, reason=str(error)[:80]) from error
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def person_of(header: Mapping[str, str]) -> tuple[str, str] | None:
    """Token and class noun that a file's card names as its trigger, which are two words; None where it names none.

    Raises:
        UserError: `minor` for the class noun of a minor.
    """
    words = header.get(TRIGGER, "").split()
    if len(words) != 2:
        return None
    try:
        return naming.token(words[0]), naming.noun(words[1])
    except UserError as error:
        if error.code == "minor":
            raise
        return None
