"""After memory ran out: the next smaller plan, a click that takes it, and runs that take it by themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import find_model
from assets.errors import UserError
from assets.files import Workspace, write_json
from assets.words import LANGUAGES, Words
from finetune import plan, remedy, views, views_remedy
from finetune.gpu import Gpu, Machine
from finetune.jobs import Job, Jobs, from_dict
from finetune.memory import Shape
from finetune.progress import Progress
from finetune.spec import DataSpec, ModelSpec, RescueSpec, ScheduleSpec, TrainSpec

GIB = 2**30
MODEL = "google/gemma-2-2b-it"
SPEC = TrainSpec(
    ModelSpec(MODEL),
    DataSpec("naranhi/emotion-ko"),
    schedule=ScheduleSpec(micro_batch=4, accumulation=2, max_length=2048),
    rescue=RescueSpec(smaller=True, tries=2),
)
CARD = Gpu(0, "a", "card", 24 * GIB, 23 * GIB, True)
MACHINE = Machine((CARD,), 8, 64 * GIB, 60 * GIB, 500 * GIB)
ENDED: dict[str, Any] = {
    "state": "failed",
    "error": {"key": "train.out_of_memory", "values": {}},
    "ended": 2.0,
    "exit_code": 1,
    "supervisor": None,
}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr("finetune.gpu.read", lambda folder: MACHINE)
    return Jobs(Workspace(tmp_path).prepare())


def a_job(jobs: Jobs, spec: TrainSpec = SPEC, checkpoint: int = 0, **changed: Any) -> Job:
    """A run whose process was short of 1 GiB in the backward pass."""
    folder = jobs.workspace.jobs / "one"
    folder.mkdir()
    card = find_model(spec.model.id)
    assert card is not None
    made = plan.make(spec, MACHINE, Shape.of(card.shape, card.model_type), folder)
    write_json(folder / "plan.json", replace(made, env={**made.env, "MINE": "1"}).to_dict())
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    if checkpoint:
        write_json(folder / "checkpoints" / f"checkpoint-{checkpoint}" / "complete.json", {"version": 1, "files": {}})
    held = {
        "allocated": 22 * GIB,
        "reserved": 22 * GIB,
        "requested": 2 * GIB,
        "free": GIB,
        "limit": 24 * GIB,
        "other": 0,
    }
    after = {"load": 3 * GIB, "ready": 3 * GIB, "forward": 20 * GIB}
    failed = {**held, "phase": "backward", "step": 30}
    record = {"version": 1, "rank": 0, "base": 0, "phase": "backward", "step": 30, "after": after, "peak": after}
    (folder / "memory.0.json").write_text(json.dumps({**record, "failed": failed}), encoding="utf-8")
    job = Job("one", "하나", "running", 1.0, started=1.0, supervisor=(1, 1.0), **changed)
    jobs.save(job)
    return job


def ended(jobs: Jobs) -> Job:
    """As the supervisor writes it."""
    return jobs.change("one", **remedy.after_the_end(jobs, "one", ENDED))


def test_without_permission_it_only_proposes(jobs: Jobs) -> None:
    a_job(jobs, replace(SPEC, rescue=RescueSpec()), checkpoint=25)
    job = ended(jobs)
    assert job.state == "failed" and job.tries == () and job.memory is not None
    assert job.memory["shortfall"]["part"] == "activations"
    proposed = job.memory["remedy"]
    assert proposed["step"] == 25 and proposed["changed"]["micro_batch"] < 4
    assert proposed["before"]["micro_batch"] == 4
    assert jobs.spec("one").schedule.micro_batch == 4  # nothing is changed before somebody says so
    assert from_dict(json.loads(json.dumps(job.__dict__))) == job


def test_a_click_takes_it(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    a_job(jobs, replace(SPEC, rescue=RescueSpec()), checkpoint=25, deadline=50.0)
    proposed = ended(jobs).memory
    assert proposed is not None
    monkeypatch.setattr(Jobs, "start_next", lambda self: None)
    job = remedy.go_on(jobs, "one")
    assert (job.state, job.attempt, job.memory, job.error, job.deadline) == ("queued", 2, None, None, None)
    assert [entry["by"] for entry in job.tries] == ["person"] and job.tries[0]["remedy"] == proposed["remedy"]
    spec = jobs.spec("one")
    for name, value in proposed["remedy"]["changed"].items():
        assert getattr(spec.schedule, name) == value
    assert spec.schedule.micro_batch * spec.schedule.accumulation == 8
    assert jobs.plan("one").env["MINE"] == "1" and jobs.plan("one").total == proposed["remedy"]["total"]
    with pytest.raises(UserError, match="jobs.still_active"):
        remedy.go_on(jobs, "one")


def test_with_permission_it_goes_on_by_itself_so_many_times(jobs: Jobs) -> None:
    a_job(jobs, deadline=50.0)
    first = ended(jobs)
    assert (first.state, first.attempt, first.ended, first.deadline) == ("queued", 2, None, 50.0)
    jobs.change("one", state="running")
    second = ended(jobs)
    assert second.state == "queued" and [entry["by"] for entry in second.tries] == ["itself", "itself"]
    assert second.tries[0]["remedy"]["total"] > second.tries[1]["remedy"]["total"]
    jobs.change("one", state="running")
    third = ended(jobs)
    assert third.state == "failed" and len(third.tries) == 2 and third.memory is not None


def test_a_person_who_asked_it_to_stop_is_obeyed(jobs: Jobs) -> None:
    a_job(jobs)
    (jobs.folder("one") / "stop").touch()
    assert ended(jobs).state == "failed"


def test_other_failures_are_left_alone(jobs: Jobs) -> None:
    a_job(jobs)
    crashed = ENDED | {"error": {"key": "train.crashed", "values": {"reason": "1"}}}
    assert remedy.after_the_end(jobs, "one", crashed) == crashed
    host = ENDED | {"error": {"key": "train.host_memory", "values": {"signal": "SIGKILL"}}}
    assert remedy.after_the_end(jobs, "one", host) == host  # the figures are those of its GPU
    finished = {"state": "finished", "ended": 2.0}
    assert remedy.after_the_end(jobs, "one", finished) == finished


def test_what_a_checkpoint_is_made_for_stays(jobs: Jobs) -> None:
    spec = replace(SPEC, method="lora", schedule=replace(SPEC.schedule, micro_batch=1))
    a_job(jobs, spec, checkpoint=25)
    job = ended(jobs)
    changed = job.tries[0]["remedy"]["changed"]
    assert changed and not changed.keys() & {"method", "rank", "alpha"}


def test_when_nothing_is_left_to_shrink(jobs: Jobs) -> None:
    least = replace(
        SPEC, schedule=ScheduleSpec(micro_batch=1, max_length=256), lora=replace(SPEC.lora, rank=4, alpha=8)
    )
    a_job(jobs, least)
    job = ended(jobs)
    assert job.state == "failed" and job.memory is not None and job.memory["remedy"] is None
    with pytest.raises(UserError, match="remedy.none"):
        remedy.go_on(jobs, "one")


def test_a_model_that_nobody_can_describe_any_more_is_no_second_failure(jobs: Jobs, tmp_path: Path) -> None:
    a_job(jobs)
    gone = replace(SPEC, model=ModelSpec(str(tmp_path / "gone")))
    (jobs.folder("one") / "spec.yaml").write_text(gone.to_yaml(), encoding="utf-8")
    job = ended(jobs)
    assert job.state == "failed" and job.memory is not None and job.memory["remedy"] is None
    assert job.memory["shortfall"]["part"] == "activations"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_all_of_it(jobs: Jobs, language: str) -> None:
    words = Words(language)
    a_job(jobs, checkpoint=25)
    ended(jobs)
    jobs.change("one", state="running")
    ended(jobs)
    jobs.change("one", state="running")
    job = ended(jobs)
    text = views.head(job, Progress(), False, words)
    assert words("remedy.ran_out") in text and words("remedy.part.activations") in text
    assert words("remedy.when.backward", step=31) in text and "24.0 GB" in text and "23.0 GB" in text
    assert text.count("<li>") == 2 and words("remedy.by.itself") in text and "4 → " in text
    unknown = {**job.__dict__, "memory": {"shortfall": {**job.memory["shortfall"], "part": ""}, "remedy": None}}  # type: ignore[index]
    assert words("remedy.unknown") in views_remedy.ended(Job(**unknown), words)


def test_an_older_record_reads_as_one_without_tries() -> None:
    old = {"id": "a", "name": "b", "state": "failed", "created": 1.0, "version": 1}
    job = from_dict(old)
    assert (job.tries, job.memory, job.deadline, job.asked) == ((), None, None, None)
