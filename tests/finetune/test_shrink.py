"""What to change when a run does not fit: hardware wishes first, then the least that helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from finetune import plan
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Shape
from finetune.shrink import apply, elsewhere, shrink
from finetune.spec import DataSpec, HardwareSpec, ModelSpec, ScheduleSpec, TrainSpec

SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"))
LLAMA_8B = Shape(4096, 32, 14336, 32, 8, 128, 128256, False)
LLAMA_70B = Shape(8192, 80, 28672, 64, 8, 128, 128256, False)


def fits(spec: TrainSpec, shape: Shape, count: int, gib: int) -> bool:
    gpus = tuple(Gpu(i, f"uuid-{i}", "card", gib * GIB, gib * GIB, True) for i in range(count))
    machine = Machine(gpus, 8, 200 * GIB, 200 * GIB, 500 * GIB)
    return plan.make(spec, machine, shape, Path("/jobs/1")).fit != "too_big"


@pytest.mark.parametrize(
    ("hardware", "shape", "count", "changed"),
    [
        (HardwareSpec(placement="single"), LLAMA_70B, 4, {"placement": "auto"}),
        (HardwareSpec(gpus="cpu"), LLAMA_70B, 4, {"gpus": "auto"}),
        (HardwareSpec(placement="single", gpus="0"), LLAMA_70B, 4, {"placement": "auto"}),
        (HardwareSpec(placement="ddp"), LLAMA_70B, 2, {"placement": "auto"}),
        (HardwareSpec(), LLAMA_70B, 4, None),
    ],
)
def test_wishes_about_hardware_go_first(
    hardware: HardwareSpec, shape: Shape, count: int, changed: dict[str, str] | None
) -> None:
    spec = replace(SPEC, hardware=hardware)
    asked: list[TrainSpec] = []

    def look(one: TrainSpec) -> bool:
        asked.append(one)
        return fits(one, shape, count, 24)

    assert elsewhere(spec, look) == changed
    assert all(one.schedule == SPEC.schedule and one.lora == SPEC.lora for one in asked)


def test_no_more_is_changed_than_is_needed() -> None:
    """Keeping every activation of long texts does not fit 24 GB; checkpointing alone brings it down."""
    spec = replace(SPEC, schedule=ScheduleSpec(max_length=4096, micro_batch=2, checkpointing=False))
    assert not fits(spec, LLAMA_8B, 1, 24)
    found = shrink(spec, lambda s: fits(s, LLAMA_8B, 1, 24))
    assert found == {"checkpointing": True} and fits(apply(spec, found), LLAMA_8B, 1, 24)


def test_the_batch_of_a_step_stays_what_it_was() -> None:
    spec = replace(SPEC, schedule=ScheduleSpec(max_length=4096, micro_batch=16, accumulation=1))
    found = shrink(spec, lambda s: fits(s, LLAMA_8B, 1, 16))
    assert found is not None and found["micro_batch"] * found["accumulation"] == 16 and "max_length" not in found


def test_nothing_helps() -> None:
    assert shrink(SPEC, lambda _: False) is None and elsewhere(SPEC, lambda _: True) is None
