"""What answered, as it goes into a rating's row and as the page shows it after the reveal.

Covers: turning a loaded pair into plain JSON values, complete enough to make a greedy answer again elsewhere
(tests/proof/regenerate.py). Does not cover: measuring any of it (the engine does).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from compare.desk import KEYS, Pair


def provenance(pair: Pair) -> dict[str, Any]:
    """{"model_a": {...}, "model_b": {...}, "check": {...}, "versions": {...}, "device": ..., ...}: JSON without NaN."""
    sides = zip(("model_a", "model_b"), KEYS, pair.candidates, strict=True)
    record: dict[str, Any] = {}
    for side, key, candidate in sides:
        known = pair.loaded.arms.get(key)
        named = {"model": candidate.model, "name": candidate.name, "base": candidate.base}
        record[side] = named | (asdict(known) if known else {})
        if record[side].get("told") is None:
            record[side].pop("told", None)
        if candidate.adapter:
            record[side]["adapter"] = where(candidate.adapter)
        if candidate.tuned_from:
            record[side] |= {"base": where(candidate.base), "tuned_from": candidate.tuned_from}
        if candidate.template:
            record[side]["template"] = candidate.template
    return record | {
        "check": asdict(pair.loaded.check),
        "versions": dict(pair.loaded.versions),
        "device": pair.loaded.device,
        "weights": pair.loaded.weights,
        "together": pair.together,
    }


def where(adapter: str) -> str:
    """Where to look for an adapter: its Hub id, its folder below the workspace, or its name. Never a path of this
    machine: the record may be published, and the sha256 says whether it is the right one."""
    if not adapter.startswith(("/", ".", "~")):
        return adapter
    parts = Path(adapter).parts
    return "/".join(parts[-3:]) if parts[-3:-2] == ("jobs",) else parts[-1]
