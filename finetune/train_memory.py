"""Memory phase by phase: what was held after loading, forward, loss, backward and optimizer, and what was missing.

Covers: memory.RANK.json, which is on disk at any moment (the kernel may end a process without asking), and the allocator's
figures when memory runs out. Does not cover: comparing them with the plan (shortfall.py).

Bytes are the CUDA allocator's, or the whole process's where there is no GPU. The file is one block that is overwritten in
place, so that whoever reads it after a kill finds the last one whole.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from finetune import train_ranks as ranks
from finetune.shortfall import out_of_memory

BLOCK = 4096
MEASURED = 3  # steps of which every phase is measured; after that only each REST-th, since it takes a millisecond
REST = 50
UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
ASKED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMG]iB)", re.IGNORECASE)


def file_name(rank: int) -> str:
    return f"memory.{rank}.json"


class Marks:
    """Where a run is and what it holds. Used around the whole run; ``attach`` once there is a trainer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / file_name(ranks.rank()), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._record: dict[str, Any] = {
            "version": 1,
            "rank": ranks.rank(),
            "began": time.time(),
            "phase": "load",
            "step": 0,
            "after": {},
            "peak": {},
        }
        self._base = self._record["base"] = held()["allocated"]
        self._measures = True

    def __enter__(self) -> Marks:
        self._write()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
            now = {**held(), **room(), "requested": requested(str(error))}
            self._record["failed"] = {**now, "phase": self._record["phase"], "step": self._record["step"]}
        self.close()

    def close(self) -> None:
        """Write down where it is; before a process that ends here and now."""
        self._write()
        os.close(self._file)

    def attach(self, trainer: Any) -> None:
        """Follow the model's passes. The module below the head ends where the loss begins."""
        self.enter("ready")
        model = trainer.model
        inner = decoder(model)
        model.register_forward_pre_hook(lambda module, _: self._pass(module, "forward"))
        if inner is not None:
            inner.register_forward_hook(lambda module, *_: self._pass(module, "loss"))
        model.register_forward_hook(lambda module, *_: self._pass(module, "backward"))
        trainer.add_callback(_Steps(self))

    def _pass(self, module: Any, phase: str) -> None:
        self.enter(phase if module.training else "evaluate")

    def step(self, number: int) -> None:
        self._record["step"] = number
        self._measures = number < MEASURED or number % REST == 0

    def enter(self, phase: str) -> None:
        """The phase before is over. The first figure of each stays; what it held at most is kept beside it."""
        before = self._record["phase"]
        if phase == before:
            return
        if self._measures:
            now = held()
            self._record["after"].setdefault(before, now["allocated"] - self._base)
            self._record["peak"][before] = max(self._record["peak"].get(before, 0), now["peak"] - self._base)
        self._record["phase"] = phase
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._record).encode()
        os.pwrite(self._file, text.ljust(BLOCK), 0)


class _Steps(TrainerCallback):  # type: ignore[misc]
    """The optimizer's part of a step."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._marks.step(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._marks.enter("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._marks.enter("between")


def decoder(model: Any) -> Any:
    """The layers without the head, below whatever wraps them; None where the model names them otherwise."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = base.get_decoder() if hasattr(base, "get_decoder") else getattr(base, "model", None)
    return found if found is not base else None


def held() -> dict[str, int]:
    """What this process holds, and at most so far. Host memory has no such mark, so there it is what it holds now."""
    if torch.cuda.is_available():
        return {
            "allocated": torch.cuda.memory_allocated(),
            "reserved": torch.cuda.memory_reserved(),
            "peak": torch.cuda.max_memory_allocated(),
        }
    resident = psutil.Process().memory_info().rss
    return {"allocated": resident, "reserved": resident, "peak": resident}


def room() -> dict[str, int]:
    """``free`` now, ``limit``: the most this process may have, ``other``: what neither it nor anybody else leaves free."""
    if not torch.cuda.is_available():
        memory = psutil.virtual_memory()
        return {"free": memory.available, "limit": memory.total, "other": 0}
    free, total = torch.cuda.mem_get_info()
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)()
    return {"free": free, "limit": int(total * share), "other": total - free - torch.cuda.memory_reserved()}


def requested(text: str) -> int:
    """Bytes that the allocator's message says were asked for; 0 when it does not say."""
    found = ASKED.search(text)
    return int(float(found[1]) * UNITS[found[2].lower()]) if found else 0
