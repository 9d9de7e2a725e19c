"""The diffusion schedule is that of diffusers' DDIMScheduler, whichever of its configurations it is given."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from engine.bases.schedule import Diffusion, Flow

BETAS = {"linear": {}, "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012}, "squaredcos_cap_v2": {}}


@given(
    betas=st.sampled_from(sorted(BETAS)),
    spacing=st.sampled_from(["leading", "trailing", "linspace"]),
    offset=st.sampled_from([0, 1]),
    one=st.booleans(),
    rescaled=st.booleans(),
    prediction=st.sampled_from(["epsilon", "v_prediction"]),
    length=st.sampled_from([100, 1000]),
    steps=st.integers(2, 60),
)
def test_levels_and_steps_are_diffusers(betas, spacing, offset, one, rescaled, prediction, length, steps) -> None:
    config = BETAS[betas] | {
        "beta_schedule": betas, "timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": one,
        "rescale_betas_zero_snr": rescaled, "prediction_type": prediction, "num_train_timesteps": length,
    }  # fmt: skip
    theirs, ours = DDIMScheduler(**config), Diffusion(config)
    theirs.set_timesteps(steps)
    products = theirs.alphas_cumprod
    alpha, sigma = ours.levels(torch.arange(length))
    torch.testing.assert_close(alpha.flatten() ** 2, products, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sigma.flatten() ** 2, 1 - products, rtol=1e-4, atol=1e-6)
    plan = ours.drawing(steps, 1)
    assert [step.timestep for step in plan] == theirs.timesteps.tolist()
    # DDIMScheduler ends a step `length // steps` timesteps later, which is beside the next step's beginning where the
    # steps do not divide the timesteps. Here every step ends where the next begins.
    assert [step.then for step in plan[:-1]] == [step.now for step in plan[1:]]
    assert math.isclose(plan[-1].then[0] ** 2, float(theirs.final_alpha_cumprod), rel_tol=1e-4, abs_tol=1e-6)
    assert ours.prediction == prediction


SDXL = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "timestep_spacing": "leading", "set_alpha_to_one": False,
}  # fmt: skip
"""As published with stabilityai/stable-diffusion-xl-base-1.0, whose class is EulerDiscreteScheduler."""


@pytest.mark.parametrize(
    ("config", "end"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, 0.0),
        ({"_class_name": "DPMSolverMultistepScheduler"}, 0.0),
        ({"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "sigma_min"}, 0.0291),
        ({"_class_name": "PNDMScheduler"}, 0.0291),
        ({"_class_name": "PNDMScheduler", "set_alpha_to_one": True}, 0.0),
    ],
)
def test_a_drawing_ends_at_the_noise_level_of_the_configurations_class(config, end) -> None:
    """SDXL's file holds `set_alpha_to_one: false`, which its class does not read: pictures must not end noisy."""
    last = Diffusion(SDXL | config).drawing(30, 1)[-1]
    assert math.isclose(last.then[1], end, abs_tol=1e-4)


def test_sdxl_draws_along_the_noise_levels_of_its_published_scheduler() -> None:
    theirs = EulerDiscreteScheduler.from_config(SDXL)
    theirs.set_timesteps(30)
    plan = Diffusion({**theirs.config, "_class_name": type(theirs).__name__}).drawing(30, 1)
    sigmas = [sigma / alpha for alpha, sigma in (*(step.now for step in plan), plan[-1].then)]
    torch.testing.assert_close(torch.tensor(sigmas), theirs.sigmas, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config", [{"use_dynamic_shifting": True, "shift": 3.0}, {"shift": 3.0}, {"shift": 6.0}, {"shift": 1.0}]
)
def test_flows_are_learned_at_the_noise_levels_of_diffusers_scripts(config) -> None:
    """train_dreambooth_lora_flux2_klein.py takes one of the scheduler's 1,000 timesteps, all equally often."""
    theirs = FlowMatchEulerDiscreteScheduler(**config).timesteps  # from noise to picture
    ours = Flow(config).timesteps((torch.arange(1000) + 0.999) / 1000)
    torch.testing.assert_close(ours.flip(0), theirs, rtol=0, atol=1.5)
    assert (
        0.09 < float((Flow({"use_dynamic_shifting": True}).timesteps(torch.rand(20_000)) > 900).float().mean()) < 0.11
    )


def test_defaults_and_betas_of_ones_own_are_diffusers() -> None:
    torch.testing.assert_close(Diffusion({})._products, DDIMScheduler().alphas_cumprod)
    own = {"trained_betas": [0.1, 0.2, 0.3]}
    torch.testing.assert_close(Diffusion(own)._products, DDIMScheduler(**own).alphas_cumprod)


@pytest.mark.parametrize(
    "config", [{"beta_schedule": "sigmoid"}, {"timestep_spacing": "karras"}, {"prediction_type": "sample"}]
)
def test_what_is_not_known_is_refused(config) -> None:
    with pytest.raises(ValueError, match="a scheduler"):
        Diffusion(config)
