#!/bin/bash
# diffusers 0.42.1, DDIMScheduler: a step ends `num_train_timesteps // num_inference_steps` timesteps after it begins,
# whatever the next timestep is. Where the steps do not divide the timesteps, or with "linspace" spacing, it ends at
# another noise level than the one at which the next step begins: with 7 "linspace" steps the noise's standard deviation
# is beside by up to 0.12 in the schedule of Stable Diffusion, in the file of a scheduler that is otherwise in order.
# DPMSolverMultistepScheduler, from the same configuration, walks from one level to the next without a gap.
#
# Expected: each step ends where the next begins, in both.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy==2.3.4
"$folder/venv/bin/python" - 2>"$folder/errors" <<'PYTHON' || { cat "$folder/errors" >&2; exit 1; }
import diffusers
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}




def gap(steps, spacing):
    """The largest difference in sigma between a step's end and the next step's beginning, by what `step` returns."""
    scheduler = DDIMScheduler(**CONFIG, timestep_spacing=spacing, clip_sample=False)
    scheduler.set_timesteps(steps)
    sigmas = (1 - scheduler.alphas_cumprod.double()) ** 0.5
    worst = 0.0
    for now, then in zip(scheduler.timesteps, scheduler.timesteps[1:]):
        # The clean picture is 0 and the predicted noise is 1, so what `step` returns is the sigma at which it ends.
        noisy = torch.full((1,), float(sigmas[now]), dtype=torch.float64)
        end = float(scheduler.step(torch.ones(1, dtype=torch.float64), now, noisy).prev_sample)
        worst = max(worst, abs(end - float(sigmas[then])))
    return worst


found = {(steps, spacing): gap(steps, spacing) for steps, spacing in
         ((25, "trailing"), (7, "trailing"), (25, "linspace"), (7, "linspace"), (25, "leading"))}
for (steps, spacing), value in found.items():
    print(f"diffusers {diffusers.__version__} DDIMScheduler, {steps} steps, {spacing}: {value:.3f}")
assert found[25, "trailing"] < 1e-6 and found[25, "leading"] < 1e-6  # 25 divides 1,000
assert found[7, "linspace"] > 0.05 and found[25, "linspace"] > 0.01, "changed: the steps meet"
solver = DPMSolverMultistepScheduler(**CONFIG, timestep_spacing="linspace", algorithm_type="dpmsolver++")
solver.set_timesteps(7)
assert len(solver.sigmas) == len(solver.timesteps) + 1  # a chain of levels
PYTHON
echo "as described"
