from __future__ import annotations

import json
import re
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.catalog import STARTER, models
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from compare import tab_study
from compare.services import CompareServices
from compare.study_items import missing
from compare.tab_study_events import StudyPage
from compare.tab_study_one import HOME, NEW, Room
from tests.compare.pairs import no_prompts, store
from tests.compare.studies import practised, rate
from tests.fake_engine import FakeEngine

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
GEMMA = "google/gemma-2-2b-it"
HERE = "http://127.0.0.1:7860/"
pytestmark = pytest.mark.usefixtures("one_loop")


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **options: said.append(text))
    return said


@pytest.fixture
def services(tmp_path: Path) -> CompareServices:
    workspace = Workspace(tmp_path).prepare()
    engine = FakeEngine(answers={"a": "차가운 답이에요.", "b": "따뜻한 답이에요."})
    return CompareServices(
        workspace, engine, store(workspace.ratings), lambda request: request.owner, "0.1", no_prompts
    )


def build(services: CompareServices, language: str = "ko") -> tuple[gr.Blocks, StudyPage]:
    with gr.Blocks(analytics_enabled=False) as demo:
        made = tab_study.build(Words(language), services)
    return demo, made.page


@pytest.fixture
def page(services: CompareServices, toasts: list[str]) -> StudyPage:
    return build(services)[1]


def form(page: StudyPage, room: Room, **changes: Any) -> dict[Any, Any]:
    """What the form would send: its first values, those of the template, and ``changes``."""
    values = {field: field.value for field in page.form.fields}
    for component, value in page.begin(room, OWNER).items():
        if component in values:
            values[component] = value.get("value", values[component]) if isinstance(value, dict) else value
    small = {"name": "코니냐 젬마냐", "models": [STARTER, GEMMA], "per_set": 3}
    for name, value in (small | changes).items():
        values[getattr(page.form, name)] = value
    return values | {page.state: room}


def sent(page: StudyPage, shown: dict[Any, Any]) -> dict[Any, Any]:
    """What the form would send of what it was just shown."""
    return {
        field: value.get("value", field.value) if isinstance(value, dict) else value
        for field, value in shown.items()
        if field in page.form.fields
    }


def made(page: StudyPage, **changes: Any) -> tuple[Room, dict[Any, Any]]:
    room = Room()
    return room, page.create(form(page, room, **changes), OWNER)


def until(page: StudyPage, room: Room) -> dict[Any, Any]:
    """Tick until nothing moves."""
    for _ in range(1000):
        shown = page.tick(room, OWNER)
        work = page.services.maker.work(room.at)
        if work is None or not work.running:
            return page.tick(room, OWNER)
        time.sleep(0.01)
    raise TimeoutError(shown)


def opened(page: StudyPage, **changes: Any) -> Room:
    room, _ = made(page, **changes)
    page.start(room, OWNER)
    until(page, room)
    page.open(room, OWNER)
    return room


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_itself_names_no_model(services: CompareServices, language: str) -> None:
    demo, _ = build(services, language)
    config = json.dumps(demo.get_config_file(), ensure_ascii=False, default=str)
    assert not [name for name in (STARTER, *(card.name for card in models())) if name in config]
    assert all(event.api_visibility == "private" for event in demo.fns.values())


def test_nobody_but_the_owner_gets_anything(page: StudyPage, toasts: list[str]) -> None:
    room = opened(page)
    study = page.services.studies.get(room.at)
    shown = page.show(Room(room.at), VISITOR)
    assert Words("ko")("studies.owner_only") in shown[page.listed] and not shown[page.new]["visible"]
    act = json.dumps({"do": "open", "study": study.id})
    stranger = Room(study.id)
    tries = [
        page.act(stranger, act, HERE, VISITOR), page.begin(stranger, VISITOR), page.start(stranger, VISITOR),
        page.add(stranger, 1, HERE, VISITOR), page.close(stranger, VISITOR), page.pack(stranger, VISITOR),
        page.votes(stranger, VISITOR), page.merge(stranger, "/x", VISITOR), page.unpack(stranger, "/x", VISITOR),
        page.create(form(page, Room()), VISITOR), page.template(stranger, "koni", VISITOR), page.stop(stranger, VISITOR),
        page.rewrite(stranger, "x", "y", 1, VISITOR), page.again(stranger, VISITOR), page.remove(stranger, "yes", VISITOR),
    ]  # fmt: skip
    assert [list(shown) for shown in tries] == [[page.form.note]] * len(tries)
    assert toasts == [Words("ko")("app.owner_only")] * len(tries)
    assert page.tick(stranger, VISITOR).keys() == {page.timer}
    assert (
        page.services.studies.get(study.id).state == "open" and not page.services.study_service.raters(study.id).all()
    )


def test_a_study_from_the_form_to_its_links(page: StudyPage) -> None:
    room, shown = made(page, questions=["empathy", "clarity"], reveal="never", same=0)
    study = page.services.studies.get(room.at)
    assert [arm.name for arm in study.arms] == ["SmolLM2 135M Instruct", "Gemma 2 2B"]
    assert (len(study.prompts), study.list_length, study.reveal, study.same_share) == (6, 6, "never", 0)
    assert [question.key for question in study.questions] == ["empathy", "clarity"] and "109" in study.consent
    assert shown[page.one.make]["visible"] and not shown[page.one.share]["visible"]
    page.start(room, OWNER)
    shown = until(page, room)
    assert not missing(study, page.services.studies.items(study.id).read()) and shown[page.one.open]["visible"]
    shown = page.open(room, OWNER)
    assert shown[page.one.share]["visible"] and page.services.studies.get(room.at).state == "open"
    shown = page.add(room, 2, HERE, OWNER)
    codes = re.findall(r'data-copy="(http://127\.0\.0\.1:7860/rate\?c=[^"\n]+)"', shown[page.one.links])
    assert len(codes) == 2 and shown[page.one.links].count("<svg") == 2
    assert Words("ko")("studies.reach.here") in shown[page.one.links]
    seats = [page.services.study_service.enter(code.split("c=")[1]) for code in codes]
    assert [seat.number for seat in seats] == [1, 2]
    assert page.show(Room(room.at), OWNER)[page.one.links] == "", "links are shown once"


def test_progress_flags_and_links_that_are_blocked_and_renewed(page: StudyPage) -> None:
    room = opened(page)
    page.add(room, 1, HERE, OWNER)
    service = page.services.study_service
    seat = service.enter(room.links[0].code)
    service.consent(seat)
    practised(service, seat)
    rate(service, seat, "left")
    shown = page.tick(room, OWNER)
    assert "평가자 1" in shown[page.one.progress] and Words("ko")("studies.stage.done") in shown[page.one.progress]
    old = room.links[0].code
    shown = page.act(room, json.dumps({"do": "revoke", "rater": seat.rater}), HERE, OWNER)
    assert Words("ko")("studies.stage.revoked") in shown[page.one.progress] and room.links == []
    page.act(room, json.dumps({"do": "renew", "rater": seat.rater}), HERE, OWNER)
    assert room.links[0].code != old and service.enter(room.links[0].code).rater == seat.rater
    shown = page.act(room, json.dumps({"do": "home"}), HERE, OWNER)
    assert (
        room.at == HOME and room.links == [] and f"/ {page.services.studies.list()[0].target}표" in shown[page.listed]
    )


def test_making_answers_stops_and_goes_on(page: StudyPage) -> None:
    room, _ = made(page)
    engine: Any = page.services.engine
    engine.pause = 0.02
    page.start(room, OWNER)
    for _ in range(1000):
        if page.services.studies.items(room.at).read():
            break
        time.sleep(0.01)
    page.stop(room, OWNER)
    shown = until(page, room)
    study = page.services.studies.get(room.at)
    left = missing(study, page.services.studies.items(study.id).read())
    assert left and shown[page.one.start]["visible"] and shown[page.one.start]["value"] == Words("ko")("studies.go_on")
    assert not shown[page.one.open]["visible"]
    engine.pause = 0.0
    page.start(room, OWNER)
    until(page, room)
    assert not missing(study, page.services.studies.items(study.id).read())


def test_what_went_wrong_with_the_models_is_told(page: StudyPage) -> None:
    room, _ = made(page)
    engine: Any = page.services.engine
    engine.load_error = ZeroDivisionError("무언가")
    page.start(room, OWNER)
    shown = until(page, room)
    assert "무언가" in shown[page.one.making] and shown[page.one.start]["visible"]


def test_a_form_that_cannot_be_is_told_and_kept(page: StudyPage, toasts: list[str]) -> None:
    words, room = Words("ko"), Room()
    for bad in ({"models": [STARTER]}, {"name": "  "}, {"sets": []}):
        assert list(page.create(form(page, room, **bad), OWNER)) == [page.form.note]
    assert toasts == [words("study.two_models"), words("study.no_name"), words("study.no_prompts")]
    assert room.at == NEW and page.services.studies.list() == []


def test_the_estimate_follows_the_form(page: StudyPage) -> None:
    room = Room()
    few = page.foresee(form(page, room, raters=1), OWNER)
    many = page.foresee(form(page, room, raters=40, per_set=60), OWNER)
    assert "1명이면" in few and "n-note warn" in few and "n-note warn" not in many
    assert page.foresee(form(page, room), VISITOR) == ""
    assert Words("ko")("study.no_prompts") in page.foresee(form(page, room, sets=[]), OWNER)


def test_the_ready_made_study(page: StudyPage) -> None:
    room = Room()
    page.begin(room, OWNER)
    shown = page.template(room, "koni", OWNER)
    assert shown[page.form.name] == Words("ko")("studies.koni.name")
    assert (
        "KONI" in str(shown[page.form.models]["value"])
        and Words("ko")("studies.koni.no_gemma") in shown[page.form.note]
    )
    assert shown[page.form.sets]["value"] == ["builtin-emotion", "builtin-science"]
    english = page.write("en", OWNER)
    assert english[page.form.consent] == Words("en")("study.default.consent")


def test_rated_elsewhere_and_merged_twice(page: StudyPage, tmp_path: Path, toasts: list[str]) -> None:
    room = opened(page)
    packed = page.pack(room, OWNER)[page.one.file]["value"]
    away = Workspace(tmp_path / "away").prepare()
    other = CompareServices(away, FakeEngine(), store(away.ratings), lambda request: request.owner, "0.1", no_prompts)
    there, elsewhere = build(other)[1], Room()
    shown = there.unpack(elsewhere, packed, OWNER)
    assert Words("ko")("studies.packed") in shown[there.one.head] and not shown[there.one.pack]["visible"]
    there.add(elsewhere, 1, HERE, OWNER)
    seat = other.study_service.enter(elsewhere.links[0].code)
    other.study_service.consent(seat)
    rate(other.study_service, seat)
    votes = there.votes(elsewhere, OWNER)[there.one.file]["value"]
    first = page.merge(room, votes, OWNER)[page.one.told]
    again = page.merge(room, votes, OWNER)[page.one.told]
    assert toasts == [] and re.search(r"[1-9]\d*표를 더했어요", first) and "0표를 더했어요" in again


def test_the_texts_for_raters_may_be_put_better(page: StudyPage) -> None:
    room = opened(page)
    shown = page.rewrite(room, " 새 제목 ", "더 쉬운 글. 109", None, OWNER)
    study = page.services.studies.get(room.at)
    assert (
        (study.title, study.consent)
        == ("새 제목", "더 쉬운 글. 109")
        == (shown[page.one.title], shown[page.one.consent])
    )
    assert Words("ko")("studies.saved") in shown[page.one.told]
    page.rewrite(room, " ", "x", None, OWNER)
    assert page.services.studies.get(room.at).title == "새 제목"


def test_a_study_that_is_gone_leads_home(page: StudyPage, toasts: list[str]) -> None:
    room = Room("20260101-deadbeef")
    assert page.tick(room, OWNER)[page.timer].active is False and room.at == HOME and len(toasts) == 1
    for told in ("", "nonsense", "[1]", '{"do": "open", "study": "../.."}', '{"do": "renew", "rater": "x"}'):
        page.act(room, told, HERE, OWNER)
    assert room.at == HOME


def test_more_votes_may_be_asked_for_but_not_fewer(page: StudyPage, toasts: list[str]) -> None:
    room = opened(page, target=40)
    assert page.rewrite(room, "", "", 60, OWNER)[page.one.target] == 60
    page.rewrite(room, "", "", 30, OWNER)
    assert page.services.studies.get(room.at).target == 60 and len(toasts) == 1


def test_a_draft_is_changed_and_keeps_its_place(page: StudyPage) -> None:
    room, _ = made(page, part="learn", target=70, title="처음 제목")
    first = page.services.studies.get(room.at)
    shown = page.again(room, OWNER)
    assert room.at == NEW and shown[page.form.models]["value"] == [STARTER, GEMMA]
    values = form(page, Room()) | sent(page, shown)
    assert values[page.form.part] == "learn" and values[page.form.target] == 70 and values[page.form.per_set] == 3
    page.create(values | {page.form.target: 90, page.form.per_set: 2, page.state: room}, OWNER)
    kept = page.services.studies.get(room.at)
    assert kept.id == first.id and kept.target == 90 and kept.title == "처음 제목" and room.draft == ""
    assert 0 < len(kept.prompts) < len(first.prompts) and len(page.services.studies.list()) == 1


def test_unchanged_a_draft_stays_what_it_was(page: StudyPage) -> None:
    room, _ = made(page)
    first = page.services.studies.get(room.at)
    shown = page.again(room, OWNER)
    values = form(page, Room()) | sent(page, shown)
    page.create(values | {page.state: room}, OWNER)
    kept = page.services.studies.get(room.at)
    assert kept.prompts == first.prompts and [a.model for a in kept.arms] == [a.model for a in first.arms]
    free = ("arms", "seed", "created_at")
    assert all(getattr(kept, f.name) == getattr(first, f.name) for f in fields(first) if f.name not in free)


def test_a_study_that_was_never_opened_can_be_deleted(page: StudyPage, toasts: list[str]) -> None:
    room, _ = made(page)
    page.remove(room, "", OWNER)
    page.remove(room, "yes", VISITOR)
    assert len(page.services.studies.list()) == 1 and len(toasts) == 1
    page.remove(room, "yes", OWNER)
    assert room.at == HOME and page.services.studies.list() == [] == page.services.studies.broken()
    room = opened(page)
    page.remove(room, "yes", OWNER)
    assert len(page.services.studies.list()) == 1 and len(toasts) == 2
