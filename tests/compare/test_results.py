from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.files import Workspace
from assets.words import LANGUAGES, Words
from compare import results
from compare import results_view as view
from compare.ratings import RatingsFile
from compare.results_view import Filter
from compare.services import CompareServices
from tests.compare.pairs import no_prompts
from tests.compare.rating_files import vote
from tests.fake_engine import FakeEngine

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
pytestmark = pytest.mark.usefixtures("one_loop")
ALL = Filter(("base", "tuned"))
PROOF = {"model_a": {"model": "base"}, "model_b": {"model": "tuned", "adapter_sha256": "f"}}


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    workspace = Workspace(tmp_path).prepare()
    made = RatingsFile(workspace.ratings / "ratings.csv")
    for i in range(20):
        made.append(
            vote(
                f"r{i}",
                winner="model_b" if i < 16 else "model_a",
                left_is="model_a" if i % 2 else "model_b",
                domain="emotion" if i < 12 else "science",
                blind=i != 3,
                comment="비밀 <b>의견</b>" if i == 0 else "",
                conversation=[{"role": "user", "content": f"질문 {i} <script>"}],
                response_a="가",
                response_b="나",
                criteria={"model_b": {"empathy": 0}} if i < 12 else {},
                provenance=PROOF,
            )  # fmt: skip
        )
    return made


@pytest.fixture
def tab(file: RatingsFile) -> results.ResultsTab:
    services = CompareServices(
        Workspace(file.path.parents[1]), FakeEngine(), file, lambda r: r.owner, "0.1", no_prompts
    )
    with gr.Blocks(analytics_enabled=False):
        return results.build(Words("ko"), services)


def show(tab: results.ResultsTab, request: Any = OWNER, domain: str = "", blind: bool = True) -> dict[Any, Any]:
    return tab.show("kim", None, domain, blind, request)


def test_filters_say_what_they_leave_out(file: RatingsFile) -> None:
    picture = view.look(file.read(), ALL)
    assert picture.tally.n == 19 and picture.left_out == {"not_blind": 1} and picture.tuned == "model_b"
    picture = view.look(file.read(), Filter(ALL.pair, "science"))
    assert picture.tally.n == 8 and picture.left_out == {"not_blind": 1, "other_domain": 11}
    assert view.look(file.read(), Filter(ALL.pair, "", False)).tally.n == 20


def test_the_tuned_side_is_found_whichever_way_round(file: RatingsFile) -> None:
    assert view.look(file.read(), Filter(("tuned", "base"))).tuned == "model_a"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sentence_and_the_figures(file: RatingsFile, language: str) -> None:
    words, picture = Words(language), view.look(file.read(), ALL)
    said = view.verdict(picture, words)
    assert "79" in said and "n-sure" in said
    drawn = view.rates(picture, words)
    assert drawn.count("<svg") == 3 and "79 %" in drawn
    assert "{" not in said + drawn + view.places(picture, words) + view.left_out(picture, words)


def test_an_interval_is_drawn_where_it_lies() -> None:
    assert 'x="100.0" y="6" width="80.0"' in view.plot(0.7, (0.5, 0.9)) and "n-open" in view.plot(0.7, (0.5, 0.9))
    assert "n-over" in view.plot(0.8, (0.6, 0.9)) and "n-under" in view.plot(0.2, (0.1, 0.4))
    assert "n-band" not in view.plot(None, None)


def test_what_people_and_models_wrote_is_escaped(tab: results.ResultsTab) -> None:
    text = show(tab)[tab.votes]
    assert "<script>" not in text and "&lt;script&gt;" in text and "비밀 &lt;b&gt;" in text
    assert "공감: 딱 알맞아요" in text


def test_others_see_no_comments_and_no_files(tab: results.ResultsTab) -> None:
    stranger = tab.show("someone", None, "", True, VISITOR)
    assert "비밀" not in stranger[tab.votes] and not stranger[tab.files]["visible"]
    assert "비밀" in show(tab, VISITOR)[tab.votes], "one's own comment"
    assert show(tab)[tab.files]["visible"]


def test_unreadable_rows_are_reported_with_their_reason(tab: results.ResultsTab, file: RatingsFile) -> None:
    with file.path.open("a", encoding="utf-8") as handle:
        handle.write('"1","half"\n')
    assert "22번째 줄" in show(tab)[tab.refused] and show(tab, VISITOR)[tab.refused] == ""


def test_no_votes_yet(tmp_path: Path) -> None:
    services = CompareServices(
        Workspace(tmp_path), FakeEngine(), RatingsFile(tmp_path / "r.csv"), lambda r: True, "", no_prompts
    )
    with gr.Blocks(analytics_enabled=False):
        made = results.build(Words("en"), services)
    shown = made.show(None, None, None, None, OWNER)
    assert shown[made.empty]["visible"] and not shown[made.full]["visible"] and not shown[made.files]["visible"]


def test_downloads_are_for_the_owner(tab: results.ResultsTab, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: refused.append(message))
    assert tab.maker("csv")(VISITOR)[tab.file]["value"] is None and len(refused) == 1
    exact = Path(tab.maker("csv")(OWNER)[tab.file]["value"])
    assert exact.read_bytes() == tab.services.ratings.path.read_bytes()
    excel = Path(tab.maker("excel")(OWNER)[tab.file]["value"])
    assert excel.read_bytes().startswith(b"\xef\xbb\xbf")
    made = tab.maker("pairs")(OWNER)
    lines = Path(made[tab.file]["value"]).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 19 and set(json.loads(lines[0])) == {"prompt", "chosen", "rejected"}
    assert "19" in made[tab.told] and Words("ko")("ratings.left_out.not_blind") in made[tab.told]
