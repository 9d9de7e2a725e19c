"""Noise schedules: how much picture and how much noise is in a latent at each timestep.

All families mix z_t = alpha_t x + sigma_t n, with x the clean latents and n the noise. They differ in alpha and sigma,
and in what the denoiser predicts: the noise (arXiv 2006.11239), the velocity alpha n - sigma x (arXiv 2202.00512), or
the flow n - x (arXiv 2210.02747). Each prediction gives an estimate of both x and n. With these, DDIM's step (arXiv
2010.02502, eq. 12 without noise) and Euler's step along a flow are one formula, and DPM-Solver++'s step is that formula
with a better estimate of x (`Solver`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Level = tuple[float, float]
"""alpha and sigma."""

CLEAN: Level = (1.0, 0.0)
"""The level without noise."""

SOLVER_STEPS = 50
"""Steps of the ODE solver that a few-step adapter learns to skip (LCM: arXiv 2310.04378, section 4.3)."""


@dataclass(frozen=True)
class Step:
    """One denoising step: from the level at a timestep to the next level."""

    timestep: float
    now: Level
    then: Level


class NoiseSchedule(ABC):
    """Timesteps and noise levels of training and drawing."""

    prediction: str
    """What the denoiser predicts: epsilon, v_prediction or flow."""

    @abstractmethod
    def timesteps(self, spread: Tensor) -> Tensor:
        """Training timesteps for uniform numbers in [0, 1), of the same shape."""

    @abstractmethod
    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, each float32 (n, 1, 1, 1), at these timesteps (n,)."""

    @abstractmethod
    def drawing(self, steps: int, tokens: int) -> list[Step]:
        """The steps of a drawing whose latents have `tokens` positions."""

    @abstractmethod
    def solver_steps(self, tokens: int) -> list[Step]:
        """The `SOLVER_STEPS` steps from noise to picture, of which few-step drawing takes some."""

    def few_step(self, steps: int, tokens: int) -> list[Step]:
        """Few steps, spread over `solver_steps`. Each ends at the level of the next one, the last at `CLEAN`."""
        grid = self.solver_steps(tokens)
        chosen = [grid[number * len(grid) // steps] for number in range(min(steps, len(grid)))]
        ends = [*(step.now for step in chosen[1:]), CLEAN]
        return [Step(step.timestep, step.now, end) for step, end in zip(chosen, ends, strict=True)]

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t = alpha_t x + sigma_t n, all of shape (n, c, h, w), at timesteps (n,)."""
        alpha, sigma = self.levels(timestep)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The target of the denoiser's prediction for `noisy`: a new tensor (n, c, h, w)."""
        if self.prediction == "epsilon":
            return noise.clone()
        alpha, sigma = self.levels(timestep)
        return alpha * noise - sigma * clean if self.prediction == "v_prediction" else noise - clean

    def signal_to_noise(self, timestep: Tensor) -> Tensor:
        """(alpha / sigma)^2, float32 (n,)."""
        alpha, sigma = self.levels(timestep)
        return ((alpha / sigma.clamp_min(1e-8)) ** 2).flatten()

    def estimates(
        self, predicted: Tensor, noisy: Tensor, alpha: float | Tensor, sigma: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates of the clean latents and of the noise in `noisy`, from the prediction; each (n, c, h, w)."""
        if self.prediction == "epsilon":
            return (noisy - sigma * predicted) / alpha, predicted
        if self.prediction == "v_prediction":
            return alpha * noisy - sigma * predicted, sigma * noisy + alpha * predicted
        return noisy - sigma * predicted, noisy + (1 - sigma) * predicted


class Solver:
    """Takes the denoising steps of one drawing.

    Along a flow they are Euler's. In a diffusion, the clean latents are extrapolated from the estimates of this step
    and the one before: DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2). With it, 25 steps of the embedded base were as
    crisp as 100 of DDIM. The first and the last step are DDIM's, as in diffusers' DPMSolverMultistepScheduler.
    """

    def __init__(self, schedule: NoiseSchedule, plan: Sequence[Step]) -> None:
        self._schedule, self._last = schedule, plan[-1]
        self._before: tuple[Tensor, float] | None = None

    def step(self, predicted: Tensor, noisy: Tensor, step: Step) -> Tensor:
        """Latents (n, c, h, w) at the step's end, from the denoiser's prediction for `noisy`, those at its start."""
        (alpha, sigma), (alpha_then, sigma_then) = step.now, step.then
        clean, noise = self._schedule.estimates(predicted, noisy, alpha, sigma)
        if self._schedule.prediction != "flow":
            log_snr = _log_ratio(step.now)
            before, self._before = self._before, (clean, log_snr)
            if before and step is not self._last:
                earlier_clean, earlier = before
                growth = (_log_ratio(step.then) - log_snr) / (2 * (log_snr - earlier))
                clean = clean + growth * (clean - earlier_clean)
                noise = (noisy - alpha * clean) / sigma
        return alpha_then * clean + sigma_then * noise


def _log_ratio(level: Level) -> float:
    """log(alpha / sigma), half the log of the signal-to-noise ratio; minus infinity for pure noise."""
    alpha, sigma = level
    return math.log(alpha / sigma) if alpha else -math.inf


class Diffusion(NoiseSchedule):
    """Stable Diffusion's discrete schedule."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """From the configuration of a scheduler of diffusers, read as DDIMScheduler reads it.

        Raises:
            ValueError: betas, spacing or prediction type are not supported.
        """
        self.prediction = config.get("prediction_type", "epsilon")
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"a scheduler that predicts {self.prediction}")
        self._spacing, self._offset = config.get("timestep_spacing", "leading"), int(config.get("steps_offset", 0))
        if self._spacing not in ("leading", "trailing", "linspace"):
            raise ValueError(f"a scheduler with {self._spacing} timesteps")
        self._products = products_of(config)
        self._length = len(self._products)
        self._end = _level_of(1.0 if _ends_clean(config) else float(self._products[0]))

    def timesteps(self, spread: Tensor) -> Tensor:
        return (spread * self._length).long().clamp_max(self._length - 1)

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        product = self._products.to(timestep.device)[timestep].reshape(-1, 1, 1, 1)
        return product.sqrt(), (1 - product).sqrt()

    def drawing(self, steps: int, tokens: int) -> list[Step]:
        times = self._spaced(steps)
        levels = [self._level(time) for time in times]
        # Each step ends where the next begins, also where the steps do not divide the timesteps.
        return [Step(time, now, then) for time, now, then in zip(times, levels, [*levels[1:], self._end], strict=True)]

    def _spaced(self, steps: int) -> list[int]:
        """The timesteps of a drawing, from noise to picture (arXiv 2305.08891, table 2)."""
        if self._spacing == "linspace":
            times = np.linspace(0, self._length - 1, steps).round()[::-1]
        elif self._spacing == "leading":
            times = np.arange(steps, dtype=float)[::-1] * (self._length // steps) + self._offset
        else:
            times = np.round(np.arange(self._length, 0, -self._length / steps)) - 1
        return [int(time) for time in times]

    def solver_steps(self, tokens: int) -> list[Step]:
        jump = self._length // SOLVER_STEPS
        times = range(SOLVER_STEPS * jump - 1, 0, -jump)
        return [Step(time, self._level(time), self._level(max(0, time - jump))) for time in times]

    def _level(self, timestep: int) -> Level:
        return _level_of(float(self._products[timestep]))


def _level_of(product: float) -> Level:
    """alpha and sigma for alpha^2."""
    return product**0.5, (1 - product) ** 0.5


ENDS_AT_FIRST_TIMESTEP = ("DDIMScheduler", "PNDMScheduler")
"""Schedulers of diffusers that end a drawing at timestep 0 where `set_alpha_to_one` is false. Their configuration files
are also published with other classes, which do not read that key: SDXL's names EulerDiscreteScheduler."""


def _ends_clean(config: Mapping[str, Any]) -> bool:
    """Whether a drawing ends without noise, as the scheduler of the configuration's class would end it."""
    if config.get("_class_name", "DDIMScheduler") in ENDS_AT_FIRST_TIMESTEP:
        return bool(config.get("set_alpha_to_one", True))
    return bool(config.get("final_sigmas_type", "zero") == "zero")


def products_of(config: Mapping[str, Any]) -> Tensor:
    """alpha^2 at each timestep, float32 (timesteps,), from a scheduler's configuration (arXiv 2006.11239, section 2).

    Raises:
        ValueError: betas of a kind that is not supported.
    """
    count, kind = int(config.get("num_train_timesteps", 1000)), config.get("beta_schedule", "linear")
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if (own := config.get("trained_betas")) is not None:
        betas = torch.tensor(own, dtype=torch.float32)
    elif kind == "linear":
        betas = torch.linspace(start, end, count)
    elif kind == "scaled_linear":  # Stable Diffusion's
        betas = torch.linspace(start**0.5, end**0.5, count) ** 2
    elif kind == "squaredcos_cap_v2":  # arXiv 2102.09672, eq. 17
        past = [math.cos((number / count + 0.008) / 1.008 * math.pi / 2) ** 2 for number in range(count + 1)]
        betas = torch.tensor([min(1 - then / now, 0.999) for now, then in pairwise(past)], dtype=torch.float32)
    else:
        raise ValueError(f"a scheduler with {kind} betas")
    products = (1 - betas).cumprod(0)
    if config.get("rescale_betas_zero_snr"):  # arXiv 2305.08891, algorithm 1
        alphas = products.sqrt()
        first, last = float(alphas[0]), float(alphas[-1])
        products = ((alphas - last) * first / (first - last)) ** 2
    return products


class Flow(NoiseSchedule):
    """A straight path from noise to picture: sigma falls from 1 to 0, alpha is 1 - sigma, the timestep 1000 sigma."""

    prediction = "flow"

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler  # seconds to import, and only flows need it

        self._scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)

    def timesteps(self, spread: Tensor) -> Tensor:
        """Uniform over sigma, from 0.001 to 1, and shifted as the scheduler shifts every drawing.

        This is what diffusers' train_dreambooth_lora_flux2_klein.py and ai-toolkit do. A shift that depends on the
        picture's size is left out, as there. Logit-normal (arXiv 2403.03206, section 3.1) gave sigmas above 0.9 to one
        step in seventy, where drawing at 1024 pixels spends half of its steps.
        """
        sigma, config = spread.clamp_min(0.001), self._scheduler.config
        if not config.use_dynamic_shifting:
            sigma = config.shift * sigma / (1 + (config.shift - 1) * sigma)
        return 1000 * sigma

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        sigma = (timestep.float() / 1000).reshape(-1, 1, 1, 1)
        return 1 - sigma, sigma

    def drawing(self, steps: int, tokens: int) -> list[Step]:
        sigmas = self._sigmas(steps, tokens)
        return [Step(1000 * sigma, (1 - sigma, sigma), (1 - after, after)) for sigma, after in pairwise(sigmas)]

    def solver_steps(self, tokens: int) -> list[Step]:
        return self.drawing(SOLVER_STEPS, tokens)

    def _sigmas(self, steps: int, tokens: int) -> Sequence[float]:
        shift = {"mu": flux2_shift(tokens, steps)} if self._scheduler.config.use_dynamic_shifting else {}
        self._scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), **shift)
        return self._scheduler.sigmas.tolist()  # type: ignore[no-any-return]


def flux2_shift(tokens: int, steps: int) -> float:
    """FLUX.2's shift of the timesteps towards noise.

    It is linear in the tokens at 10 and at 200 steps, and linear in the steps between those (black-forest-labs/flux2,
    sampling.py, and diffusers' pipeline_flux2_klein.py).
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190
    return slope * steps + at_200 - 200 * slope
