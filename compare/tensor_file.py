"""A safetensors file without torch: names, shapes, and whether the numbers are finite and not all zero.

Covers: the header (8 bytes of length, JSON) and its agreement with the file's size, reading F64, F32, F16 and BF16 with
numpy. Does not cover: other dtypes, writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.errors import UserError

MAX_HEADER = 100_000_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# The bits of the exponent, and all bits but the sign, of 16-bit floats: enough to tell inf/NaN and zero.
_HALF = {"F16": (0x7C00, 0x7FFF), "BF16": (0x7F80, 0x7FFF)}
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the file; ``start`` and ``end`` are offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        return prod(self.shape)


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a file, in its order. UserError("adapters.truncated") or ("adapters.damaged")."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size:
            raise UserError("adapters.truncated", folder=path.parent.name)
        if length > MAX_HEADER:
            raise UserError("adapters.damaged", folder=path.parent.name)
        text = file.read(length)
    try:
        header = json.loads(text)
        tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError("adapters.damaged", folder=path.parent.name) from error
    tensors.sort(key=lambda tensor: tensor.start)
    end = 8 + length
    for tensor in tensors:
        if tensor.start != end or (known := _BYTES.get(tensor.dtype)) and tensor.end - end != tensor.numbers * known:
            raise UserError("adapters.damaged", folder=path.parent.name)
        end = tensor.end
    if end != size:
        raise UserError("adapters.truncated" if end > size else "adapters.damaged", folder=path.parent.name)
    return tuple(tensors)


def _tensor(name: str, entry: Any, base: int) -> Tensor:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)):
        raise ValueError(name)
    return Tensor(name, str(entry["dtype"]), shape, base + start, base + end)


@dataclass(frozen=True)
class Values:
    finite: bool
    any_nonzero: bool


def look_at(path: Path, tensor: Tensor) -> Values:
    """Whether all numbers are finite and any is not zero. UserError("adapters.dtype") for a dtype not of ours."""
    if tensor.dtype not in _BYTES:
        raise UserError("adapters.dtype", folder=path.parent.name, dtype=tensor.dtype)
    finite, nonzero = True, False
    for chunk in _chunks(path, tensor):
        if tensor.dtype in _HALF:
            exponent, magnitude = _HALF[tensor.dtype]
            finite = finite and not ((chunk & exponent) == exponent).any()
            nonzero = nonzero or bool((chunk & magnitude).any())
        else:
            finite = finite and bool(np.isfinite(chunk).all())
            nonzero = nonzero or bool(chunk.any())
    return Values(finite, nonzero)


def _chunks(path: Path, tensor: Tensor) -> Iterator[npt.NDArray[Any]]:
    kind = {"F64": "<f8", "F32": "<f4"}.get(tensor.dtype, "<u2")
    with path.open("rb") as file:
        file.seek(tensor.start)
        left = tensor.end - tensor.start
        while left:
            data = file.read(min(_CHUNK, left))
            yield np.frombuffer(data, kind)
            left -= len(data)
