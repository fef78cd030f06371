from __future__ import annotations

import json

import pytest

from assets.catalog import STARTER, models
from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.services import CompareServices
from compare.session import Session
from compare.tab_events import Page
from tests.compare.pages import OWNER, VISITOR, Toasts, ask, build, final, followed, load, meet, told
from tests.compare.pairs import BASE, NAMES, TUNED

pytestmark = pytest.mark.usefixtures("one_loop")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_itself_names_no_model(services: CompareServices, language: str) -> None:
    demo, _ = build(services, language)
    config = json.dumps(demo.get_config_file(), ensure_ascii=False, default=str)
    for name in [STARTER, *(card.name for card in models()), "model_a", "model_b"]:
        assert name not in config
    assert all(event.api_visibility == "private" for event in demo.fns.values())


def test_nothing_sent_before_the_vote_names_a_model(page: Page) -> None:
    session = meet(page, VISITOR)
    load(page)
    sent = [page.show(session, session.rater, VISITOR)] + ask(page, session)
    sent += list(page.again(session, "", 0.7, 0.9, 32, 0)) + [page.chosen(session)]
    assert not [name for name in NAMES if name in told(sent)]
    after = page.confirm(session, "left", "", "columns", *[None] * len(page.vote.radios))
    assert "gemma 2 2b" in told([after]) and "공감 대화" in told([after])


def test_an_owner_in_blind_mode_sees_no_name_either_once_loaded(page: Page) -> None:
    load(page)
    session = Session()
    assert not [name for name in NAMES if name in told([page.show(session, None, OWNER)])]
    assert "gemma" in told([page.mode(session, "open", None)])


def test_a_vote_reaches_the_file_once(page: Page) -> None:
    session = meet(page)
    load(page)
    ask(page, session)
    marks = [0 if (m.domain, m.criterion, m.place) == ("emotion", "empathy", "left") else None for m in page.vote.marks]
    for _ in range(3):
        page.confirm(session, "left", "좋아요", "stacked", *marks)
    (vote,) = page.services.ratings.read().votes
    assert vote.criteria == {vote.left_is: {"empathy": 0}} and vote.winner == vote.left_is
    assert vote.layout == "stacked" and vote.comment == "좋아요" and vote.rater_role == "owner"
    page.undo(session)
    assert page.services.ratings.read().votes == []


def test_the_next_question_is_one_without_a_vote(page: Page) -> None:
    session = meet(page)
    load(page)
    shown = page.prompt(session, "emotion-002")
    list(page.ask(session, shown[page.talk.text]["value"], "emotion", "emotion-002", "", 0.7, 0.9, 32, 0))
    page.confirm(session, "tie", "", "columns", *[None] * len(page.vote.radios))
    assert page.following(session, "emotion-001")[page.talk.prompt]["value"] == "emotion-003"
    again = Session()
    shown = page.show(again, session.rater, OWNER)
    assert again.rated == {"emotion-002"} and shown[page.talk.prompt]["value"] == "emotion-001"
    assert "✓" in shown[page.talk.prompt]["choices"][1][0]


def test_only_the_owner_loads_and_unloads(page: Page, toasts: Toasts) -> None:
    visitor = meet(page, VISITOR)
    refused = Words("ko")("app.owner_only")
    assert refused in told([page.load(visitor, STARTER, STARTER, *[None] * 4, VISITOR)])
    load(page)
    page.unload(visitor, VISITOR)
    page.cancel_loading(VISITOR)
    page.change(visitor, VISITOR)
    page.choose(visitor, STARTER, "x/y", VISITOR)
    assert toasts == [refused] * 4 and page.services.desk.pair is not None and not visitor.editing
    page.unload(meet(page), OWNER)
    assert page.services.desk.pair is None and page.services.engine.loaded is None


def test_choosing_nothing_or_nonsense_is_said_in_the_card(page: Page) -> None:
    session = meet(page)
    assert Words("ko")("compare.pick_two") in told([page.load(session, STARTER, "", *[None] * 4, OWNER)])
    assert Words("ko")("adapters.no_folder", folder="/nowhere") in told(
        [page.look(session, STARTER, "/nowhere", OWNER)]
    )


def test_bad_settings_and_an_empty_question_are_told(page: Page, toasts: Toasts) -> None:
    session = meet(page)
    ask(page, session)
    load(page)
    ask(page, session, "   ")
    ask(page, session, "안녕", "", 0.7, None, 32, 0)
    words = Words("ko")
    assert toasts == [words("engine.not_loaded"), words("compare.empty"), words("compare.bad_number", name="top-p")]
    assert session.stage == "ready"


def test_the_unexpected_is_told_and_logged(page: Page, toasts: Toasts, caplog: pytest.LogCaptureFixture) -> None:
    session = meet(page)
    load(page)
    page.services.engine.stream_error = ZeroDivisionError("무언가")  # type: ignore[attr-defined]
    shown = ask(page, session)
    assert toasts == [Words("ko")("app.unexpected", reason="ZeroDivisionError: 무언가")]
    assert "Traceback" in caplog.text and session.stage == "stopped"
    assert shown[-1][page.talk.ask]["visible"] and not shown[-1][page.talk.stop]["visible"]


def test_loading_shows_its_phases_and_ends_in_one_line(page: Page) -> None:
    session = meet(page)
    page.services.engine.load_pause = 0.1  # type: ignore[attr-defined]
    page.services.desk.load(BASE, TUNED)
    shown = [page.show(session, session.rater, OWNER), *followed(page, session)]
    assert Words("ko")("engine.phase.start") in told(shown[:3])
    end = final(shown)
    assert end[page.setup.top]["visible"] and not end[page.setup.card]["visible"] and end[page.talk.ask]["interactive"]
    assert not shown[-2][page.talk.ask]["interactive"], "what is asked before the page is whole would be painted over"
    again = final([page.show(session, session.rater, OWNER), *followed(page, session)])
    assert again[page.talk.ask]["interactive"] and again[page.setup.top]["visible"]
    assert any(s.get(page.talk.system) == "친구예요." for s in shown)


def test_the_question_is_put_back_when_the_answer_fails(page: Page) -> None:
    session = meet(page)
    load(page)
    page.services.engine.stream_error = UserError("engine.empty_prompt")  # type: ignore[attr-defined]
    assert "value" not in ask(page, session)[-1][page.talk.text]
    page.services.engine.stream_error = None  # type: ignore[attr-defined]
    assert ask(page, session)[-1][page.talk.text]["value"] == ""


def test_compare_with_base_opens_the_card_with_both_chosen(page: Page) -> None:
    session = meet(page)
    shown = page.choose(session, STARTER, "google/gemma-2-2b-it", OWNER)
    assert shown[page.setup.base]["value"] == STARTER and shown[page.setup.other]["value"] == "google/gemma-2-2b-it"
    assert shown[page.setup.card]["visible"]
    assert page.show(session, session.rater, OWNER)[page.setup.other]["value"] == "google/gemma-2-2b-it"
