"""Real runs on the CPU whose memory runs out on purpose: alone, by a click, by themselves, and on one rank of two."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assets.files import Workspace
from finetune import remedy
from finetune.jobs import Job, Jobs
from finetune.plan import LaunchPlan, _argv
from finetune.progress import read
from finetune.spec import RescueSpec, TrainSpec
from tests.finetune.fake_run import until
from tests.finetune.two_ranks import a_plan, a_spec, own_environment
from tests.models import make_model

# A supervisor outlives the program that started it, so nobody waits for it.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PATIENCE = 300.0


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    """Six steps of four conversations each, a checkpoint after every second."""
    return a_spec(tmp_path, make_model(tmp_path / "base", "llama"), steps=6, micro_batch=4)


def begin(home: Path, spec: TrainSpec, accident: str, ranks: int = 1) -> tuple[Jobs, Job]:
    jobs = Jobs(Workspace(home).prepare())
    folder = jobs.new_folder()
    if ranks > 1:
        plan = a_plan(home, folder, accident)
    else:
        env = {**own_environment(home, accident), "NARANHI_TEST_ALONE": "1"}
        argv = _argv(folder, launcher=False)
        plan = LaunchPlan("cpu", 1, (), ("cpu",), "bfloat16", False, argv, env, {}, "fits")
    job = jobs.create(spec, plan, folder, "")
    until(lambda: not jobs.get(job.id).active, PATIENCE)
    return jobs, jobs.get(job.id)


def test_it_goes_on_by_itself_and_learns_the_same(tmp_path: Path, spec: TrainSpec) -> None:
    """In float32 the smaller micro-batches of the same conversations give the same losses as a run with enough memory."""
    exact = replace(spec, hardware=replace(spec.hardware, precision="float32"))
    jobs, whole = begin(tmp_path, exact, ":")
    assert whole.state == "finished" and whole.tries == ()
    jobs, job = begin(tmp_path, replace(exact, rescue=RescueSpec(smaller=True)), "all:memory=3")
    assert job.state == "finished" and job.attempt == 3 and job.memory is None
    assert [entry["by"] for entry in job.tries] == ["itself", "itself"]
    first, second = (entry["remedy"] for entry in job.tries)
    assert (first["changed"], second["changed"]) == (
        {"micro_batch": 2, "accumulation": 2},
        {"micro_batch": 1, "accumulation": 4},
    )
    assert first["step"] == second["step"] == 2
    shortfall = job.tries[0]["shortfall"]
    assert (shortfall["phase"], shortfall["step"], shortfall["part"]) == ("loss", 3, "loss")
    assert shortfall["measured"] >= 300 * 2**20
    progress = read(jobs.folder(job.id))
    assert [note["key"] for note in progress.notes] == ["train.resumed", "train.resumed"]
    usual = {row["step"]: row["loss"] for row in read(jobs.folder(whole.id)).steps}
    assert {row["step"]: row["loss"] for row in progress.steps} == pytest.approx(usual, rel=2e-3)


def test_a_click_goes_on_from_the_last_checkpoint(tmp_path: Path, spec: TrainSpec) -> None:
    jobs, job = begin(tmp_path, spec, "all:memory=5")
    assert job.state == "failed" and job.error == {"key": "train.out_of_memory", "values": {}}
    assert job.memory is not None and job.memory["remedy"]["step"] == 4
    folder = jobs.folder(job.id)
    plan = jobs.plan(job.id)
    calm = replace(plan, env={**plan.env, "NARANHI_TEST_ACCIDENT": ":"})
    (folder / "plan.json").write_text(json.dumps(calm.to_dict()), encoding="utf-8")
    remedy.go_on(jobs, job.id)
    until(lambda: not jobs.get(job.id).active, PATIENCE)
    job = jobs.get(job.id)
    assert job.state == "finished" and [entry["by"] for entry in job.tries] == ["person"]
    assert jobs.spec(job.id).schedule.micro_batch == 2
    assert [row["step"] for row in read(folder).steps] == [1, 2, 3, 4, 5, 6]


def test_one_rank_of_two(tmp_path: Path, spec: TrainSpec) -> None:
    """The rank that ran out is named, though the other one ends for having lost it."""
    jobs, job = begin(tmp_path, spec, "1:memory=3", ranks=2)
    assert job.state == "failed" and job.error == {"key": "train.out_of_memory", "values": {}}
    assert job.memory is not None
    found = job.memory["shortfall"]
    assert (found["rank"], found["processes"], found["phase"], found["part"]) == (1, 2, "loss", "loss")
    assert sorted(file.name for file in jobs.folder(job.id).glob("memory.*.json")) == ["memory.0.json", "memory.1.json"]
    assert job.ended is not None and job.ended <= time.time()
