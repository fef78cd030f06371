"""The choice of where to train, its two panels, and the card of a run that is elsewhere."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from assets.files import Workspace, read_json
from assets.words import Words
from finetune import elsewhere, elsewhere_view, remote_cluster, tab_elsewhere, tab_elsewhere_events, tab_form
from finetune.jobs import Job, Jobs
from finetune.memory import GIB, Shape
from finetune.remote_hub import Flavor
from finetune.remote_import import take_over
from finetune.services import TrainServices
from tests.fake_hub import TOKEN
from tests.fake_jobs import FakeJobs, jobs_serving
from tests.finetune import far_run
from tests.finetune.far_run import SPEC, write

pytestmark = pytest.mark.usefixtures("one_loop")
OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
WORDS = Words("ko")
SHAPE = Shape(64, 2, 128, 2, 1, 64, 512, True)
REFUSED = WORDS("app.owner_only")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJobs]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")
    close_session()
    with jobs_serving() as running:
        running.hold = True
        yield running
    close_session()


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainServices:
    workspace = Workspace(tmp_path / "home").prepare()
    (workspace.uploads / "talks.jsonl").write_text("{}\n", encoding="utf-8")
    monkeypatch.setattr(tab_elsewhere_events, "checked", lambda values, services: SPEC)
    monkeypatch.setattr(remote_cluster, "shape_of", lambda *_: SHAPE)
    return TrainServices(workspace, Jobs(workspace), lambda request: request.owner)


def handlers(services: TrainServices, hub: FakeJobs | None = None) -> dict[str, Any]:
    """The handlers by name, of a page that asks the fake Hub and has nobody who asks by himself."""
    made = elsewhere.build(services.jobs, hub.url if hub else "http://127.0.0.1:9")
    made.attendant.end()
    services.__dict__["elsewhere"] = made  # where cached_property keeps it
    with gr.Blocks(analytics_enabled=False) as demo:
        where = tab_elsewhere.choice(WORDS)
        panel = tab_elsewhere.build(WORDS, where)
        tab_elsewhere_events.wire(panel, gr.Column(), {}, WORDS, services, lambda event, job, folds: None)
        tab_elsewhere_events.card(WORDS, services, gr.State("run"), gr.HTML())
    assert all(event.api_visibility == "private" for event in demo.fns.values())
    found: dict[str, Any] = {}
    for event in demo.fns.values():
        if event.fn is not None:
            found.setdefault(event.fn.__name__, event.fn)
    return found


def start(found: dict[str, Any], account: str, flavors: list[Flavor], request: Any = OWNER) -> list[list[Any]]:
    return list(found["start"](request, "click", account, "l4x4", 90, flavors))


def test_no_field_here_takes_the_name_of_one_of_the_form(services: TrainServices) -> None:
    """Both go into one call by name, and the later one would win without a word."""
    form = {f.name for f in fields(tab_form.Form)}
    found = handlers(services)
    for name in ("start", "make", "price", "minutes"):
        own = {n for n in inspect.signature(found[name]).parameters if n not in ("request", "values")}
        assert own and own & form == set() and all(n.startswith("at_") for n in own)


def test_a_token_is_taken_and_not_given_back(services: TrainServices, hub: FakeJobs) -> None:
    found = handlers(services, hub)
    token, who, account, flavors, offered, button = found["check"](f" {TOKEN} ", "", OWNER)
    assert (token, account) == ("", "me") and "me" in who and button["interactive"]
    assert offered["value"] == "l4x4" and "$3.80" in dict((v, k) for k, v in offered["choices"])["l4x4"]
    out = start(found, account, flavors)
    job = services.jobs.get(out[-1][2])
    assert job.state == "starting" and hub.jobs["job0"].spec["timeoutSeconds"] == 5400
    assert hub.jobs["job0"].spec["flavor"] == "l4x4"
    link = read_json(services.jobs.folder(job.id) / "remote.json")
    assert (link["namespace"], round(link["price"], 2)) == ("me", 3.8)
    assert found["find"]("me", OWNER)[1] == ""


def test_without_a_token_it_is_said_what_to_do(services: TrainServices, hub: FakeJobs) -> None:
    found = handlers(services, hub)
    assert WORDS("elsewhere.no_token") in found["check"]("", "", OWNER)[1]
    assert WORDS("elsewhere.bad_token") in found["check"]("토큰", "", OWNER)[1]
    hub.credit = False
    found["check"](TOKEN, "", OWNER)
    out = start(found, "me", [])
    assert "402" in out[-1][0] and out[-1][2] == ""


def test_only_the_owner_may(services: TrainServices, tmp_path: Path, hub: FakeJobs) -> None:
    found = handlers(services, hub)
    folder = write(tmp_path / "there", far_run.finished())
    assert REFUSED in found["check"](TOKEN, "", VISITOR)[1] and hub.asked == []
    assert REFUSED in start(found, "me", [], VISITOR)[-1][0] and hub.asked == []
    assert REFUSED in found["find"]("me", VISITOR)[0] and hub.asked == []
    assert REFUSED in found["make"](VISITOR, "click", 1, 1, 80, 24)[0]
    assert REFUSED in found["take"](None, str(folder), VISITOR)[0]
    assert REFUSED in found["handler"]("run", VISITOR) and services.jobs.list() == []


def test_the_folder_for_a_cluster_is_made_and_downloaded(services: TrainServices) -> None:
    told, asked, file, script, commands, job_id = handlers(services)["make"](OWNER, "click", 2, 4, 80, 12)
    assert asked != "click" and f"jobs/{job_id}" in told and "--nodes=2" in script and "--machine_rank 1" in commands
    with zipfile.ZipFile(file["value"]) as archive:
        assert f"{job_id}/run.sbatch" in archive.namelist()
    assert services.jobs.get(job_id).facts["where"] == "cluster"


def test_taking_over_says_what_came(services: TrainServices, tmp_path: Path) -> None:
    take = handlers(services)["take"]
    folder = write(tmp_path / "there", far_run.finished())
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    half, job_id, _ = take(None, f" {folder} ", OWNER)
    assert "n-note warn" in half and "adapter" in half
    write(folder, far_run.adapter())
    whole, again, _ = take(None, str(folder), OWNER)
    assert again == job_id and WORDS("elsewhere.taken", name="멀리서") in whole
    for nothing in (None, ""):
        assert WORDS("elsewhere.not_a_run") in take(nothing, "", OWNER)[0]


def test_the_card_is_there_for_runs_that_go_on_elsewhere(services: TrainServices, tmp_path: Path) -> None:
    found = handlers(services)
    done = take_over(services.jobs, write(tmp_path / "there", far_run.finished()))
    assert [found["show"](i)[0]["visible"] for i in (done.id, None, "", "gone", "../x")] == [False] * 5
    services.jobs.change(done.id, state="running")
    assert found["show"](done.id)[0]["visible"]


def test_the_line_below_a_run(services: TrainServices) -> None:
    folder = services.jobs.workspace.jobs / "x"
    here = Job("x", "x", "running", 1.0)
    assert elsewhere_view.place(here, folder, WORDS) == ""
    there = Job("x", "x", "running", 1.0, facts={"where": "hf"})
    evil = {"where": "hf", "flavor": "<b>", "seconds": 3600, "url": 'javascript:alert("x")'}
    evil |= {"trouble": {"key": "elsewhere.trouble", "values": {"status": 500, "reason": "<script>"}}}
    folder.mkdir()
    (folder / "remote.json").write_text(json.dumps(evil), encoding="utf-8")
    text = elsewhere_view.place(there, folder, WORDS)
    assert "<b>" not in text and "<script>" not in text and "javascript" not in text and "1시간" in text


def test_whether_it_fits_what_is_rented() -> None:
    flavor = Flavor("l4x4", "4x L4", gpus=4, memory=96.0)
    plan = elsewhere_view.fit(SPEC, SHAPE, flavor)
    assert plan is not None and plan.fit == "fits" and plan.available < 24 * GIB
    assert elsewhere_view.fit(SPEC, SHAPE, Flavor("cpu-basic", "CPU")) is None
    assert elsewhere_view.cost(None, 60, WORDS) == ""


def test_two_hours_where_nobody_knows(services: TrainServices, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(values: dict[str, Any]) -> Any:
        from assets.errors import UserError

        raise UserError("hub.offline", id="x")

    monkeypatch.setattr(tab_elsewhere_events.tab_form, "to_spec", unknown)
    assert tab_elsewhere_events.time_out({}, services) == tab_elsewhere.MINUTES


def test_the_time_out_covers_the_long_end_of_the_forecast(
    services: TrainServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tab_elsewhere_events.tab_form, "to_spec", lambda values: SPEC)
    monkeypatch.setattr(tab_elsewhere_events.tab_plan, "make", lambda *_: (None, None))
    monkeypatch.setattr(tab_elsewhere_events, "shape_of", lambda *_: SHAPE)
    for high, minutes in ((60.0, 30), (3600.0, 80), (36_000.0, 620)):
        found = SimpleNamespace(span=(10.0, high))
        monkeypatch.setattr(tab_elsewhere_events.outlook, "look", lambda *_, found=found: found)
        assert tab_elsewhere_events.time_out({}, services) == minutes
