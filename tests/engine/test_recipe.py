from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bases.families import FAMILIES, KLEIN, KLEIN_DISTILLED, SD1, SD2, SDXL, TOON, family_of
from engine.recipe import ATTENTION, RANGES, choose, style
from engine.sentences import sentence
from storage.errors import UserError


@given(photos=st.integers(5, 20))
def test_the_seeds_rule_holds_for_full_dreambooth_of_sd1(photos: int) -> None:
    recipe = choose(photos, "dreambooth", SD1)
    assert 50 * photos <= recipe.steps <= 100 * photos
    assert recipe.learning_rate == 2e-6


@given(photos=st.integers(1, 500), family=st.sampled_from(FAMILIES), method=st.sampled_from(("lora", "dreambooth")))
def test_more_photos_never_mean_fewer_steps_and_every_value_is_in_range(photos, family, method) -> None:
    recipe, larger = choose(photos, method, family), choose(photos + 1, method, family)
    assert recipe.steps <= larger.steps
    for name, (low, high) in RANGES.items():
        assert low <= getattr(recipe, name) <= high


@given(steps=st.integers(1, 20_000), rank=st.integers(1, 256))
def test_every_value_can_be_overridden(steps: int, rank: int) -> None:
    recipe = choose(8, "lora", TOON, steps=steps, rank=rank, batch=None)
    assert (recipe.steps, recipe.rank) == (steps, rank)
    assert recipe.batch == TOON.recipes["lora"][1].batch


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("steps", 20_001), ("rank", 257), ("learning_rate", 0.2)])
def test_one_beyond_a_limit_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError) as refused:
        choose(8, "lora", SD1, **{name: value})
    assert refused.value.code == "out_of_range"
    assert str(value) in sentence(refused.value)


def test_the_family_follows_from_the_denoisers_configuration() -> None:
    assert family_of(SimpleNamespace(in_channels=16, cross_attention_dim=192)) is TOON
    assert family_of(SimpleNamespace(in_channels=4, cross_attention_dim=768)) is SD1
    assert family_of(SimpleNamespace(in_channels=4, cross_attention_dim=1024, use_linear_projection=True)) is SD2
    assert family_of(SimpleNamespace(in_channels=4, cross_attention_dim=2048, addition_embed_type="text_time")) is SDXL
    klein = SimpleNamespace(_class_name="Flux2Transformer2DModel", in_channels=128, guidance_embeds=False)
    assert family_of(klein) is KLEIN
    assert family_of(klein, {"is_distilled": True}) is KLEIN_DISTILLED


@pytest.mark.parametrize(
    "config",
    [
        {"in_channels": 9, "cross_attention_dim": 768},  # inpainting
        {"in_channels": 4, "cross_attention_dim": 768, "addition_embed_type": "image"},
        {"_class_name": "Flux2Transformer2DModel", "guidance_embeds": True},
        {"_class_name": "LuminaNextDiT2DModel"},
    ],
)
def test_other_families_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no family"):
        family_of(SimpleNamespace(**config))


def test_the_seeds_run_is_the_seeds_parameters() -> None:
    recipe = choose(8, "dreambooth", SD1, "seed")
    assert recipe.prompts == ("a photo of {instance}",) and recipe.prior_prompts == ("a photo of {noun}",)
    assert (recipe.method, recipe.side, recipe.batch, recipe.accumulation) == ("dreambooth", 512, 1, 1)
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup, recipe.steps) == (2e-6, "constant", 0, 350)
    assert not recipe.text_encoder and recipe.prior_target == "noise"
    assert choose(8, "dreambooth", SD1, "seed", steps_per_photo=50).steps == 400


def test_a_style_has_the_defaults_of_the_script_for_text_to_image() -> None:
    recipe = style(833, SD1)
    assert (recipe.rank, recipe.learning_rate, recipe.batch, recipe.schedule) == (4, 1e-4, 16, "constant")
    assert recipe.steps == 100 * 53 and recipe.captions and not recipe.flip and not recipe.prior_batch
    assert style(10, SD1, steps=7, batch=2).steps == 7


def test_a_style_adapts_attention_alone_unless_the_family_says_otherwise() -> None:
    assert style(10, SD1).targets == ATTENTION
    assert style(10, TOON).targets is None
    assert style(10, TOON, targets=("to_q",)).targets == ("to_q",)


def test_what_follows_from_an_override_follows() -> None:
    assert choose(8, "lora", SD1, rank=8).alpha == 8
    assert choose(8, "lora", SD1, prior_weight=0.0).prior_batch == 0
    preserved = choose(8, "lora", SD1, "reference", prior_weight=1.0, batch=3)
    assert (preserved.prior_weight, preserved.prior_batch) == (1.0, 3)
    assert choose(8, "lora", SD1, "reference").prior_batch == 0
    assert choose(8, "dreambooth", SD1, "seed", prior_weight=0.5, batch=2).prior_batch == 1
    assert choose(8, "lora", SD1, optimiser="prodigy").learning_rate == 1.0
    assert choose(8, "lora", SD1, optimiser="prodigy", learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(UserError, match="lora_only"):
        choose(8, "dreambooth", SD1, pivotal=True)
    assert choose(8, "lora", SD1, adapter="lokr", factor=4).factor == 4
    for change, code in (
        ({"adapter": "lokr", "dora": True}, "not_for_lokr"),
        ({"adapter": "lokr", "rslora": True}, "not_for_lokr"),
        ({"factor": 4}, "factor_is_lokr"),
        ({"adapter": "lokr", "factor": 1}, "out_of_range"),
    ):
        with pytest.raises(UserError, match=code) as refused:
            choose(8, "lora", SD1, **change)
        assert sentence(refused.value)
    with pytest.raises(UserError, match="lora_only"):
        choose(8, "dreambooth", SD1, adapter="lokr")
    assert choose(8, "lora", SD1, prior_album=3).prior_album == 3
    with pytest.raises(UserError, match="prior_album_at_noise"):
        choose(8, "dreambooth", SD1, "seed", prior_album=3)
