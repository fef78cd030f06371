"""How long a run will take, from what has run here before."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assets.catalog import STARTER
from assets.files import Workspace, write_json
from finetune.forecast import STARTER_PER_CORE, seconds, speed
from finetune.jobs import Job, Jobs
from finetune.plan import LaunchPlan
from finetune.spec import DataSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

SPEC = TrainSpec(
    ModelSpec("some/model"), DataSpec("d"), schedule=ScheduleSpec(steps=40, accumulation=1), watch=WatchSpec(every=20)
)
PLAN = LaunchPlan("cpu", 1, (), ("cpu",), "float32", False, ("true",), {}, {}, "fits")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Workspace(tmp_path).prepare())


def ran(
    jobs: Jobs, rates: list[float | None], model: str = "some/model", method: str = "qlora", placement: str = "cpu"
) -> None:
    name = f"job-{len(jobs.list())}"
    folder = jobs.workspace.jobs / name
    folder.mkdir()
    write_json(folder / "plan.json", replace(PLAN, placement=placement).to_dict())
    lines = [
        {"event": "step", "step": n, "loss": 1.0, "seconds": 1.0, "tokens_per_second": r}
        for n, r in enumerate(rates, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    jobs.save(Job(name, name, "finished", time.time(), facts={"model": model, "method": method}))


def test_nothing_comparable_means_not_known(jobs: Jobs) -> None:
    assert speed(jobs, SPEC, PLAN, 4) is None
    ran(jobs, [100.0] * 9, model="other/model")
    ran(jobs, [100.0] * 9, method="lora")
    ran(jobs, [100.0] * 9, placement="single")
    ran(jobs, [100.0] * 6)  # too short to tell
    ran(jobs, [None] * 9)
    assert speed(jobs, SPEC, PLAN, 4) is None


def test_the_median_of_what_ran_without_the_first_steps(jobs: Jobs) -> None:
    ran(jobs, [1.0, 1.0, 100.0, 110.0, 120.0, 130.0, 140.0])
    assert speed(jobs, SPEC, PLAN, 4) == 120.0
    ran(jobs, [1.0, 1.0, *[200.0] * 5])
    ran(jobs, [1.0, 1.0, *[210.0] * 5])
    assert speed(jobs, SPEC, PLAN, 4) == 200.0


def test_the_starter_on_a_cpu_is_known_beforehand(jobs: Jobs) -> None:
    starter = replace(SPEC, model=ModelSpec(STARTER))
    assert speed(jobs, starter, PLAN, 4) == 4 * STARTER_PER_CORE
    assert speed(jobs, starter, replace(PLAN, placement="single"), 4) is None
    ran(jobs, [50.0] * 9, model=STARTER)
    assert speed(jobs, starter, PLAN, 4) == 50.0


def test_the_range_of_seconds() -> None:
    assert seconds(SPEC, 100, 200.0, None) is None and seconds(SPEC, 0, 200.0, 150.0) is None
    span = seconds(SPEC, 100, 200.0, 150.0)
    assert span is not None and span[0] < 198 < span[1]  # 25 to begin, 53 to train, 3 evaluations of 40
    for slower in (
        seconds(SPEC, 100, 200.0, 75.0),
        seconds(SPEC, 100, 400.0, 150.0),
        seconds(replace(SPEC, schedule=replace(SPEC.schedule, steps=80)), 100, 200.0, 150.0),
        seconds(replace(SPEC, schedule=replace(SPEC.schedule, accumulation=4)), 100, 200.0, 150.0),
        seconds(replace(SPEC, watch=WatchSpec(every=4)), 100, 200.0, 150.0),
    ):
        assert slower is not None and slower[0] > span[0]
    cut = replace(SPEC, schedule=replace(SPEC.schedule, max_length=200))
    assert seconds(cut, 100, 5000.0, 150.0) == span  # longer conversations are cut


def test_epochs_count_rows() -> None:
    by_epochs = replace(SPEC, schedule=ScheduleSpec(epochs=2, micro_batch=2, accumulation=5), watch=WatchSpec(every=20))
    by_steps = replace(by_epochs, schedule=replace(by_epochs.schedule, steps=20))
    assert seconds(by_epochs, 100, 200.0, 150.0) == seconds(by_steps, 100, 200.0, 150.0)


def test_a_quick_look_at_the_starter_takes_minutes() -> None:
    """Two cores, 40 short conversations, eight to evaluate: the promise of the first page is under five minutes."""
    quick = replace(SPEC, schedule=replace(SPEC.schedule, max_length=512), watch=WatchSpec(20, 8, 2, 48))
    span = seconds(quick, 240, 220.0, 2 * STARTER_PER_CORE)
    assert span is not None and 60 < sum(span) / 2 < 300
