"""Which part of a plan was too small when memory ran out: the estimate, part by part, against what the allocator had.

Covers: the records that the ranks of a run leave (memory.RANK.json), the verdict. Does not cover: what to change
(remedy.py). No torch: the supervisor and the page ask.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.plan import LaunchPlan

GROUPS = {
    "model": ("weights", "constants", "embeddings", "head", "lora"),
    "activations": ("activations", "buffers", "reference", "loss"),  # which use again what the loss gave back
    "loss": ("loss",),
    "training": ("gradients", "optimizer"),
}
"""What can be told apart by when it is allocated -> the plan's parts that belong to it."""
PHASES = ("load", "ready", "forward", "loss", "backward", "optimizer", "between", "evaluate")
OUT_OF_MEMORY = ("out of memory", "defaultcpuallocator", "cannot allocate memory")
NOISE = 64 * 2**20
CONTEXT = 2**30  # what the driver and NCCL hold for a process, which no allocator counts


@dataclass(frozen=True)
class Shortfall:
    """Why memory was not enough. ``part`` is a group above, "other" (programs that took memory since the plan was made),
    "pieces" (free, but in pieces too small) or "" when nothing is known. Bytes; ``allowed`` is what could be had, ``need``
    what was held with what was asked for last; None where the process left no figure."""

    phase: str
    step: int
    rank: int
    processes: int
    part: str
    estimated: int | None
    measured: int | None
    need: int | None
    allowed: int | None
    parts: dict[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """As job.json has it, and as it comes back from there."""
        return asdict(self) | {"parts": {group: list(pair) for group, pair in self.parts.items()}}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY)


def read(folder: Path) -> list[dict[str, Any]]:
    """What the ranks wrote, those that failed first; a file that is no record is left out."""
    found = []
    for file in sorted(folder.glob("memory.*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("version") == 1:
            found.append(record)
    return sorted(found, key=lambda r: ("failed" not in r, -max(r["after"].values(), default=0)))


def forget(folder: Path) -> None:
    """Before another attempt: its figures are its own."""
    for file in folder.glob("memory.*.json"):
        file.unlink()


def judge(plan: LaunchPlan, records: list[dict[str, Any]]) -> Shortfall:
    """The verdict from the rank that ran out, or of the one that held most when a process was ended from outside."""
    if not records:
        return Shortfall("", 0, 0, plan.processes, "", None, None, None, None, {})
    record = records[0]
    failed = record.get("failed")
    phase, after = record["phase"] if failed is None else failed["phase"], record["after"]
    need = failed["allocated"] + failed["requested"] if failed else None
    allowed = _allowed(failed) if failed else None
    parts = _parts(plan, after, record["peak"], phase, need - record["base"] if need else None)
    part, estimated, measured = _worst(parts)
    if failed and (not part or measured - estimated < NOISE):
        other = failed["other"] - CONTEXT - sum(plan.foreign.values())
        spare = failed["reserved"] - failed["allocated"]
        if other > NOISE and plan.placement != "cpu":
            part, estimated, measured = "other", sum(plan.foreign.values()), other + sum(plan.foreign.values())
        elif spare > max(NOISE, failed["requested"]):
            part, estimated, measured = "pieces", 0, spare
    known = bool(part)
    step = int(record["step"] if failed is None else failed["step"])
    return Shortfall(
        phase,
        step,
        int(record["rank"]),
        plan.processes,
        part,
        estimated if known else None,
        measured if known else None,
        need,
        allowed,
        parts,
    )


def _allowed(failed: dict[str, Any]) -> int:
    """What this process could have had: its own and what was free, up to its limit."""
    return int(min(failed["limit"], failed["reserved"] + failed["free"]))


def _parts(
    plan: LaunchPlan, after: dict[str, int], peak: dict[str, int], phase: str, need: int | None
) -> dict[str, tuple[int, int]]:
    """(estimated, measured at least) of every group that something is known of."""
    loaded, ready = after.get("load", 0), after.get("ready", 0)
    gradients = max(0, after.get("backward", 0) - ready)
    states = max(0, after.get("between", 0) - ready)
    most = {p: max(peak.get(p, 0), (need or 0) if p == phase else 0) for p in PHASES}
    if phase in ("load", "ready"):
        measured = {"model": most[phase] or loaded}
    else:
        working = max(most["forward"], most["evaluate"], most["backward"])
        measured = {
            "model": loaded,
            "activations": working - loaded - states,
            "loss": most["loss"] - max(after.get("forward", 0), most["forward"]),
            "training": max(gradients + states, (need or 0) - loaded if phase == "optimizer" else 0),
        }
    guess = {group: sum(plan.parts.get(p, 0) for p in names) for group, names in GROUPS.items()}
    return {group: (guess[group], value) for group, value in measured.items() if value > 0}


def _worst(parts: dict[str, tuple[int, int]]) -> tuple[str, int, int]:
    """The group that is furthest above its estimate, "" when none is."""
    over = {group: have - want for group, (want, have) in parts.items() if have > want}
    if not over:
        return "", 0, 0
    part = max(over, key=lambda group: over[group])
    return part, *parts[part]
