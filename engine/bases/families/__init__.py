"""The families of base models, one file each; `interface` says what a family is."""

from collections.abc import Mapping
from typing import Any

from engine.bases.families.interface import Conditioning, Family
from engine.bases.families.klein import KLEIN, KLEIN_DISTILLED
from engine.bases.families.sdxl import SDXL
from engine.bases.families.stable_diffusion import SD1, SD2
from engine.bases.families.toon import TOON
from engine.bases.interfaces import Config

__all__ = ["FAMILIES", "KLEIN", "KLEIN_DISTILLED", "SD1", "SD2", "SDXL", "TOON", "Conditioning", "Family", "family_of"]

FAMILIES = (SD1, SD2, SDXL, KLEIN, TOON)


def family_of(denoiser: Config, pipeline: Mapping[str, Any] | None = None) -> Family:
    """The family of a base model, by the configuration of its denoiser and, if given, of its pipeline.

    Raises:
        ValueError: the family is not supported.
    """

    def value(name: str) -> Any:
        return getattr(denoiser, name, None)

    if value("_class_name") == "Flux2Transformer2DModel":
        if value("guidance_embeds"):
            raise ValueError("no family for a FLUX.2 that takes its guidance as an input; klein does not")
        return KLEIN_DISTILLED if (pipeline or {}).get("is_distilled") else KLEIN
    channels, width = value("in_channels"), value("cross_attention_dim")
    if channels == 16 and width:
        return TOON
    if channels == 4 and width:
        if value("addition_embed_type") == "text_time":
            return SDXL
        if value("addition_embed_type") is None:
            return SD2 if value("use_linear_projection") else SD1
    raise ValueError(f"no family for a denoiser with {channels} latent channels and cross attention of width {width}")
