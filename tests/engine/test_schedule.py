"""The diffusion schedule is that of diffusers' DDIMScheduler, whichever of its configurations it is given."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from engine.bases.schedule import Diffusion

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
    last = plan[-1].timestep - length // steps
    end = products[last] if last >= 0 else theirs.final_alpha_cumprod
    assert math.isclose(plan[-1].then[0] ** 2, float(end), rel_tol=1e-4, abs_tol=1e-6)
    assert ours.prediction == prediction


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
