"""Where tuning made it worse, as the owner sees it in the room for studies."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.errors import UserError
from assets.files import Workspace
from assets.words import Words
from compare import changes_set, tab_changes_set
from compare.changes_set import Measured, Sides
from compare.engine import Changes, TokenChange
from compare.services import CompareServices
from compare.study import Study
from compare.tab_changes_set import SetPage
from compare.tab_study_events import StudyPage
from compare.tab_study_one import HOME, Room
from compare.views_changes_set import listed
from tests.compare.pairs import desk, no_prompts, store
from tests.compare.studies import CANDIDATES, opened, study
from tests.compare.test_changes_set import Judge

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
WORDS = Words("ko")
pytestmark = pytest.mark.usefixtures("one_loop")


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **options: said.append(text))
    return said


def page(tmp_path: Path, made: Study | None = None) -> tuple[SetPage, Room, Study]:
    workspace = Workspace(tmp_path).prepare()
    _, kept = opened(tmp_path, made)
    services = CompareServices(
        workspace, Judge(), store(workspace.ratings), lambda request: request.owner, "0.1", no_prompts
    )
    services.__dict__["desk"] = desk(services.engine, *CANDIDATES[:2])  # type: ignore[arg-type]
    with gr.Blocks(analytics_enabled=False):
        state, blank = gr.State(Room()), gr.HTML()
        panel = tab_changes_set.build(WORDS)
        told = StudyPage(WORDS, services, state, *[None] * 7)  # type: ignore[arg-type]
        found = SetPage(WORDS, services, panel, told.telling, told.only_owner)
        found.wire(state, blank)
    return found, Room(at=kept.id), kept


def until(at: SetPage, room: Room, models: str | None = None, order: str = "reference") -> dict[Any, Any]:
    for _ in range(1000):
        shown = at.look(room, models, order, OWNER)
        if not shown[at.panel.stop]["visible"]:
            return shown
        time.sleep(0.005)
    raise AssertionError("it never ended")


def test_from_the_button_to_the_answers(tmp_path: Path) -> None:
    at, room, made = page(tmp_path)
    shown = at.arrive(room, OWNER)
    assert shown[at.panel.fold] == gr.update(visible=True, open=False) and not shown[at.panel.models]["visible"]
    shown = at.look(room, None, "reference", OWNER)
    assert shown[at.panel.start]["visible"] and not shown[at.panel.order]["visible"] and shown[at.panel.rows] == ""
    at.start(room, None, "reference", OWNER)
    shown = until(at, room)
    assert not shown[at.panel.start]["visible"] and shown[at.panel.order]["visible"]
    assert WORDS("changes.set.worse", worse=8, n=12) in shown[at.panel.rows]
    labels = [label for label, _ in shown[at.panel.pick]["choices"]]
    assert labels[0] == "1. 질문 11" and len(labels) == 8 and "2.85" in shown[at.panel.rows]
    changed = at.turn(room, None, "change", OWNER)
    assert changed[at.panel.pick]["choices"][0][0] == "1. 질문 0" and changed[at.panel.detail] == ""
    assert changed[at.panel.pick]["value"] is None
    told = at.show(room, None, made.prompts[3].id, OWNER)
    assert "n-heat" in told and "답 3" in told and made.arms[1].name in told and "0번 답" in told
    assert at.show(room, None, "gone", OWNER) == ""


def test_it_can_be_stopped_from_the_page(tmp_path: Path) -> None:
    at, room, made = page(tmp_path)
    at.services.engine.pause = 30  # type: ignore[attr-defined]
    shown = at.start(room, None, "reference", OWNER)
    assert shown[at.panel.stop]["visible"] and shown[at.panel.timer].active
    assert WORDS("changes.set.done", done=0, total=12) in shown[at.panel.progress]
    at.stop(room, None, "reference", OWNER)
    assert until(at, room)[at.panel.start]["visible"]


def test_nobody_but_the_owner_gets_anything(tmp_path: Path, toasts: list[str]) -> None:
    at, room, made = page(tmp_path)
    assert not at.arrive(room, VISITOR)[at.panel.fold]["visible"]
    assert at.panel.rows not in at.look(room, None, "reference", VISITOR)
    at.start(room, None, "reference", VISITOR)
    assert at.services.measurer.work(made.id, changes_set.sides_of(made)[0]) is None
    assert at.show(room, None, made.prompts[0].id, VISITOR) == "" and len(toasts) >= 4


def test_elsewhere_and_where_nothing_can_be_compared_it_is_not_seen(tmp_path: Path) -> None:
    unrelated = replace(study(3), arms=tuple(arm for arm in study(3).arms if arm.adapter is None))
    at, room, _ = page(tmp_path, unrelated)
    assert not at.arrive(room, OWNER)[at.panel.fold]["visible"]
    assert not at.arrive(Room(at=HOME), OWNER)[at.panel.fold]["visible"]
    assert at.look(Room(at=HOME), None, "reference", OWNER)[at.panel.rows] == ""


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    at, room, _ = page(tmp_path)
    at.services.engine.refuses = "질문"  # type: ignore[attr-defined]
    at.start(room, None, "reference", OWNER)
    shown = until(at, room)
    assert "n-note bad" in shown[at.panel.progress] and shown[at.panel.start]["visible"]
    at.services.engine.refuses = "질문 7"  # type: ignore[attr-defined]
    at.start(room, None, "reference", OWNER)
    assert WORDS("changes.set.failed", n=1) in until(at, room)[at.panel.progress]


@pytest.mark.parametrize("language", ["ko", "en"])
def test_sentences_for_sets_without_references_and_without_losses(language: str) -> None:
    words, made = Words(language), study()
    sides = Sides(made.arms[0].key, made.arms[1].key)
    tokens = (TokenChange("<b>", 1.0, 0.1, 0.9),)

    def measured(perplexity: tuple[float, float] | None) -> list[Measured]:
        return [Measured(made.prompts[0].id, sides, "s", Changes(tokens, 0, perplexity))]

    none = measured(None)
    assert words("changes.set.no_reference") in listed(made, [], none, "reference", words)
    assert words("changes.set.share", percent=100) in listed(made, none, none, "change", words)
    better = measured((4.0, 2.0))
    assert words("changes.set.none_worse", n=1) in listed(made, [], better, "reference", words)
    assert words("changes.set.closer") in listed(made, better, better, "change", words)
    assert listed(made, [], [], "reference", words) == ""
    many = measured((1.0, 20.0)) * 30
    assert words("changes.set.more", n=10) in listed(made, many, many, "reference", words)


def test_the_record_holds_no_name_of_a_model(tmp_path: Path) -> None:
    at, room, made = page(tmp_path)
    at.start(room, None, "reference", OWNER)
    until(at, room)
    rows = (at.services.studies.folder(made.id) / changes_set.FILE).read_text(encoding="utf-8")
    assert json.loads(rows.splitlines()[0])["version"] == 1
    assert not any(arm.model in rows or arm.name in rows for arm in made.arms)
    with pytest.raises(UserError):
        at.services.measurer.start("no-such-study", changes_set.sides_of(made)[0])
