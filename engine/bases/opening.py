"""Opening a base model of any kind. Diffusers and transformers are imported only for bases that need them."""

from collections.abc import Callable

from torch import Tensor

from engine.bases.embedded import EmbeddedPipeline, read_unet_weight
from engine.bases.interfaces import Denoiser, Pipeline

EMBEDDED = "embedded"
"""The source of the base that comes with the engine."""

WeightReader = Callable[[str], Tensor]
"""Reads one weight of a denoiser by its name."""


def open_pipeline(source: str) -> Pipeline:
    """The parts of the base model at `source`, on the CPU.

    Args:
        source: "embedded", or what `engine.bases.loading.open_pipeline` takes.
    Raises:
        OSError, ValueError: as `engine.bases.loading.open_pipeline`.
    """
    if source == EMBEDDED:
        return EmbeddedPipeline()
    from engine.bases import loading  # 2.7 s and 150 MiB

    return loading.open_pipeline(source)


def stored_weights(source: str, denoiser: Denoiser, name: str) -> WeightReader:
    """Reads the denoiser's weights from `source` again, on the CPU.

    Args:
        denoiser: the one that was opened from `source`; its class reads the weights.
        name: the denoiser's name among the pipeline's components.
    Raises:
        OSError, ValueError: as `engine.bases.loading.open_denoiser`.
    """
    if source == EMBEDDED:
        return read_unet_weight
    from engine.bases import loading

    return dict(loading.open_denoiser(source, denoiser, name).named_parameters()).__getitem__
