"""The formulas of training: offset noise, weights of rows and pixels in the loss, and the running mean of weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.device.torch_private import foreach


def min_snr_weights(snr: Tensor, gamma: float, prediction: str) -> Tensor:
    """Weights (n,) of the rows' errors for signal-to-noise ratios `snr` (n,) (arXiv 2303.09556, section 3.4).

    min(SNR, gamma) / SNR where noise is predicted, min(SNR, gamma) / (SNR + 1) where velocity is (`v_prediction`).
    """
    return snr.clamp(max=gamma) / (snr + 1 if prediction == "v_prediction" else snr)


def offset_noise(noise: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """Noise (n, c, h, w) whose channels are shifted by `scale` times `offsets` (n, c, 1, 1), so that a picture's mean
    is learned too (crosslabs.org/blog/diffusion-with-offset-noise)."""
    return noise + scale * offsets


def weighted_errors(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean squared error of each row, float32 (n,), of predictions and targets (n, c, h, w).

    Args:
        weights: (n, 1, h, w) with mean 1 over each row's pixels; None for all alike.
    """
    squared = (predicted.float() - targets.float()) ** 2
    return (squared if weights is None else squared * weights).mean(dim=(1, 2, 3))


def face_weights(height: int, width: int, box: Sequence[float], weight: float) -> Tensor:
    """Pixel weights (1, h, w) with mean 1, `weight` times as large inside `box` as outside.

    Args:
        box: (left, top, right, bottom) as shares 0..1 of width and height.
    """
    rows, columns = (torch.arange(count) + 0.5 for count in (height, width))
    left, top, right, bottom = box
    inside = ((rows >= top * height) & (rows <= bottom * height))[:, None] & (
        (columns >= left * width) & (columns <= right * width)
    )
    weights = torch.where(inside, weight, 1.0)[None]
    return weights / weights.mean()


def ema_decay(decay: float, step: int) -> float:
    """The running mean's decay at `step` n, from 0: min(decay, (1 + n) / (10 + n)), so that it follows quickly at first
    (diffusers' training_utils.py, EMAModel)."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def average(mean: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """mean <- decay * mean + (1 - decay) * weights, in place."""
    foreach("lerp_", mean, [weight.detach() for weight in weights], 1 - decay)
