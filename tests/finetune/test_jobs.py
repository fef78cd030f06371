"""Jobs on disk: one folder each, one lock, any number of apps."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import read_json, write_json
from assets.leases import acquire
from finetune import jobs as module
from finetune import sources
from finetune.jobs import ROOT, Job, Jobs, alive, from_dict, identity
from tests.finetune.fake_run import SPEC, Runs, until

# A supervisor outlives the program that started it, so nobody waits for it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def busy(runs: Runs) -> Iterator[Runs]:
    """A workspace whose devices are taken, so that jobs stay in the queue."""
    lease = acquire(runs.workspace, ("cpu", "gpu-a", "gpu-b"), {"kind": "engine"})
    assert lease is not None
    yield runs
    for handle in lease.handles:
        try:
            os.close(handle)
        except OSError as error:
            assert error.errno == errno.EBADF


def refused(key: str, call: Any, *values: Any) -> None:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key


def put(runs: Runs, **values: Any) -> Job:
    """A job folder as somebody left it."""
    job = Job(
        **{"id": f"job-{len(runs.jobs.list())}", "name": "n", "state": "finished", "created": time.time()} | values
    )
    folder = runs.workspace.jobs / job.id
    folder.mkdir()
    (folder / "spec.yaml").write_text(SPEC.to_yaml(), encoding="utf-8")
    write_json(folder / "plan.json", runs.plan(folder, "finish").to_dict())
    runs.jobs.save(job)
    return job


def test_what_is_written_is_read_again(busy: Runs) -> None:
    job = busy.create("finish", request="abc")
    assert (job.state, job.name, job.attempt, job.active) == ("queued", "연습", 1, True)
    assert job.facts == {"model": "some/model", "data": "naranhi/emotion-ko", "method": "qlora", "rank": 16}
    fresh = Jobs(busy.workspace)
    assert fresh.get(job.id) == job and fresh.list() == [job]
    assert fresh.spec(job.id) == SPEC
    assert fresh.plan(job.id) == busy.plan(fresh.folder(job.id), "finish")
    assert read_json(busy.path(job, "job.json"))["version"] == 1


def test_files_of_the_plan_lie_in_the_folder(busy: Runs) -> None:
    folder = busy.jobs.new_folder()
    plan = replace(busy.plan(folder, "finish"), files={"accelerate.yaml": "num_processes: 2\n"})
    busy.jobs.create(SPEC, plan, folder, "")
    assert (folder / "accelerate.yaml").read_text() == "num_processes: 2\n"


def test_the_newest_comes_first_and_names_are_optional(busy: Runs) -> None:
    first, second = busy.create("finish"), busy.create("finish")
    assert [job.id for job in busy.jobs.list()] == [second.id, first.id]
    folder = busy.jobs.new_folder()
    job = busy.jobs.create(replace(SPEC, name=""), busy.plan(folder, "finish"), folder, "")
    assert job.name == folder.name == job.id


@pytest.mark.parametrize("name", ["", ".", "..", "../jobs", "a/b", "/etc", "없음", "queue.lock"])
def test_only_our_own_folders_are_runs(runs: Runs, name: str) -> None:
    for call in (runs.jobs.get, runs.jobs.folder, runs.jobs.stop, runs.jobs.resume, runs.jobs.again, runs.jobs.delete):
        refused("jobs.unknown", call, name)


def test_a_double_click_makes_one_run(busy: Runs) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: busy.create("finish", request="click"), range(8)))
    assert len({job.id for job in made}) == 1 and len(busy.jobs.list()) == 1
    assert busy.create("finish", request="another click").id != made[0].id


def test_no_token_is_not_the_same_token(busy: Runs) -> None:
    assert busy.create("finish").id != busy.create("finish").id


def test_a_queued_run_is_taken_out_and_put_back(busy: Runs) -> None:
    job = busy.create("finish")
    refused("jobs.still_active", busy.jobs.delete, job.id)
    busy.jobs.stop(job.id)
    job = busy.jobs.get(job.id)
    assert job.state == "stopped" and not busy.jobs.stopping(job.id)
    job = busy.jobs.resume(job.id)
    assert (job.state, job.attempt) == ("queued", 2)
    busy.jobs.stop(job.id)
    busy.jobs.delete(job.id)
    assert busy.jobs.list() == [] and not (busy.workspace.jobs / job.id).exists()


def test_finished_runs_are_neither_resumed_nor_stopped(runs: Runs) -> None:
    job = put(runs)
    runs.jobs.stop(job.id)
    assert runs.jobs.resume(job.id) == job == runs.jobs.get(job.id)
    runs.jobs.delete(job.id)
    assert runs.jobs.list() == []


def test_a_running_run_is_not_deleted(runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    refused("jobs.still_active", runs.jobs.delete, job.id)
    runs.jobs.stop(job.id)
    runs.ended(job)
    runs.jobs.delete(job.id)
    assert runs.jobs.list() == []


def test_devices_wanted_by_an_older_run_are_not_given_away(runs: Runs) -> None:
    lease = acquire(runs.workspace, ("gpu-a",), {"kind": "engine"})
    assert lease is not None
    folder = runs.jobs.new_folder()
    both = replace(runs.plan(folder, "finish"), devices=("gpu-a", "gpu-b"))
    older = runs.jobs.create(SPEC, both, folder, "")
    younger, other = runs.create("finish", "gpu-b"), runs.create("finish", "gpu-c")
    assert runs.ended(other).state == "finished"
    assert [runs.jobs.get(j.id).state for j in (older, younger)] == ["queued", "queued"]
    lease.release()
    runs.jobs.start_next()
    assert [runs.ended(j).state for j in (older, younger)] == ["finished", "finished"]
    assert float(runs.read(older, "done")) <= float(runs.read(younger, "runs"))


def test_of_a_group_one_goes_after_the_other_though_devices_are_free(runs: Runs) -> None:
    lease = acquire(runs.workspace, ("gpu-a", "gpu-b", "gpu-c"), {"kind": "engine"})
    assert lease is not None
    mine = []
    for device in ("gpu-a", "gpu-b"):
        folder = runs.jobs.new_folder()
        mine.append(runs.jobs.create(SPEC, runs.plan(folder, "finish", device), folder, "", "together"))
    other = runs.create("finish", "gpu-c")
    lease.release()
    runs.jobs.start_next()
    assert [runs.ended(job).state for job in (*mine, other)] == ["finished"] * 3
    assert [runs.jobs.get(job.id).group for job in (*mine, other)] == ["together", "together", ""]
    assert float(runs.read(mine[0], "done")) <= float(runs.read(mine[1], "runs"))


def test_taking_a_run_out_of_the_queue_lets_younger_ones_pass(runs: Runs) -> None:
    lease = acquire(runs.workspace, ("gpu-a",), {"kind": "engine"})
    assert lease is not None
    folder = runs.jobs.new_folder()
    older = runs.jobs.create(SPEC, replace(runs.plan(folder, "finish"), devices=("gpu-a", "gpu-b")), folder, "")
    younger = runs.create("finish", "gpu-b")
    assert younger.state == "queued"
    runs.jobs.stop(older.id)
    assert runs.ended(younger).state == "finished" and runs.jobs.get(older.id).state == "stopped"
    lease.release()


def test_two_apps_that_start_at_once_run_each_job_once(runs: Runs) -> None:
    devices = ("gpu-a", "gpu-b", "gpu-c")
    lease = acquire(runs.workspace, devices, {"kind": "engine"})
    assert lease is not None
    queued = [runs.create("finish", device) for device in (*devices, "gpu-a")]
    lease.release()
    code = (
        "import sys, time, pathlib; from assets.files import Workspace; from finetune.jobs import Jobs\n"
        "root = pathlib.Path(sys.argv[1]); (root / sys.argv[2]).touch()\n"
        "while not (root / 'go').exists(): time.sleep(0.001)\n"
        "Jobs(Workspace(root)).start_next()"
    )
    root = runs.workspace.root
    argv = [sys.executable, "-W", "ignore", "-c", code, str(root)]
    apps = [subprocess.Popen([*argv, f"ready-{i}"], cwd=ROOT) for i in range(2)]
    until(lambda: all((root / f"ready-{i}").exists() for i in range(2)))
    (root / "go").touch()
    assert [app.wait(60) for app in apps] == [0, 0]
    for job in queued:
        assert runs.ended(job).state == "finished"
        assert len(runs.read(job, "runs").splitlines()) == 1


def test_a_lost_supervisor_blocks_nothing(busy: Runs) -> None:
    me = identity(os.getpid())
    assert me is not None
    lost = put(busy, state="running", supervisor=(me[0], me[1] - 1), started=1.0)
    never = put(busy, state="starting", supervisor=None)
    began = time.monotonic()
    for job in (lost, never):
        seen = busy.jobs.get(job.id)
        assert (seen.state, seen.error) == ("failed", {"key": "jobs.killed", "values": {}}) and seen.ended
    busy.create("finish")
    busy.jobs.stop(lost.id)
    assert busy.jobs.get(lost.id).state == "failed"
    assert busy.jobs.resume(lost.id).state == "queued"
    busy.jobs.delete(never.id)
    assert time.monotonic() - began < 20  # the lock is not waited for


def test_reading_writes_nothing(busy: Runs) -> None:
    job = put(busy, state="running", supervisor=(1, -1.0))
    before = busy.path(job, "job.json").read_bytes()
    assert busy.jobs.list()[0].state == "failed"
    assert busy.path(job, "job.json").read_bytes() == before


def test_an_old_job_file_is_read_and_a_newer_one_refused(runs: Runs) -> None:
    old = {"id": "old", "name": "예전", "state": "stopped", "created": 1.0}
    (runs.workspace.jobs / "old").mkdir()
    write_json(runs.workspace.jobs / "old" / "job.json", old)
    job = runs.jobs.get("old")
    assert (job.attempt, job.request, job.facts, job.error, job.version) == (1, "", {}, None, 1)
    assert from_dict(old | {"version": 1, "gone_field": 1}) == job
    with pytest.raises(UserError) as caught:
        from_dict(old | {"version": 2})
    assert caught.value.key == "jobs.version"


def test_every_field_survives_json() -> None:
    job = Job(
        "i", "n", "failed", 1.5, "r", 2.5, 3.5, 2, (7, 8.25), -9, {"key": "k", "values": {"a": 1}}, {"model": "m"}
    )
    assert from_dict(json.loads(json.dumps(asdict(job)))) == job


def test_identity_is_pid_and_start() -> None:
    me = identity(os.getpid())
    assert me is not None and alive(me) and identity(os.getpid()) == me
    assert not alive((me[0], me[1] + 1)) and not alive(None)
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    who = identity(ended.pid)
    until(lambda: not alive(who))  # a zombie is not alive
    ended.wait()
    assert identity(ended.pid) is None and not alive(who)


def test_a_clock_that_is_set_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    me = identity(os.getpid())
    boot = module.psutil.boot_time()
    start = module.psutil.Process().create_time()
    monkeypatch.setattr(module.psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(module.psutil.Process, "create_time", lambda self: start + 3600)
    assert alive(me)


def test_a_full_disk_leaves_no_half_job(busy: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    refused("train.disk_full", busy.create, "finish")
    assert [p for p in busy.workspace.jobs.iterdir() if p.is_dir()] == []


def test_a_run_deleted_while_the_list_is_read_is_left_out(busy: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lost = busy.create("finish"), busy.create("finish")

    def vanishing(path: Path) -> Any:
        if path.parent.name == lost.id:
            path.unlink()
        return read_json(path)

    monkeypatch.setattr(module, "read_json", vanishing)
    assert [job.id for job in busy.jobs.list()] == [kept.id]


def test_the_supervisor_gets_no_gradio_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "1")
    monkeypatch.setenv("HF_HOME", "/somewhere")
    environment = module._environment()
    assert "GRADIO_SERVER_PORT" not in environment and environment["HF_HOME"] == "/somewhere"


def test_a_run_that_went_back_resumes_slower(busy: Runs) -> None:
    error = {"key": "train.back.diverged", "values": {"step": 34, "back": 20, "rate": 1e-4}}
    job = put(busy, state="stopped", error=error)
    assert busy.jobs.spec(job.id).schedule.learning_rate == 2e-4
    assert busy.jobs.resume(job.id).error is None
    assert busy.jobs.spec(job.id).schedule.learning_rate == 1e-4
    fell = put(busy, state="failed", error={"key": "train.diverged", "values": {"step": 3, "rate": 5e-5}})
    busy.jobs.resume(fell.id)
    assert busy.jobs.spec(fell.id).schedule.learning_rate == 5e-5
    older = put(busy, state="failed", error={"key": "train.not_a_number", "values": {"step": 7}})
    busy.jobs.resume(older.id)
    assert busy.jobs.spec(older.id) == SPEC
    other = put(busy, state="stopped", error={"key": "train.killed", "values": {"signal": "SIGKILL"}})
    busy.jobs.resume(other.id)
    assert busy.jobs.spec(other.id) == SPEC


def ran(runs: Runs, sha256: str, revision: str | None = None) -> Job:
    """An ended run on the built-in data, with its record."""
    job = put(runs)
    base = {"id": SPEC.model.id, "revision": revision}
    write_json(runs.path(job, "run.json"), {"stopped": False, "base": base, "dataset": {"sha256": sha256}})
    return job


def test_again_is_the_same_in_a_folder_of_its_own(busy: Runs) -> None:
    job = ran(busy, sources.load(busy.workspace, SPEC.data).sha256, "a" * 40)
    new = busy.jobs.again(job.id, request="click")
    assert new.id != job.id and new.state == "queued" and new.name == SPEC.name
    pinned = replace(SPEC, model=replace(SPEC.model, revision="a" * 40))
    assert busy.jobs.spec(new.id) == pinned and busy.jobs.spec(job.id) == SPEC
    before, after = busy.jobs.plan(job.id), busy.jobs.plan(new.id)
    assert str(busy.jobs.folder(new.id)) in after.argv and not any(job.id in word for word in after.argv)
    assert replace(after, argv=()) == replace(before, argv=())
    assert busy.jobs.again(job.id, request="click").id == new.id
    assert not busy.path(new, "run.json").exists()


def test_again_is_refused_when_the_data_has_changed(busy: Runs) -> None:
    job = ran(busy, "something else")
    refused("jobs.data_changed", busy.jobs.again, job.id)
    assert busy.jobs.list() == [job]
