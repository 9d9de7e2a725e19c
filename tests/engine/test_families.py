"""Every family, on a small model of its real classes: what differs is right, and all else works the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.adapters.adapters import FILE, Attached
from engine.bases.base import plain_parameters
from engine.drawing.drawing import draw
from storage.errors import UserError
from tests.engine import tiny
from tests.engine.learning import learn
from tests.engine.tiny import LORA, asked, assert_same, load, plainly

FAMILIES = tuple(tiny.FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawing_is_what_plain_diffusers_draws(folders, family: str, exact) -> None:
    base = load(folders(family))
    assert base.family.name == family and base.side == tiny.SIDE
    assert_same(draw(base, Attached(base), asked())[0].image, plainly(folders(family), family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_person_is_learned_and_plain_diffusers_draws_the_same_person(
    folders, family: str, pictures, tmp_path: Path, exact
) -> None:
    base = load(folders(family))
    pointers = {name: tensor.data_ptr() for name, tensor in plain_parameters(base.unet)}
    before = draw(base, Attached(base), asked())[0].image
    recipe = replace(LORA, text_encoder=bool(base.family.text_targets))
    trained = learn(base, pictures, recipe, tmp_path / FILE, side=tiny.SIDE)
    assert trained.steps == 4
    after = draw(base, Attached(base), asked(tmp_path))[0].image
    assert after.tobytes() != before.tobytes()
    assert_same(after, plainly(folders(family), family, tmp_path / FILE))
    assert {name: tensor.data_ptr() for name, tensor in plain_parameters(base.unet)} == pointers


@pytest.mark.parametrize("family", FAMILIES)
def test_what_training_targets_leads_back_to_the_picture(folders, family: str) -> None:
    """A denoiser that answered with the target itself would draw the clean picture in one step."""
    schedule = load(folders(family)).schedule
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=random)
    timestep = schedule.timesteps(torch.tensor([0.1, 0.5, 0.9]))
    noisy, target = schedule.noisy(clean, noise, timestep), schedule.target(clean, noise, timestep)
    found, rest = schedule.estimates(target, noisy, *schedule.levels(timestep))
    assert torch.allclose(found, clean, atol=1e-3) and torch.allclose(rest, noise, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_autoencoders_latents_come_back(folders, family: str, pictures) -> None:
    base = load(folders(family))
    mean, deviation = base.encode_pictures([picture.resize((tiny.SIDE, tiny.SIDE)) for picture in pictures[:2]])
    assert mean.shape == deviation.shape == (2, *base.latent_shape(tiny.SIDE, tiny.SIDE))
    posterior = base.vae.encode(torch.zeros(1, 3, tiny.SIDE, tiny.SIDE)).latent_dist
    there = base.family.to_latents(base.vae, posterior.mean, posterior.std)[0]
    assert torch.allclose(base.family.from_latents(base.vae, there), posterior.mean, atol=1e-4)


def test_sdxl_hears_silence_for_an_empty_negative_prompt(folders) -> None:
    base = load(folders("sdxl"))
    words = base.encode_negatives(["", "a man"])
    assert not words.prompt_embeds[0].any() and words.prompt_embeds[1].any()
    assert not words.pooled_prompt_embeds[0].any() and words.pooled_prompt_embeds[1].any()


def test_a_part_is_cast_as_it_is_moved_and_the_autoencoder_stays_exact(folders, monkeypatch) -> None:
    moves, move = [], torch.nn.Module.to

    def moved(module: torch.nn.Module, *arguments: object) -> torch.nn.Module:
        moves.append((type(module), arguments))
        return move(module, *arguments)

    monkeypatch.setattr("engine.bases.base.resting_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    base = load(folders("klein"))
    for part, dtype in ((base.vae, torch.float32), (base.unet, torch.bfloat16), (base.text_encoder, torch.bfloat16)):
        assert all(parameter.dtype == dtype for parameter in part.parameters())
        assert [arguments for kind, arguments in moves if kind is type(part)] == [(torch.device("cpu"), dtype)]


def test_a_size_that_the_family_cannot_draw_is_refused(folders) -> None:
    base = load(folders("klein"))
    with pytest.raises(UserError, match="bad_size"):
        base.check_size(66)
