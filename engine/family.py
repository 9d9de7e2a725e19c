"""What differs between families of base models. Everything else in the engine is the same for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """One kind of base model and what it wants."""

    name: str
    guidance: float
    """Default classifier-free guidance scale."""
    draw_steps: int
    """Default number of denoising steps."""
    adapter_targets: tuple[str, ...]
    """Ends of the names of the U-Net's modules that a LoRA adapter is put on."""
    instance_prompts: tuple[str, ...]
    """What the album's pictures are learned under; `{instance}` is token and class noun."""
    prior_prompts: tuple[str, ...]
    """What class pictures are drawn with; `{noun}` is the class noun."""
    cartoon: bool = False
    """Whether it only draws cartoons, which people must be told."""


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention projections that diffusers' train_dreambooth_lora.py trains."""

CONVOLUTIONS = ("conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")

SD1 = Family(
    name="sd1",
    guidance=7.5,
    draw_steps=30,
    adapter_targets=ATTENTION,
    instance_prompts=("a photo of {instance}",),
    prior_prompts=("a photo of {noun}",),
)

TOON = Family(
    name="toon",
    guidance=4.0,
    draw_steps=25,
    # Attention alone does not learn a person on this small base.
    adapter_targets=ATTENTION + CONVOLUTIONS,
    # Its small text encoder knows the token again only behind words that it was learned behind.
    instance_prompts=(
        "a photo of {instance}",
        "{instance}",
        "portrait of {instance}",
        "a portrait of {instance}",
        "a picture of {instance}",
        "photo of a {instance}",
    ),
    prior_prompts=(
        "a photo of {noun}",
        "a photo of a {noun}",
        "a portrait of a {noun} in a suit",
        "a photo of a {noun} wearing sunglasses, blue background",
        "portrait of {noun}, smiling, in a red hoodie",
        "a picture of a {noun} in a t-shirt, white background",
        "a {noun}, serious, with glasses and a green sweater",
        "a photo of a {noun}, purple background, tongue out",
        "{noun}",
        "{noun} with sunglasses, orange background",
    ),
    cartoon=True,
)


def family_of(unet_config: Mapping[str, Any]) -> Family:
    """Tell the family from the U-Net's configuration.

    Raises:
        ValueError: for a U-Net of a family that is not supported.
    """
    channels, width = unet_config["in_channels"], unet_config["cross_attention_dim"]
    if channels == 16:
        return TOON
    if channels == 4 and unet_config.get("addition_embed_type") is None and (width == 768 or width < 320):
        return SD1
    raise ValueError(f"no family for a U-Net with {channels} latent channels and cross attention of width {width}")
