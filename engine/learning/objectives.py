"""The formulas of training: how noise is drawn, how rows are weighed, how weights are averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.device.torch_private import foreach


def min_snr_weights(snr: Tensor, gamma: float, prediction: str) -> Tensor:
    """Weights (n,) of the rows' errors: min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity (arXiv 2303.09556,
    section 3.4)."""
    return snr.clamp(max=gamma) / (snr + 1 if prediction == "v_prediction" else snr)


def offset_noise(noise: Tensor, shifts: Tensor, scale: float) -> Tensor:
    """Noise (n, c, h, w) with a shift (n, c, 1, 1) of its channels, so that the picture's mean is learned too
    (crosslabs.org/blog/diffusion-with-offset-noise)."""
    return noise + scale * shifts


def weighted_errors(predicted: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean squared error of each row, (n,). `weights` (n, 1, h, w) has mean 1 over each row's pixels."""
    squared = (predicted.float() - wanted.float()) ** 2
    return (squared if weights is None else squared * weights).mean(dim=(1, 2, 3))


def face_weights(height: int, width: int, box: Sequence[float], weight: float) -> Tensor:
    """Weights (1, h, w) with mean 1: `weight` times as much within `box` (left, top, right, bottom, as shares 0..1)."""
    rows, columns = (torch.arange(count) + 0.5 for count in (height, width))
    left, top, right, bottom = box
    inside = ((rows >= top * height) & (rows <= bottom * height))[:, None] & (
        (columns >= left * width) & (columns <= right * width)
    )
    weights = torch.where(inside, weight, 1.0)[None]
    return weights / weights.mean()


def ema_decay(decay: float, step: int) -> float:
    """The decay at `step`, from 0: young means follow quickly (diffusers' training_utils.py EMAModel: (1+n)/(10+n))."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def average(mean: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """mean <- decay * mean + (1 - decay) * weights, in place."""
    foreach("lerp_", mean, [weight.detach() for weight in weights], 1 - decay)
