"""Randomly initialised base models of each family's real classes, small enough to train and draw within seconds."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from tokenizers import Tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.adapters.adapters import Attached
from engine.bases.base import BaseModel
from engine.drawing.drawing import Drawing, Picture, draw_together, make_plan
from engine.recipe import Recipe
from engine.toon import WEIGHTS

SIDE = 64
"""Pixels that these draw."""

BETAS = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def text_config(words: CLIPTokenizer, **changed: Any) -> CLIPTextConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} | changed
    return CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, **sizes,
    )  # fmt: skip


def unet(**changed: Any) -> UNet2DConditionModel:
    sizes = {
        "sample_size": SIDE // 4, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
        "norm_num_groups": 8, "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**sizes | changed)


def vae(**changed: Any) -> AutoencoderKL:
    sizes = {
        "block_out_channels": (8, 16, 16), "norm_num_groups": 4, "sample_size": SIDE, "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
    }  # fmt: skip
    return AutoencoderKL(**sizes | changed)


def sd1() -> StableDiffusionPipeline:
    words = tokenizer()
    return StableDiffusionPipeline(
        vae(), CLIPTextModel(text_config(words)), words, unet(), DDIMScheduler(**BETAS), None, None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def sd1_wide() -> StableDiffusionPipeline:
    """One with latents of half the side, in whose loss a trend shows after 40 steps."""
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    words = tokenizer()
    return StableDiffusionPipeline(
        vae(block_out_channels=(8, 16), **levels), CLIPTextModel(text_config(words)), words,
        unet(sample_size=SIDE // 2), DDIMScheduler(**BETAS), None, None, None, requires_safety_checker=False,
    )  # fmt: skip


def sd2() -> StableDiffusionPipeline:
    """v-prediction, linear projections, heads by level."""
    words = tokenizer()
    return StableDiffusionPipeline(
        vae(), CLIPTextModel(text_config(words, hidden_act="gelu")), words,
        unet(use_linear_projection=True, attention_head_dim=(4, 8)),
        DDIMScheduler(**BETAS | {"prediction_type": "v_prediction"}), None, None, None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    """Two text encoders, the whole prompt's vector, sizes."""
    words = tokenizer()
    second = text_config(words, hidden_size=48, intermediate_size=96, projection_dim=24)
    denoiser = unet(
        use_linear_projection=True, attention_head_dim=(4, 8), transformer_layers_per_block=(1, 2),
        cross_attention_dim=80, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae(scaling_factor=0.13025), CLIPTextModel(text_config(words)), CLIPTextModelWithProjection(second), words,
        tokenizer(), denoiser, scheduler,
    )  # fmt: skip


def klein() -> Flux2KleinPipeline:
    """A flow-matching transformer that hears layers 9, 18 and 27 of a language model."""
    model = Tokenizer.from_file(str(WEIGHTS / "tokenizer" / "tokenizer.json")).get_vocab()
    words = Qwen2Tokenizer(vocab={word: number for number, word in enumerate(sorted(model))}, merges=[])
    words.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    language = Qwen3Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=words.pad_token_id, max_position_embeddings=512,
    )  # fmt: skip
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    coder = AutoencoderKLFlux2(
        block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    coder.bn.running_mean.normal_(0, 0.1)
    coder.bn.running_var.uniform_(0.5, 1.5)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return Flux2KleinPipeline(scheduler, coder, Qwen3ForCausalLM(language), words, transformer)


FAMILIES: Mapping[str, Callable[[], Any]] = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl, "klein": klein}


def save(family: str, folder: Path) -> Path:
    """The family's tiny model as a diffusers folder, the same at every call."""
    torch.manual_seed(0)
    {**FAMILIES, "sd1_wide": sd1_wide}[family]().save_pretrained(folder)
    return folder


LORA = Recipe("lora", 4, 5e-3, 2, 1, 1.0, rank=4, alpha=4, prior_pictures=1)


def load(folder: Path) -> BaseModel:
    return BaseModel.load(str(folder), torch.device("cpu"))


def asked(*adapters: Path, **changed: object) -> Drawing:
    return Drawing(**({"prompt": "a man", "steps": 3, "guidance": 3.0, "seed": 5, "width": SIDE,
                       "height": SIDE, "avatars": adapters} | changed))  # fmt: skip


def together(base: BaseModel, attached: Attached, drawings: Sequence[Drawing]) -> list[list[Picture]]:
    """The pictures of several requests, drawn as one batch."""
    return draw_together(base, attached, [make_plan(drawing, base, attached) for drawing in drawings])


def applied(attached: Attached, rows: Sequence[Sequence[tuple[Path, float]]]) -> AbstractContextManager[Any]:
    """The denoiser with these adapters on each row."""
    return attached.applied([attached.checked(row) for row in rows])


def plainly(folder: Path, family: str, lora: Path | None = None, weight: float = 1.0) -> Image.Image:
    """The same drawing by diffusers' own pipeline."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="applied")
        pipeline.set_adapters(["applied"], [weight])
    prompts: dict[str, Any] = {}
    if family != "klein":
        prompts = {"negative_prompt": "" if family != "sdxl" else None, "timesteps": solved(pipeline, 3)}
    channels = 16 if family == "klein" else 4
    side = SIDE // (8 if family == "klein" else 4)
    latents = torch.randn((channels, side, side), generator=torch.Generator().manual_seed(5))[None]
    return pipeline(
        prompt="a man", num_inference_steps=3, guidance_scale=3.0, latents=latents, width=SIDE, height=SIDE,
        **prompts,
    ).images[0]  # fmt: skip


def solved(pipeline: Any, steps: int) -> list[int]:
    """Give diffusers' pipeline its own DPM-Solver++; the timesteps to pass on the way, since each of its schedulers
    spreads them differently."""
    config = pipeline.scheduler.config
    end = "zero" if config.get("set_alpha_to_one", True) else "sigma_min"
    times = DDIMScheduler.from_config(config)
    times.set_timesteps(steps)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(config, final_sigmas_type=end)
    return [int(time) for time in times.timesteps]


def assert_same(one: Image.Image, other: Image.Image, most: int = 3) -> None:
    difference = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))
    assert difference.max() <= most, f"up to {difference.max()} of 255 apart, {difference.mean():.2f} on average"
