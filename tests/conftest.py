"""A randomly initialised Stable Diffusion of the real classes, small enough to train within seconds."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import settings
from PIL import Image, ImageDraw
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.bases.base import BaseModel

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def tiny_pipeline(words: Path, prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """SD 1.x in miniature: 4 latent channels, epsilon prediction, attention at two resolutions."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, norm_num_groups=8,
        attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None, None, requires_safety_checker=False
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from engine.toon import WEIGHTS

    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(WEIGHTS / "tokenizer").save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> BaseModel:
    """A fresh tiny base: training attaches adapters to it."""
    return BaseModel.load(str(tiny_folder), torch.device("cpu"))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Five small pictures that differ."""
    album = []
    for number in range(5):
        picture = Image.new("RGB", (72, 64), (200, 40 * number, 90))
        ImageDraw.Draw(picture).ellipse((10 + number, 10, 50, 50), fill=(30, 160, 40 * number))
        album.append(picture)
    return album
