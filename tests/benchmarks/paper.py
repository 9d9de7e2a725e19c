"""What the trainer would need on GPUs, worked out on paper: `python -m tests.benchmarks.paper` prints the table that
`docs/comparison.md` shows.

FLOPs and the bytes that autograd keeps are counted on the real architectures without weights (torch's meta device).
Everything that follows from them is arithmetic under the assumptions below, and nothing was measured on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, Flux2Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CARDS = {"RTX 4090": 165.2e12, "A100": 312e12, "H100 SXM": 989e12}
"""Dense bfloat16 FLOP/s with float32 sums: NVIDIA's Ada whitepaper (appendix A), A100 and H100 data sheets."""

USED = 0.4
"""Share of that which is reached: an assumption (PaLM reports 0.46 for its training, arXiv 2204.02311, table 3)."""

ROWS = 2
"""One instance and one class picture make a step."""

LORA_SHARE = 0.01
"""A LoRA's parameters as a share of the denoiser's: an upper bound for rank 16 on attention."""

PEOPLE, PICTURES_A_DAY, PEAK = 10_000, 4, 4.0
"""Pictures that one of the people asks for on a day, and how much busier the busiest hour is than the mean: assumed."""


@dataclass(frozen=True)
class Family:
    """A real architecture: `denoiser` and `vae` build it, `inputs` are one row's at the usual side."""

    name: str
    side: int
    steps: int
    """Training steps of one person."""
    passes: int
    """Denoiser calls for one step of a drawing: two with classifier-free guidance."""
    draw_steps: int
    denoiser: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    vae: Callable[[], AutoencoderKL]
    latent: tuple[int, int, int]


def _sd15() -> nn.Module:
    # runwayml/stable-diffusion-v1-5, unet/config.json
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def _sdxl() -> nn.Module:
    # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json
    return UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # type: ignore[arg-type]  # fmt: skip


def _klein() -> nn.Module:
    # black-forest-labs/FLUX.2-klein-4B, transformer/config.json
    return Flux2Transformer2DModel(
        num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
    )


def _vae(**changed: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, **changed,
    )  # fmt: skip


def _unet_inputs(side: int, width: int, pooled: int = 0) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "sample": torch.empty(1, 4, side // 8, side // 8), "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, 77, width),
    }  # fmt: skip
    if pooled:
        inputs["added_cond_kwargs"] = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
    return inputs


def _klein_inputs(side: int) -> dict[str, Any]:
    places = (side // 16) ** 2
    return {
        "hidden_states": torch.empty(1, places, 128), "encoder_hidden_states": torch.empty(1, 512, 7680),
        "timestep": torch.empty(1), "img_ids": torch.empty(places, 4), "txt_ids": torch.empty(512, 4),
    }  # fmt: skip


FAMILIES = (
    Family("Stable Diffusion 1.5", 512, 800, 2, 30, _sd15, partial(_unet_inputs, 512, 768), _vae, (4, 64, 64)),
    Family("SDXL", 1024, 800, 2, 30, _sdxl, partial(_unet_inputs, 1024, 2048, 1280), _vae, (4, 128, 128)),
    Family("FLUX.2 [klein] 4B", 1024, 800, 2, 30, _klein, partial(_klein_inputs, 1024),
           partial(_vae, latent_channels=32), (32, 128, 128)),
)  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """What one row costs: parameters, FLOPs of one forward pass and of decoding, bytes kept for the backward pass."""

    parameters: int
    forward: int
    decode: int
    kept: int
    kept_checkpointing: int
    """The same where only what goes into each block is kept; one block's own bytes come on top while it is repeated."""


class _Flash(torch.autograd.Function):
    """Attention that keeps no scores, as FlashAttention does (arXiv 2205.14135); only shapes count here."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        answer = torch.empty_like(query)
        context.save_for_backward(query, key, value, answer)
        return answer


def count(family: Family) -> Counted:
    """Count a family's real architecture in bfloat16 on the meta device."""
    with torch.device("meta"):
        denoiser, inputs, vae = family.denoiser().bfloat16().train(), family.inputs(), family.vae()
        latent = torch.empty(1, *family.latent)
    inputs = {name: _brain(value) for name, value in inputs.items()}
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        denoiser(**inputs)
    with FlopCounterMode(display=False) as decoding, torch.no_grad():
        vae.decode(latent)
    kept = _kept(lambda: denoiser(**inputs))
    denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    return Counted(
        parameters, forward.get_total_flops(), decoding.get_total_flops(), kept, _kept(lambda: denoiser(**inputs))
    )


def _kept(run: Callable[[], object]) -> int:
    """Bytes that autograd keeps of a forward pass: each storage once, and none of a parameter's."""
    kept = dict[int, Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def flash(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        return _Flash.apply(query, key, value)  # type: ignore[no-any-return, no-untyped-call]

    with (
        patch.object(nn.functional, "scaled_dot_product_attention", flash),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _brain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _brain(one) for name, one in value.items()}
    return value.bfloat16()


def table() -> str:
    """The Markdown that `docs/comparison.md` shows."""
    lines = ["| | " + " | ".join(family.name for family in FAMILIES) + " |", "|---" * (len(FAMILIES) + 1) + "|"]
    counted = {family: count(family) for family in FAMILIES}

    def row(label: str, cell: Callable[[Family, Counted], str]) -> None:
        lines.append(f"| {label} | " + " | ".join(cell(*each) for each in counted.items()) + " |")

    row("counted: parameters of the denoiser", lambda f, c: f"{c.parameters / 1e9:.2f} billion")
    row("counted: one forward pass at its own side", lambda f, c: f"{c.forward / 1e12:.2f} TFLOP at {f.side} px")
    row("counted: kept for one row's backward pass", lambda f, c: f"{c.kept / 1e9:.1f} GB")
    row("the same with checkpointing", lambda f, c: f"{c.kept_checkpointing / 1e9:.1f} GB")
    # Base in bfloat16; the LoRA in float32 with gradient and two moments.
    lora = {family: 2 * c.parameters * (1 + 8 * LORA_SHARE) for family, c in counted.items()}
    row("memory, LoRA", lambda f, c: _gb(lora[f] + ROWS * c.kept))
    row("memory, LoRA, checkpointing", lambda f, c: _gb(lora[f] + ROWS * c.kept_checkpointing))
    # Float32 weights and squares, gradients and their mean in bfloat16; the unadapted base beside them in bfloat16.
    row("memory, DreamBooth, checkpointing", lambda f, c: _gb(14 * c.parameters + ROWS * c.kept_checkpointing))
    for card, speed in CARDS.items():
        # A LoRA's backward pass goes through the base's layers but leaves their weights' gradients out.
        row(f"LoRA steps a second, {card}", lambda f, c, s=speed: f"{USED * s / (ROWS * 2 * c.forward):.1f}")
        row(f"DreamBooth steps a second, {card}", lambda f, c, s=speed: f"{USED * s / (ROWS * 3 * c.forward):.1f}")
        row(f"pictures an hour, {card}", lambda f, c, s=speed: f"{3600 / _drawing(f, c, s):,.0f}")
    for card, speed in CARDS.items():
        row(f"cards for {PEOPLE:,} people, {card}", lambda f, c, s=speed: f"{_cards(f, c, s):.1f}")
    return "\n".join(lines)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _drawing(family: Family, counted: Counted, speed: float) -> float:
    """Seconds for one picture."""
    return (family.draw_steps * family.passes * counted.forward + counted.decode) / (USED * speed)


def _cards(family: Family, counted: Counted, speed: float) -> float:
    """Cards that keep up in the busiest hour, when each person draws so many pictures and trains once a month."""
    training = family.steps * ROWS * 2 * counted.forward / (USED * speed)
    return PEAK * PEOPLE * (PICTURES_A_DAY * _drawing(family, counted, speed) + training / 30) / 86_400


if __name__ == "__main__":
    print(table())
