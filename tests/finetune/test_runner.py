"""One protocol over every place where runs are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from finetune import elsewhere, runner
from finetune.jobs import Job, Jobs
from finetune.memory import Shape
from finetune.remote_import import take_over
from finetune.runner import LocalRunner, Order, Runners
from finetune.spec import ClusterSpec, HardwareSpec
from tests.finetune import far_run
from tests.finetune.fake_run import Runs
from tests.finetune.far_run import SPEC, write

# A supervisor outlives the program that started it, so nobody waits for it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(runner, "shape_of", lambda *_: Shape(64, 2, 128, 2, 1, 64, 512, True))
    return Jobs(Workspace(tmp_path / "home").prepare())


def test_the_supervisor_is_one_of_the_runners(runs: Runs) -> None:
    local = LocalRunner(runs.jobs)
    job = runs.create("wait")
    runs.steps(job)
    assert local.state(job.id).state == "running" and [found.id for found in local.listed()] == [job.id]
    assert "hello from wait" in local.logs(job.id) and local.reattach() == []
    local.stop(job.id)
    assert runs.ended(job).state == "stopped"


def test_it_starts_what_it_is_given(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jobs, "start_next", lambda self: None)
    local = LocalRunner(jobs)
    assert local.start(Order(SPEC, "a")).id == local.start(Order(SPEC, "a")).id
    job = jobs.list()[0]
    assert job.state == "queued" and not job.elsewhere
    local.cancel(job.id)
    assert jobs.get(job.id).state == "stopped"


def test_each_run_has_its_own_runner(jobs: Jobs, tmp_path: Path) -> None:
    runners = elsewhere.build(jobs).runners
    taken = take_over(jobs, write(tmp_path / "there", far_run.finished()))
    assert runners.of(taken.id) is runners.at("cluster") is not runners.at("")
    jobs.change(taken.id, facts={"where": "the moon"})
    with pytest.raises(UserError) as caught:
        runners.of(taken.id)
    assert caught.value.key == "elsewhere.unknown_place"


def test_nothing_here_waits_for_a_run_elsewhere_or_takes_it_for_dead(jobs: Jobs) -> None:
    folder = jobs.workspace.jobs / "20260101-000000-abcd"
    folder.mkdir()
    for state in ("starting", "running"):
        jobs.save(Job(folder.name, "x", state, 1.0, facts={"where": "hf"}))
        assert jobs.get(folder.name).state == state
        jobs.start_next()  # without a plan.json it must not be looked for
    with pytest.raises(UserError):
        runner.come_home(jobs, folder.name)


def test_wishes_for_other_hardware_do_not_keep_a_run_from_coming_home(jobs: Jobs, tmp_path: Path) -> None:
    wish = replace(SPEC, hardware=HardwareSpec(placement="fsdp", gpus="0,1,2,3,4,5,6,7"))
    spec = replace(wish, cluster=ClusterSpec(machines=2, address="there"))
    plan = runner.plan_here(jobs, spec, tmp_path)
    assert plan.argv[-1] == str(tmp_path)


def test_a_run_from_elsewhere_is_repeated_here(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jobs, "start_next", lambda self: None)
    files = {n: d for n, d in far_run.finished().items() if n != "run.json" and not n.startswith("adapter")}
    taken = take_over(jobs, write(tmp_path / "there", files))
    again = Runners(jobs, {}).again(taken.id)
    assert again.id != taken.id and (again.state, again.elsewhere) == ("queued", False)
    assert str(jobs.folder(again.id)) in " ".join(jobs.plan(again.id).argv)
