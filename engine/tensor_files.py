"""Reading safetensors files: tensors, shapes and the header's text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A reader and the names of its tensors."""
    with safe_open(path, "pt") as reader:
        yield reader, list(reader.keys())


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """All tensors whose names begin with `prefix`, on the CPU in their own dtypes, by their full names.

    Raises:
        OSError: there is no such file.
        safetensors.SafetensorError: it is not a safetensors file.
    """
    with _opened(path) as (reader, names):
        return {name: reader.get_tensor(name) for name in names if name.startswith(prefix)}


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor, on the CPU in its own dtype; no other is read.

    Raises:
        OSError: there is no such file.
        safetensors.SafetensorError: it is not a safetensors file, or has no such tensor.
    """
    with _opened(path) as (reader, _):
        tensor: Tensor = reader.get_tensor(name)
    return tensor


def read_metadata(path: Path) -> dict[str, str]:
    """The header's text by key. Raises as `read_tensors`."""
    with _opened(path) as (reader, _):
        return reader.metadata() or {}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, without reading it. Raises as `read_tensors`."""
    with _opened(path) as (reader, names):
        return {name: tuple(reader.get_slice(name).get_shape()) for name in names}


def read_dtypes(path: Path) -> set[str]:
    """The dtypes of all tensors by safetensors' names, such as "F16". Raises as `read_tensors`."""
    with _opened(path) as (reader, names):
        return {reader.get_slice(name).get_dtype() for name in names}
