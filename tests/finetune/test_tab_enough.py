"""The offer and the table in the page: what is sent, to whom, and when nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.errors import UserError
from assets.files import write_json
from assets.words import Words
from finetune import enough, groups, tab_enough, tab_form, tab_runs
from finetune.jobs import Jobs
from finetune.services import TrainServices
from tests.finetune.test_enough import ALL, SPEC, offered, services  # noqa: F401
from tests.finetune.test_enough_result import a_group, a_run

WORDS = Words("ko")
SKIPPED = [gr.skip()] * 5


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr(tab_enough.tab_form, "to_spec", lambda values: values["spec"])
    yield {"spec": SPEC}


def test_the_offer_shows_runs_times_and_their_sum(services: TrainServices, form: dict[str, Any]) -> None:  # noqa: F811
    told, roles, total, go, spans = tab_enough.offered(form, WORDS, services)
    assert [role for _, role in roles["choices"]] == roles["value"] == list(spans) == ALL
    assert "0.003" in roles["choices"][0][0] and "0.0001" in roles["choices"][3][0] and go["interactive"]
    assert "4개" in total and WORDS("enough.short", steps=5) in told
    refused = tab_enough.offered({"spec": SimpleNamespace(objective="dpo")}, WORDS, services)
    assert WORDS("enough.sft_only", objective="DPO") in refused[0]
    assert refused[1]["choices"] == [] and not refused[3]["interactive"]


def test_queueing_shows_the_first_run_and_is_the_owners(
    services: TrainServices,  # noqa: F811
    form: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gr, "Info", lambda *_: None)
    token, picked, seen, fold = tab_enough.queue(None, ["wide", "full"], "click", form, WORDS, services)  # type: ignore[arg-type]
    listed = list(reversed(services.jobs.list()))
    assert token != "click" and seen == {} and fold["open"] is False
    assert picked["value"] == listed[0].id and [job.facts["method"] for job in listed] == ["lora", "full"]
    stranger = TrainServices(services.workspace, services.jobs, lambda request: False)
    with pytest.raises(UserError, match="owner_only"):
        tab_enough.queue(None, ALL, "other", form, WORDS, stranger)  # type: ignore[arg-type]
    assert len(services.jobs.list()) == 2


def test_a_run_of_a_group_brings_its_table_once(tmp_path: Any) -> None:
    jobs, group = a_group(tmp_path)
    own = TrainServices(jobs.workspace, jobs, lambda request: True)
    groups.save(jobs.workspace, group)
    for name in ("one", "two", "three"):
        jobs.change(name, group=group.id)
    seen, shown, told, chosen, compare = tab_enough.refresh("three", [], "", WORDS, own)
    assert shown["visible"] and "train-enough-table" in told
    assert [job for _, job in chosen["choices"]] == ["one", "two"] and chosen["value"] == ["one", "two"]
    assert compare["visible"] and compare["interactive"] and compare["variant"] == "secondary"
    assert tab_enough.refresh("one", ["one", "two"], seen, WORDS, own) == SKIPPED

    jobs.change("three", state="stopped")
    again = tab_enough.refresh("one", ["two", "one"], seen, WORDS, own)
    assert again[0] != seen and again[3]["value"] == ["two", "one"] and again[4]["variant"] == "primary"


def test_a_run_of_its_own_has_no_table(tmp_path: Any) -> None:
    jobs, _ = a_group(tmp_path)
    own = TrainServices(jobs.workspace, jobs, lambda request: True)
    a_run(jobs.workspace, "alone", "finished", [1.0])
    for picked in (None, "alone", "deleted", "one"):  # the group of "one" was never written
        assert tab_enough.refresh(picked, [], "", WORDS, own) == SKIPPED
    assert tab_enough.refresh("alone", [], "before", WORDS, own)[1]["visible"] is False
    jobs.change("one", group="0" * 16)
    write_json(groups.path_of(jobs.workspace, "0" * 16), {"version": 99})
    broken = tab_enough.refresh("one", [], "", WORDS, own)
    assert WORDS("groups.unreadable", id="?") in broken[2] and broken[1]["visible"]


@pytest.mark.usefixtures("one_loop")
def test_the_parts_of_the_page_fit_together(tmp_path: Any) -> None:
    jobs = Jobs(a_group(tmp_path)[0].workspace)
    own = TrainServices(jobs.workspace, jobs, lambda request: True)
    with gr.Blocks(analytics_enabled=False) as demo:
        form, runs = tab_form.build(WORDS), tab_runs.build(WORDS)
        panel, card = tab_enough.panel(WORDS), tab_enough.card(WORDS)
        tab_enough.wire_card(card, runs, WORDS, own)
        fold = gr.Accordion("x")
        tab_enough.wire_panel(panel, form, [runs.picked, runs.seen, fold], lambda event: None, WORDS, own)
    assert len(card.outputs()) == len(SKIPPED) == len(panel.offered())
    assert all(event.api_visibility == "private" for event in demo.fns.values())
    assert set(enough.ROLES) == set(ALL)
