"""The formulas of training against what their papers say of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.bases.schedule import Diffusion
from engine.learning.objectives import average, ema_decay, face_weights, min_snr_weights, offset_noise
from engine.learning.objectives import weighted_errors as errors

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_signal_to_noise_falls_over_the_schedule_and_is_alpha_over_sigma_squared() -> None:
    timestep = torch.tensor([0, 10, 500, 999])
    schedule = Diffusion(BETAS)
    snr = schedule.signal_to_noise(timestep)
    assert (snr.diff() < 0).all()
    clean, noise = torch.full((4, 1, 1, 1), 2.0), torch.full((4, 1, 1, 1), 3.0)
    noisy = (
        schedule.noisy(clean, torch.zeros_like(noise), timestep),
        schedule.noisy(torch.zeros_like(clean), noise, timestep),
    )
    assert torch.allclose(snr, ((noisy[0] / 2) ** 2 / (noisy[1] / 3) ** 2).flatten(), rtol=1e-3)


@given(st.floats(0.001, 1000), st.floats(0.5, 20))
def test_min_snr_never_weighs_up_and_leaves_noisy_steps_alone(snr: float, gamma: float) -> None:
    weight = float(min_snr_weights(torch.tensor([snr]), gamma, "epsilon"))
    assert weight == pytest.approx(min(snr, gamma) / snr, rel=1e-5)
    assert weight <= 1 + 1e-6
    velocity = float(min_snr_weights(torch.tensor([snr]), gamma, "v_prediction"))
    assert velocity == pytest.approx(min(snr, gamma) / (snr + 1), rel=1e-5)


def test_the_velocity_target_and_the_noise_give_back_the_clean_latent() -> None:
    schedule = Diffusion(BETAS | {"prediction_type": "v_prediction"})
    clean, noise, timestep = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([1, 400, 900])
    noisy, velocity = schedule.noisy(clean, noise, timestep), schedule.target(clean, noise, timestep)
    alpha, sigma = schedule.levels(timestep)
    assert torch.allclose(alpha * noisy - sigma * velocity, clean, atol=1e-5)
    assert torch.equal(Diffusion(BETAS).target(clean, noise, timestep), noise)


def test_offset_noise_moves_the_mean_of_a_channel_and_nothing_else() -> None:
    noise, shifts = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 1, 1)
    moved = offset_noise(noise, shifts, 0.1)
    assert torch.allclose(moved.mean((2, 3)) - noise.mean((2, 3)), 0.1 * shifts[..., 0, 0], atol=1e-6)
    assert torch.allclose(moved.std((2, 3)), noise.std((2, 3)), atol=1e-5)


def test_the_face_counts_more_and_the_picture_as_much_as_before() -> None:
    weights = face_weights(8, 8, (0.25, 0.25, 0.75, 0.75), 4.0)
    assert weights.shape == (1, 8, 8)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[0, 4, 4] / weights[0, 0, 0]) == pytest.approx(4)
    predicted, wanted = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    in_face, outside = predicted.clone(), predicted.clone()
    in_face[..., 4, 4], outside[..., 0, 0] = 1, 1
    assert errors(in_face, wanted, weights[None]) == pytest.approx(4 * float(errors(outside, wanted, weights[None])))
    assert float(errors(torch.ones(1, 2, 8, 8), wanted, weights[None])) == pytest.approx(1)


def test_a_running_mean_follows_quickly_at_first_and_later_at_its_decay() -> None:
    assert ema_decay(0.99, 0) == pytest.approx(0.1)
    assert ema_decay(0.99, 10_000) == 0.99
    mean, weights = [torch.zeros(3)], [torch.ones(3)]
    average(mean, weights, 0.9)
    assert torch.allclose(mean[0], torch.full((3,), 0.1))
