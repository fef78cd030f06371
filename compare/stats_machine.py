"""What a machine measured of the two models: loss and perplexity on examples held out from training.

Covers: reading them from a run's record, for the adapter that was compared. Does not cover: any opinion on answers, and
nothing here enters what people chose.

A run is evaluated before its first step, where a fresh adapter changes nothing, so ``before`` is the model it started
from: the base, or for a run that went on from another adapter, that one. Perplexity is exp(loss) of plain training
only: the loss of preference training is no cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from assets.files import read_json
from compare.rating import Rating, Side


@dataclass(frozen=True)
class HeldOut:
    """Mean loss per token in nats on ``examples`` held-out conversations of ``dataset``."""

    run: str
    dataset: str
    examples: int
    before: float
    after: float
    objective: str = "sft"
    from_base: bool = True

    @property
    def perplexity(self) -> tuple[float, float] | None:
        """Before and after; None where the loss is no cross-entropy or too large to say."""
        if self.objective != "sft" or max(self.before, self.after) > 50:
            return None
        return math.exp(self.before), math.exp(self.after)


def held_out(record: Mapping[str, Any]) -> HeldOut | None:
    """From a run.json; None when the run was never evaluated."""
    losses = (record.get("metrics") or {}).get("eval_loss") or {}
    dataset, spec = record.get("dataset") or {}, record.get("spec") or {}
    before, after = (_finite(losses.get(name)) for name in ("first", "last"))
    if before is None or after is None:
        return None
    seen = (spec.get("watch") or {}).get("examples") or dataset.get("heldout") or 0
    return HeldOut(
        run=str(record.get("name") or ""),
        dataset=str(dataset.get("id") or ""),
        examples=min(int(seen), int(dataset.get("heldout") or seen)),
        before=before,
        after=after,
        objective=str(spec.get("objective") or "sft"),
        from_base=not record.get("start"),
    )


def compared(vote: Rating, side: Side, jobs: Path) -> HeldOut | None:
    """The run below ``jobs`` whose adapter answered on ``side``, found by the adapter's digest."""
    digest = str((vote.provenance.get(side) or {}).get("adapter_sha256") or "")
    for file in sorted(jobs.glob("*/adapter/adapter_model.safetensors")) if digest else ():
        about = file.stat()
        if _digest(file, about.st_mtime_ns, about.st_size) == digest:
            record = file.with_name("run.json")
            return held_out(read_json(record)) if record.exists() else None
    return None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@lru_cache(maxsize=256)
def _digest(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
