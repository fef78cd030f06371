"""How much memory a pair will take, before anything is loaded.

Covers: an estimate from the shapes in the catalogue or in a config.json on this disk. Does not cover: measured memory
(Loaded has it), models whose config is not here yet and which the catalogue does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NF4 = 0.53
TOKENS = 4096
OVERHEAD = 600 * 2**20


@dataclass(frozen=True)
class Footprint:
    """Bytes. ``weights`` are all bases in 4-bit with their embeddings in 16-bit, ``adapters`` what was tuned."""

    weights: int
    adapters: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.cache + OVERHEAD


@dataclass(frozen=True)
class Fit:
    """Bytes: what all bases take together, what the largest of them takes alone, what is free."""

    together: int
    alone: int
    free: int
    bases: int = 1

    @property
    def fits(self) -> bool:
        return self.together <= self.free

    @property
    def in_turn(self) -> bool:
        """Whether answering one after the other is the way: both are too large together, and each fits alone."""
        return not self.fits and self.bases > 1 and self.alone <= self.free


def weights(shape: Mapping[str, Any]) -> int:
    """Bytes of one base: matrices of the blocks in NF4, embedding and head at two bytes each."""
    hidden, q, kv = shape["hidden"], shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    block = hidden * (2 * q + 2 * kv + 3 * shape["intermediate"])
    embedding = shape["vocab"] * hidden * 2 * (1 if shape["tied"] else 2)
    return int(shape["layers"] * block * NF4 + embedding)


def cache(shape: Mapping[str, Any], rows: int) -> int:
    """Bytes of keys and values for ``rows`` conversations of TOKENS tokens."""
    return int(rows * TOKENS * shape["layers"] * shape["kv_heads"] * shape["head_dim"] * 2 * 2)


def footprint(shapes: Iterable[tuple[Mapping[str, Any], int]], adapters: int) -> Footprint:
    """``shapes`` are the distinct bases with the number of sides each answers for; ``adapters`` bytes on disk."""
    known = list(shapes)
    return Footprint(sum(weights(s) for s, _ in known), adapters, sum(cache(s, rows) for s, rows in known))


def fit(shapes: Iterable[tuple[Mapping[str, Any], int]], adapters: int, free: int) -> Fit:
    """Whether the bases fit into ``free`` bytes, together or one at a time."""
    known = list(shapes)
    each = [footprint([base], adapters).total for base in known]
    return Fit(footprint(known, adapters).total, max(each, default=0), free, len(known))
