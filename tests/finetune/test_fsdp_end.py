"""How a run of two ranks ends before its time: asked to at any moment, by a rank that fails, by one that is killed, with
its supervisor. Nothing is left running, and what was saved goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from assets.files import Workspace, read_json
from assets.leases import holder
from finetune.jobs import Job, Jobs
from finetune.progress import phase_of, read
from finetune.train_save import last_checkpoint
from tests.finetune.two_ranks import a_plan, a_spec
from tests.models import make_model

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
PATIENCE = 240.0  # the machine may be busy
GONE = 30.0


class Two:
    """Jobs on two ranks in a workspace of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.workspace = Workspace(home).prepare()
        self.jobs = Jobs(self.workspace)
        self.base = make_model(home / "base", "llama")

    def start(self, accident: str = ":", steps: int = 4, **watch: Any) -> Job:
        folder = self.jobs.new_folder()
        spec = a_spec(self.home, self.base, watch, steps=steps)
        return self.jobs.create(spec, a_plan(self.home, folder, accident), folder, "")

    def ended(self, job: Job) -> Job:
        until(lambda: not self.jobs.get(job.id).active, PATIENCE)
        return self.jobs.get(job.id)

    def folder(self, job: Job) -> Path:
        return self.jobs.folder(job.id)

    def processes(self, job: Job) -> list[psutil.Process]:
        found = psutil.process_iter(["environ"])
        return [p for p in found if (p.info["environ"] or {}).get("NARANHI_JOB") == job.id]

    def left(self, job: Job) -> list[psutil.Process]:
        return [p for p in self.processes(job) if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def until(holds: Callable[[], Any], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path / "home")


@pytest.mark.parametrize("method", ["on_step_begin", "on_evaluate", "on_save"])
def test_a_stop_in_the_middle_of_it_is_agreed_on_and_saved(method: str, two: Two) -> None:
    """A request that lands in a step or in the evaluation ends the run there; one that lands in a save, after one more
    step."""
    job = two.start(f"0:touch={method}", steps=9)
    assert two.ended(job).state == "stopped"
    step = {"on_step_begin": 2, "on_evaluate": 2, "on_save": 3}[method]
    checkpoint, broken = last_checkpoint(two.folder(job) / "checkpoints")
    assert checkpoint is not None and checkpoint.name == f"checkpoint-{step}" and not broken
    assert read(two.folder(job)).step == step and not two.left(job)
    assert read_json(two.folder(job) / "run.json")["stopped"] is True


def test_a_stop_while_loading_ends_it_at_once(two: Two) -> None:
    job = two.start("all:hang")
    until(lambda: phase_of(two.folder(job)) == "load", PATIENCE)
    ranks = two.processes(job)
    assert len(ranks) >= 3  # the launcher and its two ranks
    two.jobs.stop(job.id)
    until(lambda: not two.left(job), GONE)
    assert two.ended(job).state == "stopped"


def test_a_rank_that_fails_ends_the_run_with_its_own_error_and_the_run_goes_on(two: Two) -> None:
    job = two.start("1:fail=3")
    ended = two.ended(job)
    assert ended.state == "failed" and ended.error is not None
    assert ended.error["key"] == "train.crashed" and "this rank fails" in ended.error["values"]["reason"]
    assert not two.left(job) and holder(two.workspace, "cpu") is None
    assert last_checkpoint(two.folder(job) / "checkpoints")[0] == two.folder(job) / "checkpoints" / "checkpoint-2"
    calm(two, job)
    two.jobs.resume(job.id)
    assert two.ended(job).state == "finished"
    assert [note["key"] for note in read(two.folder(job)).notes] == ["train.resumed"]


def calm(two: Two, job: Job) -> None:
    """The same plan without the accident."""
    from assets.files import write_json

    plan = two.jobs.plan(job.id).to_dict()
    plan["env"]["NARANHI_TEST_ACCIDENT"] = ":"
    write_json(two.folder(job) / "plan.json", plan)


def test_a_loss_that_breaks_ends_all_ranks_at_the_last_good_checkpoint_and_goes_on_slower(two: Two) -> None:
    job = two.start("all:poison=4", steps=6)
    ended = two.ended(job)
    back = {"key": "train.back.not_a_number", "values": {"step": 5, "back": 2, "rate": 1.5e-3}}
    assert (ended.state, ended.error) == ("stopped", back) and not two.left(job)
    assert (two.folder(job) / "adapter" / "adapter_model.safetensors").exists()
    assert [p.name for p in (two.folder(job) / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    calm(two, job)
    two.jobs.resume(job.id)
    assert two.ended(job).state == "finished" and two.jobs.get(job.id).error is None
    assert [note["key"] for note in read(two.folder(job)).notes] == [back["key"], "train.resumed", "train.resumed_rate"]


def test_a_rank_that_is_killed_is_noticed_by_the_others(two: Two) -> None:
    job = two.start("1:kill=1")
    ended = two.ended(job)
    assert ended.state == "failed" and ended.error is not None
    assert ended.error["key"] == "train.rank_lost"
    assert not two.left(job)


def test_nothing_outlives_a_supervisor_that_is_killed(two: Two) -> None:
    """But for a rank that cannot run, here a stopped one without its launcher: it holds the device, and ends as soon as
    it can."""
    job = two.start("all:hang")
    until(lambda: phase_of(two.folder(job)) == "load", PATIENCE)
    supervisor = two.jobs.get(job.id).supervisor
    stuck = next(p for p in two.processes(job) if p.info["environ"].get("RANK") == "1")
    launcher = stuck.ppid()
    assert supervisor is not None
    until(lambda: any("members.lease" in file.path for file in stuck.open_files()), PATIENCE)
    stuck.suspend()
    for pid in (supervisor[0], launcher):
        os.kill(pid, signal.SIGKILL)
    until(lambda: [p.pid for p in two.left(job)] == [stuck.pid], GONE)
    held = holder(two.workspace, "cpu")
    assert held is not None and held["id"] == job.id
    stuck.resume()
    until(lambda: not two.left(job), GONE)
    assert holder(two.workspace, "cpu") is None
    assert two.jobs.get(job.id).error == {"key": "jobs.killed", "values": {}}


def test_nothing_outlives_it_while_ranks_train_together(two: Two) -> None:
    job = two.start(steps=5000)
    until(lambda: read(two.folder(job)).step >= 4, PATIENCE)
    supervisor = two.jobs.get(job.id).supervisor
    assert supervisor is not None
    os.kill(supervisor[0], signal.SIGKILL)
    until(lambda: not two.left(job) and holder(two.workspace, "cpu") is None, GONE)
    assert last_checkpoint(two.folder(job) / "checkpoints")[0] is not None


@pytest.mark.parametrize("method", ["on_evaluate", "on_save"])
def test_a_rank_that_fails_in_the_middle_of_it_ends_the_run(method: str, two: Two) -> None:
    """The checkpoint that was being written is not whole, so the one before it counts."""
    job = two.start(f"1:fail={method}", steps=6)
    ended = two.ended(job)
    assert ended.state == "failed" and ended.error is not None
    assert "this rank fails" in ended.error["values"]["reason"]
    assert not two.left(job) and holder(two.workspace, "cpu") is None
    checkpoint, broken = last_checkpoint(two.folder(job) / "checkpoints")
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    assert broken == {"on_evaluate": [], "on_save": ["checkpoint-4"]}[method]
