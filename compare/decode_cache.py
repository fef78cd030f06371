"""Keys and values of several conversations of different lengths, and the masks that go with them.

Covers: storage with one position per row, kept as tensors on the device so that a decode step holds no Python counter.
Sliding layers keep the full length too; the window is in the mask. Does not cover: which token comes next (decode.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

BUCKET = 256


def bucketed(length: int) -> int:
    """Room for ``length``, in few sizes, each recorded on its own; at most half as much again above the smallest."""
    step = BUCKET
    while length > 4 * step:
        step *= 2
    return -(-length // step) * step


class RowCache:
    """What a transformers model asks of its ``past_key_values`` when positions and masks come with the call.

    ``keys[layer]`` and ``values[layer]``: [rows, kv_heads, capacity + 1, head_dim].

    The last slot is scratch: padding and parked rows write there, and no mask ever shows it. Writing places K and V of
    rows ``low`` to ``high`` at ``slots`` ([high - low, q], aimed before each forward) and returns the first ``span``
    slots of these rows. Layers are made at their first use, with the dtype and device of what they are given.
    ``devices`` are those of the layers where they lie on several (decode_stages.py).
    """

    def __init__(self, rows: int, devices: Sequence[torch.device] = ()) -> None:
        self.rows = rows
        self._devices = devices
        self.capacity = 0
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._low, self._high, self._span = 0, rows, 0
        self._slots = torch.empty(0)
        self._slots_on: dict[torch.device, torch.Tensor] = {}

    def reserve(self, length: int) -> bool:
        """Room for ``length`` tokens per row, in whole buckets; what is stored stays. True if the tensors are new."""
        capacity = bucketed(max(length, 1))
        if capacity <= self.capacity:
            return False
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                grown = old.new_zeros(old.shape[0], old.shape[1], capacity + 1, old.shape[3])
                grown[:, :, : self.capacity] = old[:, :, : self.capacity]
                store[layer] = grown
        self.capacity = capacity
        return True

    def aim(self, low: int, high: int, slots: torch.Tensor, span: int) -> None:
        """Set where the next forward writes and how far it looks. ``slots``: [high - low, q] on the device."""
        self._low, self._high, self._slots, self._span = low, high, slots, span
        self._slots_on = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [rows, heads, q, dim] states and give back all that this step may see of the layer."""
        self.store(layer_idx, key_states.shape[1], key_states.shape[3], key_states)
        rows = slice(self._low, self._high)
        slots = self._slots_for(layer_idx)[:, None, :, None]
        keys, values = self.keys[layer_idx][rows], self.values[layer_idx][rows]
        keys.scatter_(2, slots.expand_as(key_states), key_states)
        values.scatter_(2, slots.expand_as(value_states), value_states)
        return keys[:, :, : self._span], values[:, :, : self._span]

    def _slots_for(self, layer: int) -> torch.Tensor:
        """Copied once per forward and device."""
        if not self._devices:
            return self._slots
        device = self._devices[layer]
        if device not in self._slots_on:
            self._slots_on[device] = self._slots.to(device)
        return self._slots_on[device]

    def store(self, layer: int, heads: int, dim: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of ``layer``, made with the dtype and device of ``like`` if there are none yet."""
        for store in (self.keys, self.values):
            while len(store) <= layer:
                store.append(like.new_zeros(self.rows, heads, self.capacity + 1, dim))
        return self.keys[layer], self.values[layer]

    def bytes_held(self) -> int:
        return sum(store.numel() * store.element_size() for store in (*self.keys, *self.values))


class MaskMaker:
    """Additive attention masks of a model, from positions alone.

    Models with ``layer_types`` take a dict by layer type; the others one mask, which is sliding if they have a window.
    """

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        self.by_kind = kinds is not None
        self._windows: dict[str, int | None] = {"full_attention": window}
        if kinds is not None:
            self._windows = {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}
        self._dtype = dtype
        self._hidden = torch.finfo(dtype).min / 2  # kernels multiply it by log2(e), which must not overflow

    @property
    def unknown_kinds(self) -> list[str]:
        """Layer types for which a mask from positions is not enough (linear attention, chunks, …)."""
        return sorted(set(self._windows) - {"full_attention", "sliding_attention"})

    def __call__(self, positions: torch.Tensor, span: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """``positions``: [rows, q], the place of each query. Masks are [rows, 1, q, span]."""
        keys = torch.arange(span, device=positions.device)
        queries = positions[:, None, :, None]
        causal = keys <= queries
        masks = {}
        for kind, window in self._windows.items():
            seen = causal if window is None else causal & (keys > queries - window)
            masks[kind] = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device).masked_fill_(
                ~seen, self._hidden
            )
        return masks if self.by_kind else masks["full_attention"]
