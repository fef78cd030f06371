"""Is LoRA enough: which runs are offered on which machine, and how they are queued."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.leases import acquire
from assets.words import LANGUAGES, Words
from finetune import enough, groups
from finetune.data import Example
from finetune.gpu import Gpu, Machine
from finetune.jobs import Jobs
from finetune.readings import Counts, Reading
from finetune.services import TrainServices
from finetune.sources import Source
from finetune.spec import BudgetSpec, DataSpec, HardwareSpec, LoraSpec, ModelSpec, TrainSpec, WatchSpec
from tests.finetune.test_plan import gpu as card
from tests.finetune.test_plan import machine

SPEC = TrainSpec(ModelSpec(STARTER), DataSpec("naranhi/emotion-ko"), name="연습", watch=WatchSpec(examples=8, keep=3))
LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
WORDS = Words("ko")
ALL = ["small", "wide", "qlora", "full"]


def gpu(index: int, gib: int) -> Gpu:
    return replace(card(index, gib), name="NVIDIA H100")


class Readings:
    """The same conversations for every form."""

    def __init__(self, heldout: int) -> None:
        talk = Example(messages=({"role": "user", "content": "네?"}, {"role": "assistant", "content": "네"}))
        self._found = Reading(
            Source([talk] * 40, [talk] * heldout, "sha"),
            None,
            Counts([[False, True] * 20] * 40, 1.0),  # type: ignore[arg-type]
        )

    def get(self, spec: TrainSpec) -> Reading:
        return self._found


def on(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enough.gpu, "read", lambda root: here)


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainServices]:
    """A machine with one large GPU, which is taken, so that runs stay in the queue."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    on(machine(gpu(0, 80)), monkeypatch)
    workspace = Workspace(tmp_path / "home").prepare()
    made = TrainServices(workspace, Jobs(workspace), lambda request: True)
    made.__dict__["readings"] = Readings(8)
    lease = acquire(workspace, ("cpu", gpu(0, 80).device), {"kind": "engine"})
    assert lease is not None
    yield made
    lease.release()


def offered(services: TrainServices, spec: TrainSpec = SPEC) -> enough.Offer:
    return enough.offer(spec, services, 1_795_622_400.0)


def refused(key: str, call: Any, *values: Any) -> None:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key
    assert all("{" not in Words(language).error(caught.value) for language in LANGUAGES)


def test_four_runs_that_differ_in_method_and_rate_only(services: TrainServices) -> None:
    found = offered(services)
    assert [wish.role for wish in found.wishes] == ALL and found.left_out == ()
    rates = {wish.role: wish.spec.schedule.learning_rate for wish in found.wishes}
    assert rates == {"small": 3e-3, "wide": 1e-3, "qlora": 1e-3, "full": 1e-4}
    for wish in found.wishes:
        same = replace(wish.spec.schedule, learning_rate=SPEC.schedule.learning_rate)
        assert (same, wish.spec.data, wish.spec.model) == (SPEC.schedule, SPEC.data, SPEC.model)
        assert wish.spec.watch == replace(SPEC.watch, keep=1) and wish.span is not None
    small, full = found.wishes[0].spec, found.wishes[3].spec
    assert (small.lora.rank, small.lora.targets, small.method) == (8, "q_proj,v_proj", "lora")
    assert full.method == "full" and not full.lora.dropout
    assert found.short is not None  # 40 conversations once are a handful of steps


def test_what_does_not_fit_is_left_out_with_its_reason(
    services: TrainServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(machine(gpu(0, 24)), monkeypatch)
    found = offered(services, replace(SPEC, model=ModelSpec(LLAMA)))
    assert "full" not in [wish.role for wish in found.wishes] and "qlora" in [wish.role for wish in found.wishes]
    assert {one.role: one.key for one in found.left_out}["full"] == "train.full_too_large"
    for language in LANGUAGES:
        assert all("{" not in Words(language)(one.key, **one.values) for one in found.left_out)
    on(machine(gpu(0, 12)), monkeypatch)
    alone = replace(SPEC, model=ModelSpec(LLAMA), hardware=HardwareSpec("single"))
    few = {one.role: one.key for one in offered(services, alone).left_out}
    assert few["wide"] == "enough.too_big" and "qlora" not in few


def test_the_model_is_fetched_once_and_the_disk_shared(
    services: TrainServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemma = replace(SPEC, model=ModelSpec("google/gemma-2-2b-it"))
    first, second, *_ = offered(services, gemma).wishes
    assert first.disk > second.disk and first.span is not None and second.span is not None
    crowded = replace(machine(gpu(0, 80)), disk_free=first.disk + second.disk + 1)
    on(crowded, monkeypatch)
    found = offered(services, gemma)
    assert {one.role for one in found.left_out} >= {"full"} and len(found.wishes) >= 2
    assert {one.key for one in found.left_out} == {"enough.no_disk"}


def test_settings_that_full_fine_tuning_cannot_have_leave_only_it_out(services: TrainServices) -> None:
    wish = replace(SPEC, hardware=HardwareSpec("single", offload=True), lora=LoraSpec(dora=True, dropout=0.1))
    found = offered(services, wish)
    assert [(one.role, one.key) for one in found.left_out] == [("full", "spec.full_offload")]
    assert all(w.spec.lora.dropout == 0.1 and not w.spec.lora.dora for w in found.wishes)


def test_what_cannot_be_compared_is_refused(services: TrainServices) -> None:
    refused("enough.sft_only", offered, services, replace(SPEC, objective="dpo"))
    refused("enough.start", offered, services, replace(SPEC, start="jobs/x/adapter"))
    refused("enough.budget", offered, services, replace(SPEC, budget=BudgetSpec(minutes=5)))
    services.__dict__["readings"] = Readings(0)
    refused("enough.no_heldout", offered, services)


def test_a_step_sees_as_many_conversations_whatever_the_gpus(
    services: TrainServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(machine(gpu(0, 80), gpu(1, 3)), monkeypatch)  # the second card holds no copy of the whole model in training
    wishes = offered(services).wishes
    assert {w.processes for w in wishes} == {1, 2}
    assert len({w.spec.schedule.accumulation * w.processes for w in wishes}) == 1
    assert len({w.steps for w in wishes}) == 1


def test_the_time_of_all_is_the_sum_of_each() -> None:
    assert enough.total([(1, 2), (10, 20)]) == (11, 22)
    assert enough.total([(1, 2), None]) is None


def test_one_group_in_the_queue_that_an_app_started_again_still_knows(services: TrainServices) -> None:
    found = offered(services)
    group = enough.queue(found, ["wide", "qlora", "full"], "click", services, WORDS)
    assert [member.role for member in group.members] == ["wide", "qlora", "full"]
    assert [(one.role, one.key) for one in group.left_out] == [("small", "enough.unticked")]
    again = Jobs(Workspace(services.workspace.root))
    listed = list(reversed(again.list()))
    assert [job.id for job in listed] == [member.job for member in group.members]
    assert {(job.group, job.state) for job in listed} == {(group.id, "queued")}
    assert [again.spec(job.id).method for job in listed] == ["lora", "qlora", "full"]
    assert listed[0].name == f"연습 · {WORDS('enough.role.wide')}"
    assert str(again.folder(listed[1].id)) in " ".join(again.plan(listed[1].id).argv)
    assert groups.read(services.workspace, group.id) == group


def test_a_double_click_makes_one_group(services: TrainServices) -> None:
    found = offered(services)
    one, two = (enough.queue(found, ALL, "click", services, WORDS) for _ in range(2))
    assert one == two and len(services.jobs.list()) == 4
    refused("enough.few", enough.queue, found, ["wide"], "other", services, WORDS)
    refused("enough.few", enough.queue, found, ["nothing", "else"], "other", services, WORDS)
    assert len(services.jobs.list()) == 4


@pytest.mark.filterwarnings("ignore")
def test_a_tiny_model_is_really_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training script's own files fill the table."""
    from finetune import train
    from finetune.enough_result import rows, verdict
    from finetune.groups import Group, Member
    from finetune.jobs import Job
    from finetune.shapes import shape_of
    from tests.finetune.two_ranks import a_spec
    from tests.models import make_model

    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    workspace = Workspace(tmp_path / "home").prepare()
    jobs, members = Jobs(workspace), []
    spec = a_spec(workspace.root, make_model(tmp_path / "base", "llama"), watch={"every": 2, "best": True}, steps=2)
    for role in ("qlora", "full"):
        wish = enough.spec_for(role, spec, shape_of(workspace, spec.model))
        folder = workspace.jobs / role
        folder.mkdir()
        assert train.run(wish, folder, workspace) == 0
        jobs.save(Job(role, role, "finished", 1.0))
        members.append(Member(role, role))
    found = rows(jobs, Group("g", "n", 1.0, tuple(members)))
    assert all(r.result and r.loss and r.memory and r.seconds and r.trained and r.heldout for r in found)
    assert all("science" in r.forgot and r.steps == 2 for r in found)
    assert verdict(found).kind in ("close", "ahead", "behind")
