"""Proof that the frozen weights a rank multiplies with are the bytes that were loaded.

Covers: every 4-bit module once, inside its first forward pass, in every placement: what shards were gathered into under
FSDP, what the start-up broadcast left under data parallel, what lies on the device in one process. Does not cover: the
adapter (train_save.py) or weights that are not quantised.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from assets.errors import UserError
from finetune import train_ranks as ranks


def digest(module: Any) -> str:
    """SHA-256 of a 4-bit layer: packed weights as they lie in memory, then the constants that unpack them."""
    state = getattr(module.weight, "quant_state", None) or module.quant_state
    parts = [module.weight.data, state.absmax]
    if state.nested:
        parts += [state.offset, state.state2.absmax]
    found = hashlib.sha256()
    for part in parts:
        data = part.detach().reshape(-1).contiguous().view(torch.uint8)
        found.update(data.to("cpu", copy=True).numpy())  # numpy pins the storage it sees, which FSDP must free
    return found.hexdigest()


def quantised_layers(model: Any) -> dict[str, Any]:
    """The 4-bit layers of a model by name."""
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


class Canary(TrainerCallback):  # type: ignore[misc]
    """Made from the model as it was loaded, before anything is sharded or broadcast. All ranks end together when a
    byte differs on any of them: UserError("train.canary") after the first evaluation or step."""

    def __init__(self, model: Any, report: Any) -> None:
        self._report = report
        self._waiting = {name: (digest(module), module) for name, module in quantised_layers(model).items()}
        text = "\n".join(f"{name} {before}" for name, (before, _) in sorted(self._waiting.items()))
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self.modules = len(self._waiting)
        self.checked = 0
        self._wrong: str | None = None
        self._shards = 0
        self._done = not self.modules
        for name, (before, module) in self._waiting.items():
            self._watch(name, before, module)

    def _watch(self, name: str, before: str, module: Any) -> None:
        def look(layer: Any, inputs: Any) -> None:
            handle.remove()
            del self._waiting[name]
            self.checked += 1
            if digest(layer) != before and self._wrong is None:
                self._wrong = name

        handle = module.register_forward_pre_hook(look)

    def record(self) -> dict[str, Any]:
        """For run.json: layers compared, layers there are, how many lie in shards, the base's fingerprint in 4 bits."""
        counts = {"modules": self.checked, "of": self.modules, "sharded": self._shards, "ranks": ranks.world()}
        return {**counts, "placement": ranks.placement(), "sha256": self.fingerprint}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Where FSDP is not known, accelerate would go on with whole copies and no word about it."""
        waiting = [layer for _, layer in self._waiting.values()]
        self._shards = sum(isinstance(layer.weight, DTensor) for layer in waiting)
        if ranks.sharded() and self._shards < len(waiting):
            raise UserError("train.not_sharded", count=len(waiting) - self._shards)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.settle()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.settle()

    def settle(self) -> None:
        """Compare what all ranks found. Collective until every layer was seen."""
        if self._done:
            return
        found = ranks.gathered((self._wrong, self.checked, self.fingerprint))
        for rank, (wrong, _, fingerprint) in enumerate(found):
            if wrong is not None:
                raise UserError("train.canary", module=wrong, rank=rank)
            if fingerprint != found[0][2]:
                raise UserError("train.ranks_differ", rank=rank, what="4-bit")
        self._report.write("facts", canary=min(checked for _, checked, _ in found), canary_of=self.modules)
        self._done = all(checked == self.modules for _, checked, _ in found)
