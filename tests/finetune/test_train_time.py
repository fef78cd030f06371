"""A trainer that keeps to its time: the course of the learning rate, what is told, and a real run whose time is up."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assets.files import Workspace, read_json
from finetune import supervise, train
from finetune.progress import read
from finetune.spec import BudgetSpec, DataSpec, ModelSpec, TrainSpec, WatchSpec
from tests.finetune.two_ranks import a_spec
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")
SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"), watch=WatchSpec(every=0))


class Told:
    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.facts: dict[str, Any] = {}

    def note(self, key: str, **values: Any) -> None:
        self.notes.append((key, values))

    def write(self, event: str, **values: Any) -> None:
        self.facts |= values


def a_scheduler(total: int, warm: int, kind: str = "cosine") -> Any:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return optimizer, get_scheduler(kind, optimizer, num_warmup_steps=warm, num_training_steps=total)


def rates(optimizer: Any, scheduler: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_course_of_a_shortened_run_is_that_of_a_short_one(kind: str) -> None:
    from finetune.train_time import shorten_course

    optimizer, scheduler = a_scheduler(1000, 30, kind)
    rates(optimizer, scheduler, 4)
    shorten_course(scheduler, 50, 2)
    short = rates(*a_scheduler(50, 2, kind), 50)
    assert rates(optimizer, scheduler, 46) == pytest.approx(short[4:]) and short[-1] == pytest.approx(0.0)


def test_a_constant_rate_stays() -> None:
    from finetune.train_time import shorten_course

    optimizer, scheduler = a_scheduler(1000, 0, "constant")
    shorten_course(scheduler, 50, 2)
    assert set(rates(optimizer, scheduler, 60)) == {1.0}


def play(seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Any, Told]:
    """A trainer's loop whose steps take a second each on a clock of its own: steps done, the callback, what it told."""
    from finetune import train_time

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(train_time, "time", SimpleNamespace(time=lambda: 1e9 + clock.now, monotonic=lambda: clock.now))
    told, watch = Told(), SimpleNamespace(stopped=False, moved=True)
    timed = train_time.InTime(1e9 + seconds, SPEC, watch, told)
    args = SimpleNamespace(eval_steps=steps // 5, eval_strategy="steps")
    state = SimpleNamespace(max_steps=steps, eval_steps=steps // 5, save_steps=steps // 5, global_step=0)
    control = SimpleNamespace(should_training_stop=False, should_save=False, should_evaluate=False)
    _, scheduler = a_scheduler(steps, 1)
    timed.on_train_begin(args, state, control)
    while state.global_step < state.max_steps and not control.should_training_stop:
        control.should_save = control.should_evaluate = False
        timed.on_step_begin(args, state, control)
        clock.now += 1.0
        state.global_step += 1
        control.should_save = control.should_evaluate = state.global_step % state.eval_steps == 0
        timed.on_step_end(args, state, control, lr_scheduler=scheduler)
        if control.should_evaluate:
            clock.now += 4.0
            timed.on_evaluate(args, state, control)
        if control.should_save:
            clock.now += 1.0
            timed.on_save(args, state, control)
    assert clock.now <= seconds
    return state.global_step, timed, told


def test_a_run_with_time_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, timed, told = play(1000, 50, monkeypatch)
    assert steps == 50 and timed.ended(50) is None and told.notes == []


def test_a_run_without_tells_how_many_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, timed, told = play(200, 5000, monkeypatch)
    ended = timed.ended(steps)
    assert ended is not None and ended["asked"] == 5000 and ended["step"] == steps > 100
    key = "train.time.cut" if ended["cut"] else "train.time.shortened"
    assert told.notes == [(key, {"step": steps, "asked": 5000})]
    assert told.facts["asked_steps"] == 5000


def test_a_run_that_ended_for_another_reason_was_not_short_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, timed, told = play(1000, 50, monkeypatch)
    assert timed.ended(steps - 20) is None and told.notes == []


def test_the_deadline_is_the_supervisors_or_counts_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.train_time import DEADLINE, deadline_of

    monkeypatch.delenv(DEADLINE, raising=False)
    assert deadline_of(SPEC) is None
    limited = replace(SPEC, budget=BudgetSpec(minutes=10))
    found = deadline_of(limited)
    assert found is not None and 590 < found - time.time() < 601
    monkeypatch.setenv(DEADLINE, "123.5")
    assert deadline_of(limited) == 123.5


def test_a_run_that_goes_on_keeps_its_course(tmp_path: Path) -> None:
    from finetune.train_time import as_before

    (tmp_path / "trainer_state.json").write_text('{"max_steps": 71}')
    limited = replace(SPEC, budget=BudgetSpec(minutes=10))
    assert as_before(limited, tmp_path).schedule.steps == 71
    assert as_before(limited, None) == limited and as_before(SPEC, tmp_path) == SPEC


def test_a_run_whose_time_is_up_finishes_with_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline passed while it loaded: as soon as anything was learnt it evaluates, saves and ends, not as failed."""
    home = tmp_path / "home"
    monkeypatch.setenv("NARANHI_HOME", str(home))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    monkeypatch.setenv("NARANHI_DEADLINE", str(time.time()))
    workspace = Workspace.from_environment().prepare()
    spec = a_spec(home, make_model(tmp_path / "base", "llama"), watch={"every": 0}, steps=500, warmup=0.0)
    folder = workspace.jobs / "job"
    folder.mkdir(parents=True)
    assert train.run(spec, folder, workspace) == 0
    progress = read(folder)
    done = progress.steps[-1]["step"]
    assert done < 10 and [row["step"] for row in progress.evals] == [0, done]
    assert [note["key"] for note in progress.notes] == ["train.time.cut"]
    assert (folder / "checkpoints" / f"checkpoint-{done}" / "complete.json").exists()
    record = read_json(folder / "run.json")
    assert record["time_limit"]["step"] == done and record["time_limit"]["asked"] == 500 and not record["stopped"]
    assert supervise._ended(folder, 0, out_of_memory=False)["state"] == "finished"
    phases = read_json(folder / "memory.0.json")["after"]
    assert {"load", "ready", "forward", "loss", "backward", "optimizer"} <= phases.keys()
