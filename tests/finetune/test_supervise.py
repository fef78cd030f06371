"""The real supervisor process around a script that only pretends to train."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assets.leases import acquire, holder
from finetune import supervise
from finetune.spec import BudgetSpec
from tests.finetune.fake_run import SPEC, Runs, gone, until

# A supervisor outlives the program that started it, so nobody waits for it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def test_it_imports_neither_torch_nor_gradio() -> None:
    code = "import sys, finetune.supervise; assert not {'torch', 'gradio', 'transformers'} & set(sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_a_run_that_finishes(runs: Runs) -> None:
    job = runs.create("finish")
    assert job.state in ("starting", "running", "finished")
    job = runs.ended(job)
    assert (job.state, job.exit_code, job.error, job.attempt, job.supervisor) == ("finished", 0, None, 1, None)
    assert job.started is not None and job.ended is not None and job.created <= job.started <= job.ended
    log = runs.read(job, "train.log")
    assert f"hello from finish {job.id} {runs.workspace.root}" in log
    assert runs.read(job, "supervisor.log") == ""
    until(lambda: holder(runs.workspace, "cpu") is None)


@pytest.mark.parametrize(
    ("mode", "code", "key", "values"),
    [
        ("crash", 1, "train.crashed", {"reason": "1"}),
        ("error", 1, "train.not_a_number", {"step": 7}),
        ("empty", 0, "train.no_adapter", {"reason": "0"}),
    ],
)
def test_a_run_that_fails_says_why(runs: Runs, mode: str, code: int, key: str, values: dict[str, object]) -> None:
    job = runs.ended(runs.create(mode))
    assert (job.state, job.exit_code, job.error) == ("failed", code, {"key": key, "values": values})
    assert mode != "crash" or "ZeroDivisionError: no reason" in runs.read(job, "train.log")


def test_killed_from_outside(runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    os.kill(runs.pid(job), signal.SIGKILL)
    job = runs.ended(job)
    assert (job.state, job.exit_code) == ("failed", -signal.SIGKILL)
    assert job.error == {"key": "train.killed", "values": {"signal": "SIGKILL"}}


def test_the_lease_is_held_while_it_runs_stop_saves_and_resume_goes_on(runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job, 2)
    held = holder(runs.workspace, "cpu")
    assert held is not None and (held["kind"], held["id"], held["name"]) == ("job", job.id, "연습")
    assert runs.jobs.get(job.id).state == "running"
    runs.jobs.stop(job.id)
    assert runs.jobs.stopping(job.id)
    job = runs.ended(job)
    assert (job.state, job.exit_code, job.error) == ("stopped", 3, None)
    until(lambda: holder(runs.workspace, "cpu") is None)

    with runs.path(job, "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')  # as a writer that was killed would leave it
    first, reached = job.started, int(runs.read(job, "checkpoint"))
    job = runs.jobs.resume(job.id)
    assert (job.attempt, job.ended, job.exit_code) == (2, None, None) and job.active
    assert not runs.jobs.stopping(job.id)
    runs.steps(job, reached + 1)
    assert runs.jobs.get(job.id).started == first
    runs.path(job, "enough").touch()
    assert runs.ended(job).state == "finished"
    rows = [json.loads(line) for line in runs.read(job, "metrics.jsonl").splitlines() if not line.endswith('"st')]
    assert [row["phase"] for row in rows if row["event"] == "phase"] == ["start", "train", "start", "train"]
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, rows[-1]["step"] + 1))


def test_before_the_first_step_a_stop_ends_at_once(runs: Runs) -> None:
    job = runs.create("load")
    until(lambda: '"load"' in runs.read(job, "metrics.jsonl"))
    asked = time.monotonic()
    runs.jobs.stop(job.id)
    assert runs.ended(job).state == "stopped"
    assert time.monotonic() - asked < 30
    until(lambda: gone(runs.pid(job)))


def test_sigterm_to_the_supervisor_saves_and_stops(runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    who = runs.jobs.get(job.id).supervisor
    assert who is not None
    os.kill(who[0], signal.SIGTERM)
    assert runs.ended(job).state == "stopped"


def test_a_forked_child_is_gone_afterwards(runs: Runs) -> None:
    job = runs.ended(runs.create("fork"))
    assert job.state == "finished"
    until(lambda: gone(runs.pid(job, "child")))
    until(lambda: holder(runs.workspace, "cpu") is None)


def test_killing_the_supervisor_fails_the_job_and_ends_the_training(runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    who = runs.jobs.get(job.id).supervisor
    assert who is not None
    os.kill(who[0], signal.SIGKILL)
    job = runs.ended(job)
    assert job.state == "failed" and job.error == {"key": "jobs.killed", "values": {}} and job.ended
    until(lambda: gone(runs.pid(job)), 15)
    until(lambda: holder(runs.workspace, "cpu") is None)
    assert runs.jobs.get(job.id) == job
    again = runs.jobs.resume(job.id)  # nothing is locked by what happened
    runs.path(job, "enough").touch()
    assert again.attempt == 2 and runs.ended(again).state == "finished"


def test_a_queue_of_three_moves_on_without_an_app(runs: Runs) -> None:
    queued = [runs.create("wait"), runs.create("finish"), runs.create("orphan"), runs.create("finish")]
    runs.steps(queued[0])
    assert [runs.jobs.get(job.id).state for job in queued] == ["running", "queued", "queued", "queued"]
    runs.path(queued[0], "enough").touch()
    # From here on only supervisors call start_next; the third run leaves a process that holds the lease for a while.
    for job in queued:
        assert runs.ended(job).state == "finished"
    ran = [(float(runs.read(job, "runs")), float(runs.read(job, "done"))) for job in queued]
    assert all(before[1] <= after[0] for before, after in zip(ran, ran[1:], strict=False))


def test_jobs_on_other_devices_run_beside_each_other(runs: Runs) -> None:
    one, other = runs.create("wait", "gpu-a"), runs.create("wait", "gpu-b")
    runs.steps(one)
    runs.steps(other)
    assert [runs.jobs.get(job.id).state for job in (one, other)] == ["running", "running"]
    for job in (one, other):
        runs.jobs.stop(job.id)
    assert [runs.ended(job).state for job in (one, other)] == ["stopped", "stopped"]


def test_out_of_memory_is_told_from_a_kill(tmp_path: Path) -> None:
    ended = supervise._ended(tmp_path, -signal.SIGKILL, out_of_memory=True)
    assert ended["error"]["key"] == "train.host_memory"
    assert supervise._ended(tmp_path, -signal.SIGTERM, out_of_memory=True)["error"]["key"] == "train.killed"


def test_finished_needs_record_and_weights(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert supervise._ended(tmp_path, 0, False)["state"] == "failed"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    assert supervise._ended(tmp_path, 0, False)["state"] == "finished"
    (tmp_path / "run.json").unlink()
    assert supervise._ended(tmp_path, 0, False)["state"] == "failed"
    assert supervise._ended(tmp_path, 3, False)["state"] == "stopped"


def test_a_time_limit_counts_from_the_start_and_the_run_is_told(runs: Runs) -> None:
    folder = runs.jobs.new_folder()
    limited = replace(SPEC, budget=BudgetSpec(minutes=10))
    job = runs.jobs.create(limited, runs.plan(folder, "finish"), folder, "")
    job = runs.ended(job)
    assert job.state == "finished" and job.started is not None and job.deadline is not None
    assert job.deadline - job.started == pytest.approx(600, abs=5)
    assert f"until {job.deadline}" in runs.read(job, "train.log")


def test_a_run_whose_time_has_passed_in_the_queue_does_not_start(runs: Runs) -> None:
    held = acquire(runs.workspace, ("cpu",), {"kind": "job", "id": "x", "name": "x"})
    assert held is not None
    late, next_one = runs.create("finish"), runs.create("finish")
    runs.jobs.change(late.id, deadline=time.time() - 60)
    held.release()
    runs.jobs.start_next()
    late = runs.ended(late)
    assert late.state == "stopped" and late.error is not None and late.error["key"] == "train.time.too_late"
    assert runs.read(late, "train.log") == ""
    assert runs.ended(next_one).state == "finished"
    again = runs.jobs.resume(late.id)  # asked for anew, its time begins anew
    assert again.deadline is None and runs.ended(again).state == "finished"
