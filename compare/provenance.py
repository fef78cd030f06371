"""What answered, as it goes into a rating's row and as the page shows it after the reveal.

Covers: turning a loaded pair into plain JSON values. Does not cover: measuring any of it (the engine does).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from compare.desk import KEYS, Pair


def provenance(pair: Pair) -> dict[str, Any]:
    """{"model_a": {...}, "model_b": {...}, "check": {...}, "versions": {...}, "device": ...}: JSON without NaN."""
    sides = zip(("model_a", "model_b"), KEYS, pair.candidates, strict=True)
    record: dict[str, Any] = {}
    for side, key, candidate in sides:
        known = pair.loaded.arms.get(key)
        named = {"model": candidate.model, "name": candidate.name, "base": candidate.base}
        record[side] = named | (asdict(known) if known else {})
        if candidate.template:
            record[side]["template"] = candidate.template
    return record | {
        "check": asdict(pair.loaded.check),
        "versions": dict(pair.loaded.versions),
        "device": pair.loaded.device,
        "quantised": True,
    }
