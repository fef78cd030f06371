"""What to change when a run does not fit: the smallest set of settings that makes it fit.

Covers: settings that cost least come first, each kept only as far as needed. Does not cover: choosing another model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from typing import Any

from finetune.spec import TrainSpec

SHORTEST = 256


def shrink(spec: TrainSpec, fits: Callable[[TrainSpec], bool], avoid: Set[str] = frozenset()) -> dict[str, Any] | None:
    """Form fields and their new values, or None when nothing here helps. The batch per step stays what it was, and what
    is named in ``avoid`` stays, too."""
    changed: dict[str, Any] = {}
    for step in _steps(spec):
        if avoid & step.keys():
            continue
        changed |= step
        if fits(apply(spec, changed)):
            return changed
    return None


def elsewhere(spec: TrainSpec, fits: Callable[[TrainSpec], bool]) -> dict[str, Any] | None:
    """The wishes about hardware to drop, as form fields, so that nothing about the run itself has to change; or None."""
    wishes = {"placement": spec.hardware.placement, "gpus": spec.hardware.gpus}
    held = [key for key, wish in wishes.items() if wish != "auto"]
    for names in (held[:1], held):
        changed: dict[str, Any] = dict.fromkeys(names, "auto")
        if changed and fits(apply(spec, changed)):
            return changed
    return None


def _steps(spec: TrainSpec) -> Iterator[dict[str, Any]]:
    schedule = spec.schedule
    if not schedule.checkpointing:
        yield {"checkpointing": True}
    if spec.method != "qlora":
        yield {"method": "qlora"}
    micro, least = schedule.micro_batch, 2 if spec.loss == "kto" else 1
    while micro > least:
        micro = micro // 2
        yield {"micro_batch": micro, "accumulation": schedule.accumulation * (schedule.micro_batch // micro)}
    length = schedule.max_length
    while length > SHORTEST:
        length = max(SHORTEST, length // 2)
        yield {"max_length": length}
    if spec.lora.rank > 8:
        yield {"rank": 8, "alpha": 16}


def apply(spec: TrainSpec, changed: dict[str, Any]) -> TrainSpec:
    """The spec with those fields changed."""
    schedule = {k: v for k, v in changed.items() if k in ("checkpointing", "micro_batch", "accumulation", "max_length")}
    lora = {k: v for k, v in changed.items() if k in ("rank", "alpha")}
    hardware = {k: v for k, v in changed.items() if k in ("placement", "gpus")}
    return replace(
        spec,
        method=changed.get("method", spec.method),
        schedule=replace(spec.schedule, **schedule),
        lora=replace(spec.lora, **lora),
        hardware=replace(spec.hardware, **hardware),
    )
