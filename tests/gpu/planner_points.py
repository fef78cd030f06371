"""The points at which the planner is held against real runs, and the table of them.

Covers: which runs, their spec, the planner's word on each, a line of the table. Does not cover: running them (planner.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.memory import Estimate, estimate
from finetune.spec import DataSpec, HardwareSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec
from tests.gpu.packed_base import shape_of

STEPS, ACCUMULATION = 2, 2
HEAD = (
    "| shape | tokens | micro-batch | checkpointing | ranks "
    "| reserved GB | estimate | error | allocated GB | estimate | error |"
)
RULE = "|---|---:|---:|---|---|---:|---:|---:|---:|---:|---:|"


@dataclass(frozen=True)
class Point:
    """One run. ``placement`` is "single", "ddp" or "fsdp"."""

    shape: str
    length: int
    micro: int = 1
    checkpointing: bool = True
    ranks: int = 1
    placement: str = "single"
    offload: bool = False
    objective: str = "sft"

    @property
    def name(self) -> str:
        parts = [self.shape, f"{self.micro}x{self.length}"]
        parts += [] if self.checkpointing else ["whole"]
        parts += [] if self.placement == "single" else [f"{self.ranks}{self.placement}"]
        parts += ["offload"] if self.offload else []
        return "-".join([*parts, *([self.objective] if self.objective != "sft" else [])])


def points(shapes: list[str], only: list[str]) -> list[Point]:
    """The most telling first: what a budget cuts off is what repeats a lesson. ``only`` those with one of the words in
    their name."""
    every = [
        Point("llama8b", 2048, 1),
        Point("gemma2_9b", 2048, 1, False),
        Point("llama8b", 2048, 4),
        Point("llama1b", 512, 1),
        Point("gemma2_2b", 512, 1),
        Point("llama1b", 2048, 4, False),
        Point("gemma2_9b", 512, 1),
        Point("gemma2_2b", 4096, 1),
        Point("llama8b", 512, 4, False),
        Point("gemma2_9b", 2048, 4),
        Point("llama8b", 4096, 4),
        Point("llama1b", 4096, 4),
        Point("gemma2_2b", 2048, 4),
        Point("llama8b", 512, 1),
        Point("gemma2_2b", 512, 1, False),
        Point("llama1b", 2048, 1),
        Point("gemma2_9b", 4096, 1),
        Point("llama8b", 2048, 1, False),
        Point("llama1b", 512, 4, False),
        Point("llama8b", 2048, 1, True, 2, "ddp"),
        Point("llama8b", 2048, 1, True, 2, "fsdp"),
        Point("gemma2_9b", 512, 1, True, 4, "fsdp"),
        Point("llama1b", 2048, 1, True, 4, "ddp"),
        Point("llama8b", 2048, 4, True, 4, "fsdp"),
        Point("gemma2_2b", 2048, 4, True, 2, "fsdp"),
        Point("llama1b", 2048, 4, True, 2, "fsdp"),
        Point("llama8b", 512, 1, True, 2, "fsdp", offload=True),
        Point("gemma2_9b", 2048, 1, True, 2, "fsdp"),
        Point("gemma2_2b", 512, 4, True, 2, "ddp"),
        Point("gemma2_9b", 512, 4, False),
        Point("gemma2_9b", 2048, 1),
        Point("llama8b", 4096, 1),
        Point("gemma2_2b", 2048, 1, False),
        Point("llama8b", 512, 4),
        Point("gemma2_9b", 512, 4),
        Point("llama1b", 4096, 1, False),
    ]
    tiny = [Point(n, s, m, c) for n in ("tiny", "tiny_gemma2") for s, m, c in ((64, 1, True), (64, 4, False))]
    tiny += [Point("tiny", 64, 1, True, 2, "fsdp"), Point("tiny_gemma2", 64, 2, True, 2, "ddp")]
    return [p for p in every + tiny if p.shape in shapes and (not only or any(word in p.name for word in only))]


def spec_of(point: Point, home: Path) -> TrainSpec:
    return TrainSpec(
        ModelSpec(str(home / "bases" / point.shape)),
        DataSpec(f"talks-{point.length}-{point.micro}.jsonl", "file", heldout=0.0),
        lora=LoraSpec(rank=16, alpha=32),
        schedule=ScheduleSpec(
            steps=STEPS,
            micro_batch=point.micro,
            accumulation=ACCUMULATION,
            max_length=point.length,
            warmup=0.0,
            checkpointing=point.checkpointing,
            learning_rate=1e-4,
        ),
        watch=WatchSpec(every=STEPS, samples=0),
        hardware=HardwareSpec(offload=point.offload),
        objective=point.objective,
        start="" if point.objective == "sft" else "jobs/parent/adapter",
    )


def guess(point: Point, home: Path = Path("/")) -> Estimate:
    sharded = point.placement == "fsdp"
    return estimate(shape_of(point.shape), spec_of(point, home), point.ranks, sharded)


def row(found: dict[str, Any]) -> str:
    """A line of the table; errors are of the estimate against what was measured."""
    point, made = point_of(found), guess(point_of(found))
    shape = point.shape if point.objective == "sft" else f"{point.shape}, {point.objective.upper()}"
    where = "1" if point.placement == "single" else f"{point.ranks}, {point.placement.upper()}"
    where += ", offload" if point.offload else ""
    cells = [
        shape,
        str(point.length),
        str(point.micro),
        "yes" if point.checkpointing else "no",
        where,
    ]
    figures = [*_against(found.get("reserved"), made.reserved), *_against(found.get("allocated"), made.allocated)]
    return "| " + " | ".join([*cells, *figures, *([found["why"]] if "why" in found else [])]) + " |"


def _against(measured: list[int] | None, estimated: int) -> tuple[str, str, str]:
    """Measured, estimated, the error of the estimate; the largest of all ranks counts."""
    if not measured:
        return "–", f"{estimated / 1e9:.2f}", "–"
    return f"{max(measured) / 1e9:.2f}", f"{estimated / 1e9:.2f}", f"{estimated / max(measured) - 1:+.1%}"


def point_of(found: dict[str, Any]) -> Point:
    return Point(**{key: found[key] for key in Point.__dataclass_fields__ if key in found})
