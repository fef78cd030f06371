"""What runs inside a job: sending, stopping in time, a token that is no longer taken, the packages it needs."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.files import Workspace
from finetune import remote_job
from finetune.jobs import ROOT, Jobs
from finetune.remote_hub import Account, Service
from finetune.remote_inputs import program, requirements
from finetune.remote_job import Courier, Task
from tests.fake_hub import TOKEN, Fault, Repo
from tests.fake_jobs import FakeJobs, jobs_serving
from tests.finetune import far_run
from tests.finetune.fake_run import Runs
from tests.finetune.far_run import write

REPO = "me/naranhi-run-x"
# A supervisor outlives the program that started it, so nobody waits for it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJobs]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    close_session()
    with jobs_serving() as running:
        running.repos[REPO] = Repo()
        yield running
    close_session()


def courier(hub: FakeJobs, folder: Path, seconds: float = 3600, run: str = "x") -> Courier:
    return Courier(Service(Account(), hub.url), Task(REPO, run, seconds, every=0.1), folder, TOKEN)


def sent(hub: FakeJobs) -> set[str]:
    return {name.removeprefix("out/") for name in hub.repos[REPO].files}


def test_only_what_is_new_is_sent(hub: FakeJobs, tmp_path: Path) -> None:
    one = courier(hub, write(tmp_path, {**far_run.curves(1), "job.json": b"{}", "supervisor.log": b"x"}))
    assert one.send() and sent(hub) == {"metrics.jsonl", "samples.jsonl", "train.log", "job.json"}
    assert one.send() and len(hub.repos[REPO].commits) == 1
    write(tmp_path, {"metrics.jsonl": far_run.curves(2)["metrics.jsonl"]})
    assert one.send() and hub.repos[REPO].commits[-1] == ["out/metrics.jsonl"]


def test_checkpoints_take_turns_and_the_adapter_comes_last(
    hub: FakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = courier(hub, write(tmp_path, {**far_run.checkpoint(2), **far_run.adapter()}))
    assert one.send() and all(name.startswith("checkpoints/checkpoint-2/") for name in sent(hub))
    write(tmp_path, far_run.checkpoint(4))
    assert one.send() and not any("checkpoint-4" in name for name in sent(hub))  # too soon
    monkeypatch.setattr(remote_job, "CHECKPOINT", 0.0)
    assert one.send() and {name.split("/")[1] for name in sent(hub)} == {"checkpoint-4"}
    write(tmp_path, far_run.record())
    assert one.send(last=True) and {"adapter/adapter_model.safetensors", "run.json"} <= sent(hub)


def test_half_an_adapter_is_not_sent(hub: FakeJobs, tmp_path: Path) -> None:
    files = far_run.adapter()
    files["adapter/adapter_model.safetensors"] = files["adapter/adapter_model.safetensors"][:-1]
    assert courier(hub, write(tmp_path, {**files, **far_run.curves()})).send(last=True)
    assert not any(name.startswith("adapter") for name in sent(hub))


def test_the_token_is_struck_out(hub: FakeJobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = f"Authorization: Bearer {TOKEN}\n".encode()
    error = json.dumps({"key": "train.crashed", "values": {"reason": TOKEN}, "time": 1}).encode()
    one = courier(hub, write(tmp_path, {"train.log": said, "error.json": error, "samples.jsonl": said}))
    one.show()
    assert one.send(last=True)
    assert TOKEN not in capsys.readouterr().out
    assert not any(TOKEN.encode() in data for data in hub.repos[REPO].files.values())


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429), Fault(status=0)])
def test_a_hub_that_is_not_well_gets_it_later(
    hub: FakeJobs, tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    one = courier(hub, write(tmp_path, far_run.curves(1)))
    hub.faults["commit"] = [fault, fault]
    assert not one.send() and "not sent" in capsys.readouterr().out and not one.hopeless
    assert one.send() and "metrics.jsonl" in sent(hub)


def test_an_answer_that_is_lost_is_no_second_commit(hub: FakeJobs, tmp_path: Path) -> None:
    hub.faults["commit"] = [Fault(status=0, late=True)]
    assert courier(hub, write(tmp_path, far_run.curves(1))).send() and len(hub.repos[REPO].commits) == 1


def test_a_revoked_token_ends_the_run_after_a_while(hub: FakeJobs, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it could get out any more, and the person pays by the minute."""
    job = runs.create("wait")
    runs.steps(job)
    one = courier(hub, runs.workspace.jobs / job.id)
    hub.tokens = set()
    assert not one.send() and one.refused_since is not None and not one.hopeless
    monkeypatch.setattr(remote_job, "REFUSED", 0.0)
    remote_job.attend(one, Task(REPO, job.id, 3600, every=0.1), runs.jobs)
    assert runs.jobs.stopping(job.id) and not remote_job.deliver(one, Task(REPO, job.id, 3600, every=0.1))


def test_a_request_in_the_repository_stops_the_run(hub: FakeJobs, runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    hub.repos[REPO].files["stop"] = b"1"
    task = Task(REPO, job.id, 3600, every=0.1)
    one = Courier(Service(Account(), hub.url), task, runs.workspace.jobs / job.id, TOKEN)
    remote_job.attend(one, task, runs.jobs)
    assert runs.ended(job).state == "stopped" and remote_job.deliver(one, task)
    assert json.loads(hub.repos[REPO].files["out/job.json"])["state"] == "stopped"


def test_it_saves_before_the_time_out(hub: FakeJobs, runs: Runs) -> None:
    job = runs.create("wait")
    runs.steps(job)
    task = Task(REPO, job.id, 6.0, every=0.1)
    remote_job.attend(Courier(Service(Account(), hub.url), task, runs.workspace.jobs / job.id, ""), task, runs.jobs)
    assert runs.ended(job).state == "stopped"


@pytest.mark.parametrize(("seconds", "left"), [(60, 30), (600, 90), (1800, 270), (7200, 900), (86400, 900)])
def test_how_long_before_the_time_out(seconds: float, left: float) -> None:
    task = Task(REPO, "x", seconds, began=100.0)
    assert task.save_at == 100.0 + seconds - left


def test_inputs_that_cannot_be_had_are_told_as_a_failure(hub: FakeJobs, tmp_path: Path) -> None:
    jobs = Jobs(Workspace(tmp_path / "home").prepare())
    hub.faults["info"] = [Fault(status=404)]
    task = Task(REPO, "20260101-000000-abcd", 3600, every=0.1)
    job = remote_job.begin(Service(Account(), hub.url), task, jobs)
    assert job.state == "failed" and job.error is not None and job.error["key"] == "elsewhere.gone"
    assert Courier(Service(Account(), hub.url), task, jobs.folder(job.id), "").send(last=True)
    assert {"job.json", "error.json"} <= sent(hub)


# What goes along


def test_the_program_is_the_same_for_the_same_code_and_holds_no_pictures() -> None:
    made = program()
    names = zipfile.ZipFile(io.BytesIO(made)).namelist()
    assert {"finetune/train.py", "finetune/remote_job.py", "assets/models.yaml"} <= set(names)
    assert not any("pictures" in name or "__pycache__" in name for name in names) and len(made) < 4_000_000


def test_the_packages_of_a_job_are_those_that_training_imports() -> None:
    """Every import that is reached from the job's two scripts comes with the packages that the job installs."""
    named = {re.split(r"[=<>!\[]", line)[0].lower().replace("_", "-") for line in requirements()}
    brought = {"numpy", "safetensors", "tokenizers", "jinja2"}  # by transformers
    known = packages_distributions()
    needed = {d.lower().replace("_", "-") for name in imported() for d in known.get(name, [name])}
    assert needed - named - brought == set()
    assert "gradio" not in named


def imported() -> set[str]:
    """Names of foreign modules in every module of ours that the job's scripts reach."""
    todo, done, foreign = ["finetune.train", "finetune.remote_job", "finetune.supervise"], set(), set()
    while todo:
        name = todo.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in done or not path.exists():
            continue
        done.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for found in _names(node):
                ours = found.split(".")[0] in ("finetune", "assets")
                todo += [found] if ours else []
                foreign |= set() if ours or found.split(".")[0] in sys.stdlib_module_names else {found.split(".")[0]}
    return foreign


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []
