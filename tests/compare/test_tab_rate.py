from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.words import Words
from compare import rate_view, tab_rate
from compare.ratings import RatingsFile
from compare.study_serve import StudyService
from compare.study_view import Revealed
from compare.tab_rate import RatePage
from tests.compare.studies import SECRETS, opened

KOREAN, ENGLISH = (SimpleNamespace(headers={"accept-language": text}) for text in ("ko-KR,ko;q=0.9", "en-US"))
pytestmark = pytest.mark.usefixtures("one_loop")


class Rater:
    """Somebody in front of the page, as rate.js would act for them."""

    def __init__(self, page: RatePage, code: str) -> None:
        self.page, self.code, self.html = page, code, ""
        self.note: str = ""

    def do(self, do: str, **more: Any) -> str:
        told = json.dumps({"c": self.code, "do": do, "token": self.token, **more})
        screen, self.note = self.page.act(told, KOREAN)
        if isinstance(screen, str):
            self.html = screen
        return self.html

    @property
    def token(self) -> str:
        found = re.search(r'data-token="([^"]*)"', self.html)
        return found[1] if found else ""

    @property
    def screen(self) -> str:
        found = re.search(r'data-screen="([^"]*)"', self.html)
        assert found
        return found[1]

    def vote(self, choice: str = "left", **more: Any) -> str:
        return self.do("vote", choice=choice, **more)

    def finish(self) -> None:
        while self.screen == "item":
            self.vote()


@pytest.fixture
def page(tmp_path: Path) -> RatePage:
    studies, _ = opened(tmp_path)
    return RatePage(StudyService(studies, RatingsFile(tmp_path / "ratings.csv", "0.1"), "0.1"), studies)


def seat(page: RatePage) -> Rater:
    (study,) = page.studies.list()
    (link,) = page.service.raters(study.id).add(1)
    return Rater(page, link.code)


def votes(page: RatePage) -> list[Any]:
    return [vote for vote in page.service.ratings.read().votes if vote.kind != "practice"]


def test_the_page_holds_one_light_event_and_no_name(tmp_path: Path, page: RatePage) -> None:
    with gr.Blocks(analytics_enabled=False) as demo:
        tab_rate.build(page.service, page.studies)
    config = json.dumps(demo.get_config_file(), ensure_ascii=False, default=str).casefold()
    assert not [name for name in SECRETS if name in config]
    events = [fn for fn in demo.fns.values() if fn.fn is not None]
    assert [len(event.outputs) for event in events] == [2, 2] and all(len(event.inputs) == 1 for event in events)
    assert all(event.api_visibility == "private" for event in demo.fns.values())
    assert {event.concurrency_limit for event in events} == {tab_rate.RATERS}


def test_from_the_welcome_to_the_code_without_a_name(page: RatePage) -> None:
    rater = seat(page)
    seen = [rater.do("open")]
    assert rater.screen == "welcome" and "109" in rater.html
    seen.append(rater.do("consent"))
    assert "연습" in rater.html
    while rater.screen == "item":
        seen.append(rater.vote("tie"))
    assert rater.screen == "done" and re.search(r"[A-Z2-7]{4}-[A-Z2-7]{4}", rater.html)
    told = "".join(seen).casefold()
    (study,) = page.studies.list()
    hidden = [*SECRETS, *(arm.key for arm in study.arms), study.name.casefold()]
    assert not [name for name in hidden if name in told]
    revealed = rater.do("reveal")
    assert "공감 대화" in revealed and "Gemma 2 2B" in revealed


def test_a_choice_reaches_the_file_with_its_marks(page: RatePage) -> None:
    rater = seat(page)
    rater.do("consent")
    rater.vote()
    rater.vote()
    asked = re.search(r'data-place="left" data-key="(\w+)" value="(-?\d+)"', rater.html)
    assert asked
    rater.vote(
        "right", marks={"left": {asked[1]: int(asked[2]), "x": "y"}, "up": {"a": 1}}, comment=" 좋아요 ",
        layout="stacked", seconds=3.4,
    )  # fmt: skip
    (vote,) = votes(page)
    other = "model_b" if vote.left_is == "model_a" else "model_a"
    assert vote.winner == other and vote.criteria == {vote.left_is: {asked[1]: int(asked[2])}}
    assert (vote.comment, vote.layout, vote.timing["seconds_to_vote"]) == ("좋아요", "stacked", 3.4)


def test_double_clicks_reloads_and_a_second_device(page: RatePage) -> None:
    rater = seat(page)
    rater.do("consent")
    rater.vote()
    rater.vote()
    before = rater.html
    rater.vote("left")
    after = rater.html
    rater.html = before
    assert rater.vote("right") == after and len(votes(page)) == 1, "the first of two clicks counts"
    other = Rater(page, rater.code)
    assert other.do("open") == after
    other.do("undo")
    assert other.token != rater.token and votes(page) == []
    rater.do("undo")
    assert votes(page) == [] and rater.token == other.token, "what the second device undid is not undone twice"


def test_a_refused_vote_leaves_the_screen_as_it_is(page: RatePage) -> None:
    rater = seat(page)
    rater.do("consent")
    before = rater.html
    rater.vote("")
    assert rater.html == before and Words("ko")("study.choose_first") in rater.note
    rater.vote("left", marks={"left": {"empathy": 99}})
    assert rater.html == before and "n-note bad" in rater.note
    rater.vote("left")
    assert rater.html != before and rater.note == ""


def test_links_that_do_not_open(page: RatePage) -> None:
    for language, asked in (("ko", KOREAN), ("en", ENGLISH)):
        html, note = page.act('{"c": "nobody.x", "do": "open"}', asked)
        assert f'lang="{language}"' in html and Words(language)("study.link_unknown") in html and not note
    for text in ("", "nonsense", "[]", "{}", '{"c": 3}', '{"c": "../../etc.x", "do": "vote"}'):
        assert 'data-screen="message"' in page.act(text, KOREAN)[0]
    rater = seat(page)
    (study,) = page.studies.list()
    page.service.raters(study.id).revoke(page.service.raters(study.id).all()[0].rater)
    assert Words("ko")("study.link_revoked") in rater.do("open")


def test_a_study_that_closes_meanwhile_says_so(page: RatePage) -> None:
    rater = seat(page)
    rater.do("consent")
    (study,) = page.studies.list()
    page.studies.set_state(study.id, "closed")
    assert Words("ko")("rate.closed") in rater.vote() and rater.screen == "message"


def test_withdrawing_takes_every_vote_out(page: RatePage) -> None:
    rater = seat(page)
    rater.do("consent")
    for _ in range(4):
        rater.vote()
    assert len(votes(page)) == 2
    assert Words("ko")("rate.withdrawn") in rater.do("withdraw")
    assert votes(page) == [] and rater.do("open") == rater.html


def test_the_unexpected_is_told_and_logged(
    page: RatePage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rater = seat(page)
    rater.do("consent")
    before = rater.html

    def broken(*given: Any, **named: Any) -> None:
        raise ZeroDivisionError("무언가")

    monkeypatch.setattr(StudyService, "vote", broken)
    rater.vote()
    assert rater.html == before and "무언가" in rater.note and "Traceback" in caplog.text


def test_whatever_is_in_an_answer_is_text(tmp_path: Path) -> None:
    words = Words("ko")
    evil = '<script>x</script>\n"=cmd" 🙂 \ud800'
    html = rate_view.message(evil, evil, words)
    assert "<script>" not in html and html.encode("utf-8")
    assert "<b>" not in rate_view.note("<b>")
    rows = (Revealed(1, "main", "<i>가</i>", "나", "tie"),)
    assert "<i>" not in rate_view._reveal(rows, words)
