"""The procedural world and what the embedded base has learned of it."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.upsampling import Upsample2D
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.adapters import Attached
from engine.bases.base import BaseModel
from engine.drawing.denoising import noise
from engine.drawing.drawing import Drawing, draw
from engine.measuring.evaluation import people
from engine.measuring.scoring import PromptScore
from engine.pretraining.unet import upsample_by_repeating
from engine.toon import WEIGHTS, captions
from engine.toon.captions import NOUNS, caption, describe_person, instance_caption
from engine.toon.judge import Judge
from engine.toon.world import COLOURS, Scene, album, render, sample_look, sample_person, sample_scene
from tests.engine.tiny import together


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_pre_training_never_shows_a_held_out_person(seed: int) -> None:
    assert not sample_scene(Random(seed)).person.held_out
    assert sample_person(Random(seed), held_out=True).held_out


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_caption_is_short_lower_case_and_names_somebody(seed: int) -> None:
    random = Random(seed)
    text = caption(sample_scene(random), random)
    assert text == text.lower().strip() and len(text) < 400
    assert set(text.replace(",", " ").split()) & {noun for nouns in NOUNS.values() for noun in nouns}


@given(st.integers(0, 2**32), st.integers(0, 4))
def test_a_caption_has_at_least_the_requested_number_of_phrases(seed: int, least: int) -> None:
    random = Random(seed)
    scene = sample_scene(random)
    assert len(caption(scene, random, least).split()) > least


@given(st.integers(0, 2**32))
def test_an_instance_caption_names_all_unusual_attributes_and_none_of_identity(seed: int) -> None:
    random = Random(seed)
    scene = sample_scene(random)
    text, look = instance_caption("cr7d man", scene.look, random), scene.look
    assert "cr7d man" in text
    told = [captions.CLOTHES[look.clothes]]
    told += [captions.GLASSES[look.glasses]] if look.glasses != "none" else []
    told += [captions.EYES[look.eyes]] if look.eyes != "open" and look.glasses != "sunglasses" else []
    told += [captions.MOUTHS[look.mouth]] if look.mouth != "neutral" else []
    assert all(any(words in text for words in wordings) for wordings in told)
    person = [captions.HAIR_STYLES, captions.FACIAL_HAIRS]
    assert not [words for known in person for wordings in known.values() for words in wordings if words in text]
    assert "skin" not in text and "-haired" not in text


@given(st.integers(0, 2**32))
def test_a_description_names_hair_skin_and_beard(seed: int) -> None:
    person = sample_person(Random(seed), held_out=True)
    text = describe_person(person)
    assert (
        captions.HAIR_COLOURS[person.hair_colour][0] in text
        and captions.HAIR_STYLES[person.hair_style][0].split()[-1] in text
    )
    assert f"{captions.SKINS[person.skin][0]} skin" in text and text.startswith(person.noun)
    assert (person.facial_hair != "none") == any(word in text for word in ("beard", "moustache"))


@pytest.mark.learning
def test_the_judge_finds_the_look_in_an_albums_pictures() -> None:
    judge, scenes = Judge.load(), album(sample_person(Random(3), held_out=True), 40, seed=3)
    seen = [judge.look(render(scene)) for scene in scenes]
    sure = [(look, scene.look) for (look, likely), scene in zip(seen, scenes, strict=True) if likely > 0.5]
    assert len(sure) > 0.8 * len(scenes)
    assert (
        np.mean([look.clothes == truth.clothes and look.background == truth.background for look, truth in sure]) > 0.9
    )
    assert np.mean([look.mouth == truth.mouth for look, truth in sure]) > 0.7


def test_what_stands_in_for_upsampling_while_compiled_is_the_same() -> None:
    layer, states = Upsample2D(8, use_conv=True), torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(upsample_by_repeating(layer, states), layer(states), atol=1e-6)


def test_a_scene_is_always_drawn_alike() -> None:
    scene = sample_scene(Random(5))
    assert render(scene).tobytes() == render(scene).tobytes()


@pytest.mark.learning
def test_the_small_clip_finds_the_caption_among_others() -> None:
    """Out of 100, of people whom it never saw; a caption tells three things at least."""
    random = Random("captions")
    scenes = [Scene(person, sample_look(random), random.getrandbits(32)) for person in people(100, seed=11)]
    scores = PromptScore()([render(scene) for scene in scenes], [caption(scene, random, 3) for scene in scenes])
    assert np.mean(scores.argmax(axis=1) == np.arange(100)) >= 0.9


@pytest.mark.learning
def test_plain_diffusers_loads_and_draws_with_the_embedded_base() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a photo of a man, red background", "a photo of a man, blue background"]
    drawn = pipeline(
        prompts, num_inference_steps=15, guidance_scale=4.0, generator=torch.Generator().manual_seed(1)
    ).images
    assert [picture.size for picture in drawn] == [(128, 128)] * 2
    red, blue = (np.asarray(picture)[:12, :12].mean(axis=(0, 1)) for picture in drawn)
    assert red[0] > red[2] and blue[2] > blue[0]


@pytest.mark.learning
def test_plain_diffusers_draws_our_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device: torch.float32)
    base = BaseModel.load()
    asked = Drawing("a woman with a bun, blue background", seed=3, steps=12, guidance=4.0)
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(asked.prompt, num_inference_steps=12, guidance_scale=4.0,
                      latents=noise([3], base.latent_shape(128, 128))).images[0]  # fmt: skip
    ours = draw(base, Attached(base), asked)[0].image
    assert np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).max() <= 3


@pytest.mark.learning
def test_backgrounds_follow_the_prompt() -> None:
    """The corner's colour is nearest to the one asked for, out of fifteen, in at least half of the pictures."""
    base = BaseModel.load()
    attached, right = Attached(base), []
    palette = {name: np.array([int(value[i : i + 2], 16) for i in (1, 3, 5)]) for name, value in COLOURS.items()}
    for number, asked in enumerate(("red", "blue", "green", "yellow", "purple", "orange", "white", "black", "pink")):
        drawing = Drawing(f"a photo of a woman, {asked} background", seed=number, steps=15)
        corner = np.asarray(draw(base, attached, drawing)[0].image)[:10, :10].mean(axis=(0, 1))
        right.append(min(palette, key=lambda name: float(np.linalg.norm(palette[name] - corner))) == asked)
    assert np.mean(right) >= 0.5


@pytest.mark.learning
def test_four_steps_end_nearly_where_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    base = BaseModel.load()
    random = Random("four steps")
    asked = [Drawing(caption(sample_scene(random), random), seed=seed) for seed in range(6)]

    def distance(attached: Attached, steps: int) -> float:
        """Of the pictures, mean square, from those of the usual number of steps."""
        few = together(base, attached, [replace(one, steps=steps) for one in asked])
        pairs = zip(few, together(base, attached, asked), strict=True)
        return float(np.mean([(np.asarray(a[0].image, float) - np.asarray(b[0].image, float)) ** 2 for a, b in pairs]))

    with_adapter = distance(Attached(base), 4)
    monkeypatch.setattr(base, "family", replace(base.family, few_step_adapter=None))
    assert with_adapter < 0.5 * distance(Attached(base), 4)


def test_all_weights_together_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) <= 40_000_000
