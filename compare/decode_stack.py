"""Adapters of several rows laid side by side, as the kernels of a decode step read them.

Covers: one stack per group of layers that read the same input (q, k, v; gate, up; o; down), padded to one rank. Does not
cover: reading adapters, prefill (decode_lora.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compare.decode_gemm import power_of_two
from compare.decode_lora import Adapter

LEAST_RANK = 8


@dataclass(frozen=True)
class Stack:
    """``down``: [tuned, k, layers * rank]; ``ups`` per layer [tuned, rank, n]; ``tuned``: bit per row."""

    down: torch.Tensor
    ups: tuple[torch.Tensor, ...]
    tuned: int

    @property
    def width(self) -> int:
        width: int = self.down.shape[-1]
        return width

    def rows(self, low: int, high: int) -> Stack | None:
        """For a batch of the rows ``low`` to ``high`` alone; None when none of them carries anything."""
        tuned = (self.tuned >> low) & ((1 << (high - low)) - 1)
        if not tuned:
            return None
        first = (self.tuned & ((1 << low) - 1)).bit_count()
        return Stack(self.down[first:], tuple(up[first:] for up in self.ups), tuned)


def stack(adapters: Sequence[Adapter | None], names: Sequence[str], sizes: Sequence[int], k: int) -> Stack | None:
    """The shares of ``adapters`` (by row) in the layers ``names``, which map k inputs to ``sizes`` outputs each."""
    rows = [row for row, adapter in enumerate(adapters) if adapter and any(name in adapter.parts for name in names)]
    carried = [adapter for row in rows if (adapter := adapters[row])]
    parts = [part for adapter in carried for name in names if (part := adapter.parts.get(name))]
    if not parts:
        return None
    rank = max(LEAST_RANK, power_of_two(max(part.up.shape[0] for part in parts)))
    like = parts[0].down
    down = like.new_zeros(len(rows), k, len(names) * rank)
    ups = tuple(like.new_zeros(len(rows), rank, size) for size in sizes)
    for number, adapter in enumerate(carried):
        for place, name in enumerate(names):
            if part := adapter.parts.get(name):
                own = part.up.shape[0]
                down[number, :, place * rank : place * rank + own] = part.down
                ups[place][number, :own] = part.up
    return Stack(down, ups, sum(1 << row for row in rows))
