"""How large a checkpoint will be in memory, layer by layer, from the headers of its files alone.

Covers: matrices of the layers in NF4 and the rest at two bytes, or a checkpoint as it is; adapters; conversations.
Does not cover: what a card has room for (spread.py), images' towers, which are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from compare.footprint import WIDE_NF4, cache_per_layer, shape_from
from compare.spread import Sizes

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2}
_IMAGES = ("vision", "multi_modal")
_WIDENED = 1.09  # scales that were quantised themselves become float32 for our kernels (decode_gemm.py)
_FIRST = ("embed", "wte", "rotary")


def sizes_of(folder: Path, config: Mapping[str, Any], quantise: bool, rows: int, adapters: Sequence[Path]) -> Sizes:
    """Bytes of the checkpoint in ``folder`` with ``rows`` conversations. ``quantise``: it is in 16 bit and will be NF4.

    ``adapters``: their weights' files, each counted once. Of a checkpoint without numbered layers all is one layer.
    """
    layers: dict[int, float] = {}
    first = last = 0.0
    for name, shape, width in (entry for path in sorted(folder.glob("*.safetensors")) for entry in _entries(path)):
        if any(part in name for part in _IMAGES):
            continue
        found = _LAYER.search(name)
        size = prod(shape) * (_width(shape, found is not None) if quantise else width * (_WIDENED if found else 1))
        if found:
            layers[int(found[1])] = layers.get(int(found[1]), 0.0) + size
        elif any(part in name for part in _FIRST):
            first += size
        else:
            last += size
    count = max(layers, default=0) + 1
    known = shape_from(config)
    cache = cache_per_layer(known, rows) if known else 0
    more = cache + sum(path.stat().st_size for path in adapters) / count
    return Sizes(first, tuple(layers.get(number, 0.0) + more for number in range(count)), last)


def _width(shape: Sequence[int], in_layer: bool) -> float:
    return WIDE_NF4 if in_layer and len(shape) == 2 else 2


def _entries(path: Path) -> Iterator[tuple[str, list[int], int]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry["shape"], _BYTES.get(entry["dtype"], 1)
