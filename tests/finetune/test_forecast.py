"""How long a run will take, from what has run here before."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER, find_model
from assets.files import Workspace, write_json
from finetune import forecast_card
from finetune.forecast import START, STARTER_PER_CORE, Forecast, Rows, Speed, forecast, passed, speed
from finetune.gpu import Gpu, Machine
from finetune.history import History
from finetune.jobs import Job, Jobs
from finetune.memory import Shape
from finetune.plan import LaunchPlan
from finetune.spec import DataSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

SPEC = TrainSpec(
    ModelSpec("some/model"), DataSpec("d"), schedule=ScheduleSpec(steps=40, accumulation=1), watch=WatchSpec(every=20)
)
PLAN = LaunchPlan("cpu", 1, (), ("cpu",), "float32", False, ("true",), {}, {}, "fits")
ROWS = Rows(100, [200], 64)


def shape_of(model: str) -> Shape:
    card = find_model(model)
    assert card is not None
    return Shape.of(card.shape, card.model_type)


SHAPE = shape_of(STARTER)
MACHINE = Machine((), 4, 2**34, 2**34, 2**40)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Workspace(tmp_path).prepare())


def ran(jobs: Jobs, rate: float, spec: TrainSpec = SPEC, steps: int = 9, **changed: Any) -> str:
    """A job with steps of one second, two slow ones first, two evaluations of 8 s, 30 s around it."""
    name = f"job-{len(jobs.list())}"
    folder = jobs.workspace.jobs / name
    folder.mkdir()
    write_json(folder / "plan.json", replace(PLAN, **changed).to_dict())
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    began = time.time() - 1000 + len(jobs.list())
    lines: list[dict[str, Any]] = [{"event": "phase", "phase": "download", "time": began}]
    lines += [{"event": "phase", "phase": "load", "time": began + 100}]
    lines += [{"event": "facts", "time": began, "rows": 100, "heldout": 64, "tokens": 20_000}]
    lines += [
        {"event": "eval", "step": 0, "loss": 1.0, "seconds": 8.0},
        {"event": "eval", "step": 9, "loss": 1.0, "seconds": 8.0},
    ]
    lines += [
        {"event": "step", "step": n, "loss": 1.0, "seconds": 1.0, "tokens_per_second": rate if n > 2 else 1.0}
        for n in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = began + 100 + steps + 16 + 30
    jobs.save(Job(name, name, "finished", began, started=began, ended=ended, facts={"model": spec.model.id}))
    return name


def known(jobs: Jobs, spec: TrainSpec = SPEC, plan: LaunchPlan = PLAN) -> Speed | None:
    return speed(History(jobs).runs(), spec, plan, SHAPE, MACHINE, 200.0)


def test_nothing_comparable_means_not_known(jobs: Jobs) -> None:
    assert known(jobs) is None and forecast(SPEC, ROWS, None) is None
    ran(jobs, 100.0, replace(SPEC, method="lora"))
    ran(jobs, 100.0, placement="single")
    ran(jobs, 100.0, processes=2)
    ran(jobs, 100.0, steps=6)  # too short to tell
    ran(jobs, 0.0)
    ran(jobs, 100.0, replace(SPEC, model=ModelSpec("other/model")))  # nobody knows how large that is
    assert known(jobs) is None


def test_the_same_settings_say_most(jobs: Jobs) -> None:
    ran(jobs, 100.0)
    found = known(jobs)
    assert found is not None and (found.basis, found.rate) == ("same", pytest.approx(100.0))
    ran(jobs, 200.0)
    found = known(jobs)
    assert found is not None and found.rate == pytest.approx((200 + 150) / 2)  # the newest counts most
    other = replace(SPEC, schedule=replace(SPEC.schedule, micro_batch=4))
    found = known(jobs, other)
    assert found is not None and found.basis == "like"
    whole = replace(SPEC, schedule=replace(SPEC.schedule, checkpointing=False))
    faster = known(jobs, whole)
    assert faster is not None and faster.rate == pytest.approx(found.rate * 4 / 3)


def test_another_model_says_it_by_its_arithmetic(jobs: Jobs) -> None:
    gemma = "google/gemma-2-2b-it"
    ran(jobs, 100.0, replace(SPEC, model=ModelSpec(gemma)))
    found = known(jobs)
    ratio = passed(shape_of(gemma)) / passed(SHAPE)
    assert found is not None and found.basis == "other" and found.rate == pytest.approx(100.0 * ratio)


def test_the_starter_on_a_cpu_is_known_beforehand(jobs: Jobs) -> None:
    starter = replace(SPEC, model=ModelSpec(STARTER))
    found = known(jobs, starter)
    assert found is not None and (found.basis, found.rate) == ("usual", 4 * STARTER_PER_CORE)
    assert known(jobs, starter, replace(PLAN, placement="single")) is None
    ran(jobs, 50.0, starter)
    found = known(jobs, starter)
    assert found is not None and found.rate == pytest.approx(50.0)


@pytest.mark.parametrize(("micro_batch", "measured"), [(4, 7469), (1, 4591)])
def test_a_known_card_says_it_before_anything_has_run(micro_batch: int, measured: int) -> None:
    """The two measurements that its constants come from; a card twice as slow, two cards, and one that nobody knows."""
    llama = Shape(4096, 32, 14336, 32, 8, 128, 128256, False)
    spec = replace(SPEC, schedule=ScheduleSpec(micro_batch=micro_batch, max_length=2048))
    one = forecast_card.rate(["NVIDIA H100 80GB HBM3"], spec, llama, passed(llama), 2048)
    assert one == pytest.approx(measured, rel=0.08)
    two = forecast_card.rate(["NVIDIA H100 80GB HBM3"] * 2, spec, llama, passed(llama), 2048)
    assert two == pytest.approx(2 * measured, rel=0.08)
    slow = forecast_card.rate(["NVIDIA H100 80GB HBM3", "Tesla T4"], spec, llama, passed(llama), 2048)
    assert slow is not None and two is not None and slow < two / 3
    assert forecast_card.rate(["some card"], spec, llama, passed(llama), 2048) is None


def test_the_card_that_the_plan_takes_is_asked() -> None:
    card = Gpu(1, "b", "NVIDIA A100-SXM4-80GB", 2**36, 2**36, True)
    other = Gpu(0, "a", "some card", 2**36, 2**36, True)
    plan = replace(PLAN, placement="single", gpus=(1,))
    found = speed([], SPEC, plan, SHAPE, replace(MACHINE, gpus=(other, card)), 200.0)
    assert found is not None and found.basis == "card"
    assert speed([], SPEC, replace(plan, gpus=(0,)), SHAPE, replace(MACHINE, gpus=(other, card)), 200.0) is None


def test_a_run_is_read_again_only_when_it_has_moved(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import history

    name, read = ran(jobs, 100.0), []
    original = history.ran
    monkeypatch.setattr(history, "ran", lambda jobs, job: (read.append(job.id), original(jobs, job))[1])
    kept = History(jobs)
    assert len(kept.runs()) == len(kept.runs()) == 1 and read == [name]
    with (jobs.workspace.jobs / name / "metrics.jsonl").open("a") as file:
        file.write('{"event": "note", "key": "x", "values": {}}\n')
    kept.runs()
    assert read == [name, name]


def told(spec: TrainSpec = SPEC, rows: Rows = ROWS, rate: float = 150.0) -> Forecast:
    found = forecast(spec, rows, Speed(rate, "usual"))
    assert found is not None
    return found


def test_the_parts_of_the_middle() -> None:
    one = told()
    assert one.step == pytest.approx(200 / 150) and one.around == START
    assert one.middle == pytest.approx(START + 40 * one.step + 3 * one.evaluation)
    assert one.low < one.middle < one.high
    for slower in (
        told(rate=75.0),
        told(rows=Rows(100, [400], 64)),
        told(replace(SPEC, schedule=replace(SPEC.schedule, steps=80))),
        told(replace(SPEC, schedule=replace(SPEC.schedule, accumulation=4))),
        told(replace(SPEC, watch=WatchSpec(every=4))),
    ):
        assert slower.middle > one.middle
    cut = replace(SPEC, schedule=replace(SPEC.schedule, max_length=200))
    assert told(cut, Rows(100, [5000], 64)).middle == one.middle  # longer conversations are cut


def test_what_a_run_took_around_its_steps_and_its_evaluations_is_learnt(jobs: Jobs) -> None:
    ran(jobs, 150.0)
    found = forecast(SPEC, ROWS, known(jobs))
    assert found is not None
    assert found.around == pytest.approx(30.0) and found.evaluation == pytest.approx(8.0)
    assert found.middle == pytest.approx(30 + 40 * 200 / 150 + 3 * 8)


def test_runs_that_differ_widen_the_range(jobs: Jobs) -> None:
    for rate in (100.0, 100.0, 300.0):
        ran(jobs, rate)
    found = forecast(SPEC, ROWS, known(jobs))
    assert found is not None and found.high / found.middle == pytest.approx(2.0) and found.low / found.middle < 0.8


def test_epochs_count_rows() -> None:
    by_epochs = replace(SPEC, schedule=ScheduleSpec(epochs=2, micro_batch=2, accumulation=5))
    by_steps = replace(by_epochs, schedule=replace(by_epochs.schedule, steps=20))
    assert told(by_epochs) == told(by_steps)


def test_the_steps_that_fit() -> None:
    one = told()
    assert one.steps_within(1e6) == 40 and one.steps_within(10) == 0
    room = one.around + 6 * one.evaluation + 10.5 * one.step
    assert one.steps_within(room) == 10


def test_a_quick_look_at_the_starter_takes_minutes() -> None:
    """Two cores, 40 short conversations, eight to evaluate: the promise of the first page is under five minutes."""
    quick = replace(SPEC, schedule=replace(SPEC.schedule, max_length=512), watch=WatchSpec(20, 8, 2, 48))
    assert 60 < told(quick, Rows(240, [220], 60)).middle < 300
