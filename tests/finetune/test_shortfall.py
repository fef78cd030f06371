"""Which part was too small: verdicts from what the phases of a run held."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import LaunchPlan
from finetune.shortfall import CONTEXT, forget, judge, out_of_memory, read

MIB = 2**20
PARTS = {
    "weights": 900 * MIB,
    "embeddings": 100 * MIB,
    "gradients": 50 * MIB,
    "optimizer": 100 * MIB,
    "activations": 600 * MIB,
    "buffers": 100 * MIB,
    "loss": 200 * MIB,
    "overhead": 700 * MIB,
}
PLAN = LaunchPlan("single", 1, (0,), ("gpu-a",), "bfloat16", False, ("true",), {}, {}, "fits", PARTS)
AFTER = {
    "load": 1000,
    "ready": 1000,
    "evaluate": 1000,
    "forward": 1500,
    "loss": 1600,
    "backward": 1050,
    "between": 1100,
}
PEAK = {
    "load": 1000,
    "ready": 1000,
    "evaluate": 1200,
    "forward": 1500,
    "loss": 1650,
    "backward": 1690,
    "optimizer": 1690,
}


def a_record(phase: str, step: int = 0, upto: str = "", base: int = 0, **failed: int) -> dict[str, Any]:
    """In MiB; the phases up to ``upto`` are known. ``failed``: what the allocator said, none for one that was killed."""
    names = list(AFTER)[: list(AFTER).index(upto) + 1] if upto else []
    record: dict[str, Any] = {"version": 1, "rank": 0, "phase": phase, "step": step, "base": base * MIB}
    record["after"] = {name: AFTER[name] * MIB for name in names}
    record["peak"] = {name: PEAK[name] * MIB for name in names if name in PEAK}
    if failed:
        usual = {"allocated": 0, "reserved": 0, "requested": 0, "free": 0, "limit": 24_000, "other": 500}
        record["failed"] = {k: v * MIB for k, v in (usual | failed).items()} | {"phase": phase, "step": step}
    return record


@pytest.mark.parametrize(
    ("phase", "upto", "allocated", "requested", "part", "measured"),
    [
        ("load", "", 1900, 100, "model", 2000),
        ("forward", "evaluate", 2300, 200, "activations", 1500),
        ("loss", "forward", 1500, 900, "loss", 900),
        ("backward", "loss", 2400, 100, "activations", 1500),
        ("optimizer", "backward", 1050, 900, "training", 950),
    ],
)
def test_the_part_that_was_too_small(
    phase: str, upto: str, allocated: int, requested: int, part: str, measured: int
) -> None:
    record = a_record(phase, upto=upto, allocated=allocated, reserved=allocated, requested=requested)
    found = judge(PLAN, [record])
    assert (found.phase, found.part, found.measured) == (phase, part, measured * MIB)
    assert found.estimated is not None and found.measured is not None and found.estimated < found.measured
    assert found.need == (allocated + requested) * MIB and found.allowed == allocated * MIB


def test_what_a_process_held_before_the_run_is_no_part_of_it() -> None:
    record = a_record("forward", upto="evaluate", base=400, allocated=2700, reserved=2700, requested=200)
    assert judge(PLAN, [record]).measured == 1500 * MIB


def test_another_program_that_came_later() -> None:
    record = a_record("backward", upto="loss", allocated=1600, reserved=1650, requested=50, other=9000)
    found = judge(replace(PLAN, foreign={"0": 2000 * MIB}), [record])
    assert (found.part, found.estimated) == ("other", 2000 * MIB)
    assert found.measured == 9000 * MIB - CONTEXT


def test_memory_that_is_free_in_pieces() -> None:
    record = a_record("backward", upto="loss", allocated=1600, reserved=3000, requested=50)
    assert judge(PLAN, [record]).part == "pieces"


def test_the_limit_of_a_process_counts() -> None:
    record = a_record("forward", upto="evaluate", allocated=2300, reserved=2300, requested=200, free=50_000, limit=2400)
    assert judge(PLAN, [record]).allowed == 2400 * MIB


def test_a_process_that_was_killed_tells_its_phase() -> None:
    found = judge(PLAN, [a_record("backward", step=7, upto="loss")])
    assert (found.phase, found.step, found.need, found.allowed) == ("backward", 7, None, None)


def test_without_a_record_nothing_is_claimed() -> None:
    found = judge(PLAN, [])
    assert (found.phase, found.part, found.parts) == ("", "", {})


def test_the_rank_that_failed_speaks_first(tmp_path: Path) -> None:
    others = [a_record("forward", upto="forward") | {"rank": rank} for rank in (0, 1, 3)]
    failed = a_record("loss", upto="forward", allocated=1500, reserved=1500, requested=900) | {"rank": 2}
    for record in [*others, failed]:
        (tmp_path / f"memory.{record['rank']}.json").write_text(json.dumps(record).ljust(4096))
    (tmp_path / "memory.9.json").write_text('{"version": 1, "ra')
    found = judge(replace(PLAN, processes=4), read(tmp_path))
    assert (found.rank, found.processes, found.part) == (2, 4, "loss")
    forget(tmp_path)
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_how_libraries_say_it(error: BaseException, is_one: bool) -> None:
    assert out_of_memory(error) is is_one
