"""Several cards played on a CPU: every tensor knows which card it lies on, and a kernel that mixes two fails.

``torch.device("cpu", 1)`` is card 1. Copies go where they are asked to; whatever a kernel makes lies where its inputs
do; tensors made from nothing lie nowhere until something that lies somewhere is written to them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Cards(TorchDispatchMode):
    """``met``: the cards on which something was computed; ``crossings``: copies from one card to another."""

    def __init__(self) -> None:
        super().__init__()
        self._cards: dict[int, tuple[StorageWeakRef, int]] = {}  # a weak reference keeps the address from others
        self.met: set[int] = set()
        self.crossings = 0

    def put(self, tensor: torch.Tensor, card: int) -> None:
        storage = tensor.untyped_storage()
        self._cards[storage._cdata] = StorageWeakRef(storage), card

    def where(self, tensor: torch.Tensor) -> int | None:
        known = self._cards.get(tensor.untyped_storage()._cdata)
        return known[1] if known else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = [self.where(tensor) for tensor in given]
        cards = {card for card in known if card is not None}
        if len(cards) > 1 and func not in _COPIES:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found cards {sorted(cards)}")
        output = func(*args, **kwargs)
        asked = getattr(kwargs.get("device"), "index", None)
        if func is torch.ops.aten.copy_.default:
            target, self.crossings = known[0], self.crossings + (len(cards) > 1)
        else:
            target = asked if asked is not None else next(iter(cards), None)
            self.crossings += asked is not None and bool(cards - {asked})
        self.met |= cards
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and target is not None:
                self.put(tensor, target)
        return output
