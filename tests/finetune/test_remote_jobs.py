"""Runs on Hugging Face Jobs, against a Hub over real HTTP that really runs them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.errors import UserError
from assets.files import Workspace, read_json
from assets.words import Words
from finetune import elsewhere, elsewhere_view
from finetune.jobs import Job, Jobs
from finetune.progress import read
from finetune.remote_hub import Account, Service
from finetune.remote_jobs import HubRunner
from finetune.remote_watch import Attendant
from finetune.runner import Order, Runners
from finetune.spec import ModelSpec
from tests.fake_hub import TOKEN, Fault, Repo
from tests.fake_jobs import FakeJobs, jobs_serving
from tests.finetune import far_run
from tests.finetune.far_run import SPEC
from tests.finetune.two_ranks import TALKS
from tests.models import make_model

WORDS = Words("ko")
NEW = "hf_" + "n" * 34


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJobs]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("SPACE_ID", raising=False)
    close_session()
    with jobs_serving() as running:
        running.extra = {"NARANHI_EVERY": "1"}
        yield running
    close_session()


def workspace(root: Path) -> Jobs:
    made = Workspace(root).prepare()
    rows = "\n".join(json.dumps({"messages": talk}, ensure_ascii=False) for talk in TALKS)
    (made.uploads / "talks.jsonl").write_text(rows, encoding="utf-8")
    return Jobs(made)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return workspace(tmp_path / "home")


def runner(hub: FakeJobs, jobs: Jobs) -> HubRunner:
    return HubRunner(jobs, Service(Account(), hub.url, patience=10.0))


def order(seconds: int = 3600, request: str = "", steps: int = 4) -> Order:
    spec = replace(SPEC, schedule=replace(SPEC.schedule, steps=steps))
    return Order(spec, request, flavor="cpu-basic", seconds=seconds, price=0.01)


def put_model(hub: FakeJobs, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny", "llama")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.repos["org/tiny"] = Repo(private=False, files=files)


def until(holds: Any, patience: float = 240.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def held(hub: FakeJobs, jobs: Jobs, stage: str = "RUNNING") -> tuple[HubRunner, Job, Repo]:
    """A run whose job does nothing by itself: the test plays its part."""
    hub.hold = True
    made = runner(hub, jobs)
    job = made.start(order())
    there = hub.jobs["job0"]
    there.stage, there.started = stage, time.time()
    return made, made.state(job.id), hub.repos[f"me/naranhi-run-{job.id}"]


def say(repo: Repo, files: dict[str, bytes], state: str = "running", **more: Any) -> None:
    """What the courier would commit."""
    told = {"id": "x", "name": "x", "state": state, "created": 1.0, "started": 2.0, "version": 1, **more}
    repo.files |= {f"out/{name}": data for name, data in files.items()}
    repo.files["out/job.json"] = json.dumps(told).encode()
    repo.commits.append(list(files))


def trouble(jobs: Jobs, job: Job) -> str | None:
    found = read_json(jobs.folder(job.id) / "remote.json").get("trouble")
    return found["key"] if found else None


# Really there and back


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_goes_there_and_comes_back(hub: FakeJobs, jobs: Jobs, tmp_path: Path) -> None:
    put_model(hub, tmp_path)
    made = runner(hub, jobs)
    job = made.start(order())
    until(lambda: not made.state(job.id).active)
    folder, ended, there = jobs.folder(job.id), jobs.get(job.id), hub.jobs["job0"]
    assert (ended.state, ended.error) == ("finished", None), there.log.read_text()
    progress = read(folder)
    assert progress.step == progress.total == 4 and [row["step"] for row in progress.evals] == [0, 2, 4]
    assert progress.samples and read_json(folder / "run.json")["base"]["id"] == "org/tiny"
    assert (folder / "adapter" / "adapter_model.safetensors").exists() and "train.log" in {
        f.name for f in folder.iterdir()
    }
    assert there.spec["timeoutSeconds"] == 3600 and there.spec["labels"]["run"] == job.id
    assert not list(jobs.workspace.jobs.glob(".in-*"))
    # The token went along as a secret and is nowhere else.
    assert there.spec["secrets"] == {"HF_TOKEN": TOKEN}
    kept = [path.read_bytes() for path in jobs.workspace.root.rglob("*") if path.is_file()]
    kept += [data for repo in hub.repos.values() for data in repo.files.values()]
    kept += [there.log.read_bytes(), json.dumps(there.told()).encode()]
    assert not any(TOKEN.encode() in data for data in kept)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_asked_to_stop_it_saves_there_and_goes_on_here(hub: FakeJobs, jobs: Jobs, tmp_path: Path) -> None:
    put_model(hub, tmp_path)
    made = runner(hub, jobs)
    job = made.start(order(steps=5000))
    until(lambda: made.state(job.id).active and read(jobs.folder(job.id)).step > 0)
    made.stop(job.id)
    until(lambda: not made.state(job.id).active)
    ended = jobs.get(job.id)
    assert (ended.state, ended.error) == ("stopped", None), hub.jobs["job0"].log.read_text()
    step = read(jobs.folder(job.id)).step
    assert (jobs.folder(job.id) / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt").exists()
    assert len({n.split("/")[2] for n in hub.repos[f"me/naranhi-run-{job.id}"].files if "checkpoints" in n}) == 1


# The service's word


def test_scheduling_running_finished(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs, "SCHEDULING")
    assert job.state == "starting"
    hub.jobs["job0"].stage = "RUNNING"
    assert made.state(job.id).state == "running"
    say(repo, {**far_run.curves(2)})
    assert made.state(job.id).state == "running" and read(jobs.folder(job.id)).step == 2
    say(repo, far_run.finished(), "finished", ended=9.0, exit_code=0)
    ended = made.state(job.id)
    assert (ended.state, ended.started, ended.ended, ended.exit_code) == ("finished", 2.0, 9.0, 0)
    assert read(jobs.folder(job.id)).step == 4 and (jobs.folder(job.id) / "adapter").exists()


def test_what_has_not_changed_is_not_fetched_again(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs)
    say(repo, {**far_run.curves(2), **far_run.checkpoint(2)})
    made.state(job.id)
    hub.asked.clear()
    made.state(job.id)
    assert hub.asked == ["inspect", "info"]


@pytest.mark.parametrize(
    ("stage", "message", "ran", "kept", "state", "key"),
    [
        ("ERROR", "Job timeout", 10, True, "stopped", "elsewhere.timed_out.kept"),
        ("ERROR", None, 3600, True, "stopped", "elsewhere.timed_out.kept"),
        ("CANCELED", None, 3600, False, "stopped", "elsewhere.timed_out.nothing"),
        ("ERROR", "Job timeout", 10, False, "failed", "elsewhere.timed_out.nothing"),
        ("CANCELED", None, 10, True, "stopped", "elsewhere.cancelled.kept"),
        ("CANCELED", None, 10, False, "stopped", "elsewhere.cancelled.nothing"),
        ("ERROR", "exit code 137", 10, True, "stopped", "elsewhere.ended.kept"),
        ("ERROR", "exit code 137", 10, False, "failed", "elsewhere.ended.nothing"),
        ("DELETED", None, 10, False, "failed", "elsewhere.ended.nothing"),
        ("COMPLETED", None, 10, False, "failed", "elsewhere.ended.nothing"),
    ],
)
def test_a_job_that_ended_without_its_own_word(
    hub: FakeJobs, jobs: Jobs, stage: str, message: str | None, ran: int, kept: bool, state: str, key: str
) -> None:
    made, job, repo = held(hub, jobs)
    say(repo, {**far_run.curves(2), **(far_run.checkpoint(2) if kept else {})})
    there = hub.jobs["job0"]
    there.log.write_text("the last words\n", encoding="utf-8")
    there.stage, there.message, there.started, there.ended = stage, message, 1000.0, 1000.0 + ran
    ended = made.state(job.id)
    assert ended.error is not None and (ended.state, ended.error["key"]) == (state, key)
    assert ended.error["values"]["step"] == (2 if kept else 0) and WORDS(key, **ended.error["values"])
    assert read(jobs.folder(job.id)).step == 2
    assert (jobs.folder(job.id) / "job.log").read_text(encoding="utf-8") == "the last words\n"


def test_a_job_that_fails_before_it_trains_shows_its_log(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, _ = held(hub, jobs)
    there = hub.jobs["job0"]
    there.log.write_text("no solution found for torch\n", encoding="utf-8")
    there.stage, there.message = "ERROR", "exit code 1"
    assert made.state(job.id).state == "failed" and "no solution" in made.logs(job.id)


def test_cancelling(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, _ = held(hub, jobs)
    made.cancel(job.id)
    assert hub.jobs["job0"].stage == "CANCELED" and jobs.get(job.id).state == "stopped"


def test_stopping_before_it_runs_is_cancelling(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs, "SCHEDULING")
    made.stop(job.id)
    assert hub.jobs["job0"].stage == "CANCELED" and "stop" not in repo.files


# Starting


def test_no_credit(hub: FakeJobs, jobs: Jobs) -> None:
    hub.credit = False
    with pytest.raises(UserError) as caught:
        runner(hub, jobs).start(order())
    assert caught.value.key == "elsewhere.no_credit" and hub.asked.count("run") == 1 and hub.jobs == {}
    job = jobs.list()[0]
    assert job.state == "failed" and job.error is not None and job.error["key"] == "elsewhere.no_credit"


def test_one_click_makes_one_job(hub: FakeJobs, jobs: Jobs) -> None:
    hub.hold = True
    made = runner(hub, jobs)
    assert made.start(order(request="a")).id == made.start(order(request="a")).id
    assert len(hub.jobs) == 1


def test_an_answer_that_is_lost_does_not_start_a_second_job(hub: FakeJobs, jobs: Jobs) -> None:
    hub.hold = True
    hub.faults["run"] = [Fault(status=0, late=True)]
    job = runner(hub, jobs).start(order())
    assert len(hub.jobs) == 1 and read_json(jobs.folder(job.id) / "remote.json")["job"] == "job0"


def test_a_start_that_fails_there_is_said(hub: FakeJobs, jobs: Jobs) -> None:
    hub.faults["run"] = [Fault(status=500)]
    with pytest.raises(UserError) as caught:
        runner(hub, jobs).start(order())
    assert caught.value.key == "elsewhere.trouble" and hub.jobs == {} and jobs.list()[0].state == "failed"


def test_what_may_be_repeated_is_repeated(hub: FakeJobs, jobs: Jobs) -> None:
    hub.hold = True
    busy = (("Retry-After", "0"),)
    hub.faults = {
        "create": [Fault(status=429, headers=busy), Fault(status=0, late=True)],
        "commit": [Fault(status=503, headers=busy), Fault(status=412, headers=busy)],
    }
    job = runner(hub, jobs).start(order())
    files = hub.repos[f"me/naranhi-run-{job.id}"].files
    assert set(files) == {"in/spec.yaml", "in/code.zip", "in/home/uploads/talks.jsonl"} and len(hub.jobs) == 1


def test_what_only_this_machine_has_is_refused_before_anything_is_sent(
    hub: FakeJobs, jobs: Jobs, tmp_path: Path
) -> None:
    made = runner(hub, jobs)

    def refused(spec: Any, key: str, seconds: int = 3600) -> None:
        with pytest.raises(UserError) as caught:
            made.start(Order(spec, flavor="cpu-basic", seconds=seconds))
        assert caught.value.key == key and hub.asked == [] and jobs.list() == []

    refused(replace(SPEC, model=ModelSpec(str(tmp_path))), "elsewhere.local_model")
    (tmp_path / "out.jsonl").write_text("{}", encoding="utf-8")
    refused(replace(SPEC, data=replace(SPEC.data, id=str(tmp_path / "out.jsonl"))), "elsewhere.outside")
    refused(replace(SPEC, data=replace(SPEC.data, id="gone.jsonl")), "data.missing")
    refused(SPEC, "elsewhere.no_timeout", seconds=0)


def test_a_public_repository_of_that_name_gets_nothing(
    hub: FakeJobs, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = jobs.workspace.jobs / "20260101-000000-abcd"
    monkeypatch.setattr(Jobs, "new_folder", lambda self: folder)
    hub.repos["me/naranhi-run-20260101-000000-abcd"] = Repo(private=False)
    with pytest.raises(UserError) as caught:
        runner(hub, jobs).start(order())
    assert caught.value.key == "elsewhere.public" and hub.jobs == {}
    assert hub.repos["me/naranhi-run-20260101-000000-abcd"].files == {}


# Tokens


def test_a_token_that_is_revoked_on_the_way(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs)
    hub.tokens = {NEW}
    assert made.state(job.id).state == "running" and trouble(jobs, job) == "elsewhere.refused"
    told = elsewhere_view.place(jobs.get(job.id), jobs.folder(job.id), WORDS)
    assert "n-note warn" in told and "401" in told
    say(repo, far_run.finished(), "finished")
    account = Account()
    service = Service(account, hub.url)
    assert service.sign_in(NEW) == "me"
    assert HubRunner(jobs, service).state(job.id).state == "finished" and trouble(jobs, job) is None


def test_tokens_are_kept_by_name_and_shown_nowhere(hub: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(Account(), hub.url)
    hub.tokens = {NEW}
    service.sign_in(NEW)
    assert service.account.token("me") == NEW and service.account.token("other") == TOKEN
    assert NEW not in repr(service) + str(service) + repr(vars(service.account).keys())
    for wrong in ("hf_한글", "a b", ""):
        with pytest.raises(UserError) as caught:
            service.sign_in(wrong)
        assert caught.value.key == "elsewhere.bad_token"
    with pytest.raises(UserError) as caught:
        service.sign_in(TOKEN)
    assert caught.value.key == "elsewhere.refused" and TOKEN not in str(caught.value.values)


def test_on_a_space_the_host_does_not_pay_for_visitors(
    hub: FakeJobs, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/naranhi")
    made = elsewhere.build(jobs, hub.url)
    with pytest.raises(UserError) as caught:
        made.runners.at("hf").start(order())
    assert caught.value.key == "elsewhere.no_token" and hub.asked == []


# Hubs that are not well


@pytest.mark.parametrize(
    ("kind", "fault", "key"),
    [
        ("inspect", Fault(status=500), "elsewhere.trouble"),
        ("inspect", Fault(status=429), "elsewhere.busy"),
        ("inspect", Fault(status=0), "elsewhere.away"),
        ("info", Fault(status=404), "elsewhere.gone"),
        ("get", Fault(status=500), "elsewhere.trouble"),
        ("logs", Fault(status=403), "elsewhere.not_allowed"),
    ],
)
def test_a_hub_that_is_not_well_changes_nothing(hub: FakeJobs, jobs: Jobs, kind: str, fault: Fault, key: str) -> None:
    made, job, repo = held(hub, jobs)
    say(repo, {"metrics.jsonl": far_run.curves(2)["metrics.jsonl"]})
    hub.faults[kind] = [fault] * (8 if kind == "get" else 1)
    assert made.state(job.id).state == "running" and trouble(jobs, job) == key
    hub.faults = {}
    assert made.state(job.id).state == "running" and trouble(jobs, job) is None
    assert read(jobs.folder(job.id)).step == 2


def test_half_a_folder_is_not_taken_for_the_result(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs)
    files = far_run.finished()
    cut = {**files, "adapter/adapter_model.safetensors": files["adapter/adapter_model.safetensors"][:-3]}
    say(repo, cut, "finished")
    assert made.state(job.id).state == "running" and trouble(jobs, job) == "elsewhere.half"
    assert not (jobs.folder(job.id) / "adapter").exists()
    say(repo, files, "finished")
    assert made.state(job.id).state == "finished" and (jobs.folder(job.id) / "adapter").exists()


def test_files_that_no_run_writes_are_left_there(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs)
    strange = {"../evil": b"x", "adapter/../../evil": b"x", "spec.yaml": b"x", "remote.json": b"x", "x.sh": b"x"}
    before = (jobs.folder(job.id) / "spec.yaml").read_bytes()
    say(repo, {**far_run.finished(), **strange}, "finished")
    assert made.state(job.id).state == "finished"
    assert (jobs.folder(job.id) / "spec.yaml").read_bytes() == before
    assert not list(jobs.workspace.root.rglob("evil")) and not list(jobs.workspace.root.rglob("x.sh"))


# Other apps, later apps


def test_an_app_that_was_ended_during_the_start_finds_its_job(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, _ = held(hub, jobs)
    file = jobs.folder(job.id) / "remote.json"
    file.write_text(json.dumps({**read_json(file), "job": "", "url": ""}), encoding="utf-8")
    assert runner(hub, jobs).state(job.id).state == "running" and read_json(file)["job"] == "job0"


def test_a_job_that_never_began_is_given_up(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, _ = held(hub, jobs)
    hub.jobs.clear()
    file = jobs.folder(job.id) / "remote.json"
    file.write_text(json.dumps({**read_json(file), "job": ""}), encoding="utf-8")
    assert made.state(job.id).active
    jobs.change(job.id, created=time.time() - 3600)
    ended = made.state(job.id)
    assert ended.state == "failed" and ended.error == {"key": "elsewhere.never_began", "values": {}}


def test_two_apps_see_one_run(hub: FakeJobs, jobs: Jobs, tmp_path: Path) -> None:
    made, job, repo = held(hub, jobs)
    other = runner(hub, workspace(tmp_path / "another home"))
    assert other.reattach() == [job.id] and other.reattach() == []
    assert other.state(job.id).state == "running" and other.state(job.id).name == "멀리서"
    made.stop(job.id)
    other.stop(job.id)
    assert [commit for commit in repo.commits if commit == ["stop"]] == [["stop"], ["stop"]]
    say(repo, {**far_run.curves(2), **far_run.checkpoint(2), **far_run.record(stopped=True)}, "stopped")
    for one in (made, other):
        assert (one.state(job.id).state, one.state(job.id).error) == ("stopped", None)


def test_labels_of_strangers_are_not_believed(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, _ = held(hub, jobs)
    there = hub.jobs["job0"]
    for name in ("..", "../../x", "20260101-000000-zzzz", "20260101-000000-abcd"):  # the last one has no repository
        there.spec["labels"] = {"app": "naranhi", "run": name}
        assert made.reattach() == []
    assert [found.id for found in jobs.list()] == [job.id]


# Hardware


def test_hardware_with_prices(hub: FakeJobs) -> None:
    cpu, cards = Service(Account(), hub.url).hardware()
    assert (cpu.name, cpu.gpus, round(cpu.hourly or 0, 4)) == ("cpu-basic", 0, 0.01)
    assert (cards.name, cards.gpus, cards.memory, round(cards.hourly or 0, 2)) == ("l4x4", 4, 96.0, 3.8)
    assert "$3.80" in elsewhere_view.choices([cards], WORDS)[0][0]
    told = elsewhere_view.cost(cards, 90, WORDS)
    assert "$3.80" in told and "$5.70" in told


@pytest.mark.parametrize("change", [{"unitLabel": "moon"}, {"unitCostUSD": None}])
def test_a_price_that_is_not_told_is_unknown(hub: FakeJobs, change: dict[str, Any]) -> None:
    hub.hardware = [{**hub.hardware[1], **change}]
    found = Service(Account(), hub.url).hardware()
    assert found[0].hourly is None and "jobs-pricing" in elsewhere_view.cost(found[0], 60, WORDS)


def test_without_the_list_the_names_are_known(hub: FakeJobs) -> None:
    hub.faults["hardware"] = [Fault(status=500)]
    found = Service(Account(), hub.url).hardware()
    assert {"t4-small", "a100x8"} <= {one.name for one in found} and all(one.hourly is None for one in found)
    assert {one.name: one.gpus for one in found}["a100x8"] == 8


# Looking after them


def test_the_attendant_asks_until_none_is_left(hub: FakeJobs, jobs: Jobs) -> None:
    made, job, repo = held(hub, jobs)
    attendant = Attendant(Runners(jobs, {"hf": made}), every=0.05)
    attendant.wake()
    attendant.wake()
    say(repo, far_run.finished(), "finished")
    until(lambda: not jobs.get(job.id).active, 30)
    attendant.end()
    hub.asked.clear()
    attendant.wake()
    time.sleep(0.2)
    assert hub.asked == []
