"""Reading safetensors files: tensors, shapes and the header's text; and copying tensors under other names."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import safe_open
from torch import Tensor

from storage.atomic import atomic_write


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


def copy_tensors(source: Path, names: Mapping[str, str], metadata: Mapping[str, str], out: Path) -> None:
    """Write some of a file's tensors to a new file on disk under other names, without reading them into memory. The
    file is complete or not there.

    Args:
        names: the new name of each tensor that is copied, by its old one.
        metadata: the new header's text.
    Raises:
        OSError: the files cannot be read or written.
        safetensors.SafetensorError: `source` is not a safetensors file.
        KeyError: it has no such tensor.
    """
    with _opened(source):  # checks the header
        pass
    with source.open("rb") as read, atomic_write(out) as draft, draft.open("wb") as written:
        # The format: the header's size as 8 bytes, the header as JSON, the tensors one after another without gaps
        # (github.com/huggingface/safetensors).
        (size,) = struct.unpack("<Q", read.read(8))
        header = json.loads(read.read(size))
        ranges = sorted((header[name]["data_offsets"], name) for name in names)
        entries: dict[str, Any] = {"__metadata__": dict(metadata)}
        length = 0
        for (start, end), name in ranges:
            entries[names[name]] = header[name] | {"data_offsets": [length, length + end - start]}
            length += end - start
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        written.write(struct.pack("<Q", len(text)) + text)
        for start, end in _joined([(start, end) for (start, end), _ in ranges]):
            _copy(read, written, 8 + size + start, end - start)


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges in order, those that follow each other without a gap as one."""
    for number, (start, end) in enumerate(ranges):
        if number and ranges[number - 1][1] == start:
            continue
        for next_start, next_end in ranges[number + 1 :]:
            if next_start != end:
                break
            end = next_end
        yield start, end


def _copy(read: BinaryIO, written: BinaryIO, start: int, length: int) -> None:
    """Copy bytes from `start` to the end of `written`, within the kernel where the system can."""
    read.seek(start)
    written.flush()
    if hasattr(os, "copy_file_range"):
        offset = start
        while length and (copied := _in_kernel(read, written, offset, length)):
            offset, length = offset + copied, length - copied
        read.seek(offset)
        written.seek(0, os.SEEK_END)
    while length:
        block = read.read(min(length, 2**23))
        if not block:
            raise OSError("the file ends before its tensors")
        written.write(block)
        length -= len(block)


def _in_kernel(read: BinaryIO, written: BinaryIO, offset: int, length: int) -> int:
    """The bytes that were copied, 0 where these file systems cannot."""
    try:
        return os.copy_file_range(read.fileno(), written.fileno(), length, offset)
    except OSError:
        return 0
