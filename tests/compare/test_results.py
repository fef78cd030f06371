from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.files import Workspace
from assets.words import LANGUAGES, Words
from compare import results, stats_machine
from compare import results_data as data
from compare import results_detail as detail
from compare import results_view as view
from compare.ratings import RatingsFile
from compare.results_files import FORMATS
from compare.services import CompareServices
from compare.stats_votes import Filter
from compare.study import Study, StudyArm, StudyPrompt, StudyQuestion
from compare.study_store import Studies
from tests.compare.openai_server import Reply, Script, serving
from tests.compare.pairs import no_prompts
from tests.compare.rating_files import vote
from tests.fake_engine import FakeEngine

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
pytestmark = pytest.mark.usefixtures("one_loop")
ALL = Filter(("base", "tuned"))
PROOF = {"model_a": {"model": "base"}, "model_b": {"model": "tuned", "adapter_sha256": "f"}}


def ballots(study_id: str = "") -> list[Any]:
    return [
        vote(
            f"{study_id}r{i}",
            study_id=study_id,
            winner="model_b" if i < 16 else "model_a",
            left_is="model_a" if i % 2 else "model_b",
            domain="emotion" if i < 12 else "science",
            prompt_id=f"p{i}",
            blind=i != 3,
            comment="비밀 <b>의견</b>" if i == 0 else "",
            conversation=[{"role": "user", "content": f"질문 {i} <script>"}],
            response_a="가",
            response_b="나",
            criteria={"model_a": {"empathy": 1}, "model_b": {"empathy": 0}} if i < 12 else {},
            provenance=PROOF,
            created_at=f"2026-03-01T09:{i:02d}:00.000Z",
        )
        for i in range(20)
    ]


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    workspace = Workspace(tmp_path).prepare()
    made = RatingsFile(workspace.ratings / "ratings.csv")
    made.append(*ballots())
    return made


def services(file: RatingsFile) -> CompareServices:
    return CompareServices(Workspace(file.path.parents[1]), FakeEngine(), file, lambda r: r.owner, "0.1", no_prompts)


@pytest.fixture
def tab(file: RatingsFile) -> results.ResultsTab:
    with gr.Blocks(analytics_enabled=False):
        return results.build(Words("ko"), services(file))


def picture(file: RatingsFile, wanted: Filter = ALL) -> data.Picture:
    workspace = Workspace(file.path.parents[1])
    return data.look(file, Studies(workspace), data.votes_of(file), wanted, workspace.jobs)


def show(tab: results.ResultsTab, request: Any = OWNER, **asked: Any) -> dict[Any, Any]:
    wanted = {"rater": "kim", "peeked": [], "study": None, "pair": None, "domain": "", "blind": True} | asked
    return tab.show(*wanted.values(), request)


def questionnaire(**changes: Any) -> Study:
    arms = tuple(StudyArm(key, key, f"{key} model", key, "a" if key == "tuned" else None) for key in ("base", "tuned"))
    asked = StudyQuestion("empathy", "마음", "알아주나요?", -2, 2, 0, ("1", "2", "3", "4", "5"))
    known: dict[str, Any] = {
        "id": "study-1",
        "name": "감정 평가",
        "title": "t",
        "arms": arms,
        "prompts": tuple(StudyPrompt(f"p{i}", "emotion", ({"role": "user", "content": "x"},)) for i in range(20)),
        "questions": (asked,),
        "target": 50,
    }
    return Study(**(known | changes))


def test_filters_say_what_they_leave_out(file: RatingsFile) -> None:
    found = picture(file)
    assert found.report.overall.tally.n == 19 and found.report.selection.left_out == {"not_blind": 1}
    assert found.tuned == "model_b"
    only = picture(file, Filter(ALL.pair, domain="science"))
    assert only.report.overall.tally.n == 8 and only.report.selection.left_out == {"not_blind": 1, "other_domain": 11}
    assert picture(file, Filter(ALL.pair, blind_only=False)).report.overall.tally.n == 20


def test_the_tuned_side_is_found_whichever_way_round(file: RatingsFile) -> None:
    turned = picture(file, Filter(("tuned", "base")))
    assert turned.tuned == "model_a" and turned.rows["r0"].response_a == "나"
    assert turned.rows["r0"].winner == "model_a" and turned.rows["r0"].provenance["model_b"]["model"] == "base"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sentence_and_the_figures(file: RatingsFile, language: str) -> None:
    words, found = Words(language), picture(file)
    said = view.verdict(found, words)
    assert "100" in said and "n-sure" in said, "11 of 11 on emotion"
    drawn = view.rates(found, words)
    assert drawn.count("<svg") == 4 and "79 %" in drawn
    whole = said + drawn + view.pictures(found, words) + view.prompts(found, words) + view.examples(found, words)
    assert "{" not in whole + detail.html(found, words) + view.latest(found, True, "", words)
    assert words("results.worse") in whole and view.examples(found, words).index(words("results.worse")) < 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_filter_that_leaves_nothing(file: RatingsFile, language: str) -> None:
    words, found = Words(language), picture(file, Filter(ALL.pair, domain="general"))
    assert words("ratings.where.general") in view.verdict(found, words)
    whole = view.rates(found, words) + view.pictures(found, words) + view.prompts(found, words)
    assert "<script" not in whole + view.examples(found, words) + detail.html(found, words)
    assert view.latest(found, True, "", words) == "" and view.pictures(found, words) == ""


def test_every_dot_leads_to_its_answers(file: RatingsFile) -> None:
    words, found = Words("ko"), picture(file)
    drawn, listed = view.pictures(found, words), view.prompts(found, words)
    assert drawn.count('href="#n-prompt-') == 19
    for place in range(19):
        assert f'href="#n-prompt-{place}"' in drawn and f'id="n-prompt-{place}"' in listed


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_folded_away(file: RatingsFile, language: str) -> None:
    words = Words(language)
    extra = [
        vote("again", kind="repeat", winner="model_b", prompt_id="p0", study_id="", blind=True),
        vote("same", kind="aa", model_b="base", winner="tie", prompt_id="p0", blind=True),
        vote("third", model_b="koni", winner="model_b", prompt_id="p0", blind=True),
    ]
    file.append(*extra)
    run = stats_machine.HeldOut("emotion-01", "emotion.jsonl", 40, 2.0, 1.5)
    found = replace(picture(file), machine=(("tuned", run),))
    keys = [part.key for part in detail.parts(found, words)]
    assert keys == [
        f"results.part.{name}" for name in ("ranks", "reliability", "effects", "machine", "left_out", "method")
    ]
    text = detail.html(found, words)
    assert "koni" in text and "2.000" in text and "4.48" in text and "{" not in text
    assert words("results.ranks.undefeated", name="koni") in text


def test_what_people_and_models_wrote_is_escaped(tab: results.ResultsTab) -> None:
    shown = show(tab)
    text = "".join(str(shown[part]) for part in (tab.votes, tab.examples, tab.pictures, tab.verdict, tab.folded))
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "비밀 &lt;b&gt;" not in text, "the newest votes only"
    assert "공감: 딱 알맞아요" in shown[tab.votes]


def test_others_see_no_comments_and_no_files(tab: results.ResultsTab, file: RatingsFile) -> None:
    file.append(replace(ballots()[0], rating_id="new", created_at="2026-04-01T00:00:00.000Z"))
    stranger = show(tab, VISITOR, rater="someone")
    assert "비밀" not in stranger[tab.votes] and not stranger[tab.files]["visible"]
    assert "비밀 &lt;b&gt;" in show(tab, VISITOR)[tab.votes], "one's own comment"
    assert show(tab)[tab.files]["visible"] and "비밀" in show(tab)[tab.votes]


def test_unreadable_rows_are_reported_with_their_reason(tab: results.ResultsTab, file: RatingsFile) -> None:
    with file.path.open("a", encoding="utf-8") as handle:
        handle.write('"1","half"\n')
    assert "22번째 줄" in show(tab)[tab.refused] and show(tab, VISITOR)[tab.refused] == ""


def test_no_votes_yet(tmp_path: Path) -> None:
    empty = services(RatingsFile(Workspace(tmp_path).prepare().ratings / "r.csv"))
    with gr.Blocks(analytics_enabled=False):
        made = results.build(Words("en"), empty)
    shown = show(made)
    assert shown[made.empty]["visible"] and not shown[made.full]["visible"] and not shown[made.files]["visible"]


def test_a_study_that_collects_shows_only_its_count(tab: results.ResultsTab, file: RatingsFile) -> None:
    studies = Studies(tab.services.workspace)
    study = studies.create(questionnaire())
    file.append(*ballots(study.id))
    shown = show(tab, study=study.id)
    assert not shown[tab.full]["visible"] and not shown[tab.actions]["visible"] and shown[tab.peek]["visible"]
    assert (
        tab.rates not in shown
        and "50표 가운데 19표" in shown[tab.verdict]
        and "%" not in shown[tab.verdict].split("<")[1]
    )
    assert studies.looks(study.id) == []
    seen = tab.look_early([], study.id, "base\ttuned", OWNER)[tab.peeked]
    assert seen == [study.id] and [look["votes"] for look in studies.looks(study.id)] == [19]
    shown = show(tab, study=study.id, peeked=seen)
    assert shown[tab.full]["visible"] and not shown[tab.peek]["visible"]
    assert "아직 모으는 중" in shown[tab.verdict] and "마음" in shown[tab.rates] and "tuned model" in shown[tab.rates]
    assert shown[tab.chosen] == {"study": study.id, "pair": ["base", "tuned"], "domain": "", "blind_only": True}


def test_an_early_look_is_noted_for_good(tab: results.ResultsTab, file: RatingsFile) -> None:
    studies = Studies(tab.services.workspace)
    study = studies.create(questionnaire(target=15))
    (studies.folder(study.id) / "looks.jsonl").write_text(
        json.dumps({"at": "", "votes": 5, "target": 15})
        + "\n"
        + json.dumps({"at": "", "votes": 16, "target": 15})
        + "\n"
    )
    file.append(*ballots(study.id))
    assert Words("ko")("stats.note.looked", n=1) in show(tab, study=study.id)[tab.verdict]


def test_an_early_look_is_the_owners(tab: results.ResultsTab, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: refused.append(message))
    study = Studies(tab.services.workspace).create(questionnaire())
    assert tab.look_early([], study.id, "base\ttuned", VISITOR)[tab.peeked] == [] and len(refused) == 1
    assert Studies(tab.services.workspace).looks(study.id) == []


def test_studies_and_free_votes_are_kept_apart(tab: results.ResultsTab, file: RatingsFile) -> None:
    file.append(*[replace(row, winner="model_a") for row in ballots("gone")])
    shown = show(tab, study="gone")
    assert shown[tab.study]["visible"] and [value for _, value in shown[tab.study]["choices"]] == ["", "gone", "*"]
    assert "0 : 19" not in shown[tab.verdict] and "원본이" in shown[tab.verdict], (
        "its folder is gone, its votes are not"
    )
    assert "튜닝한 모델이" in show(tab, study="")[tab.verdict]
    assert show(tab, study="*")[tab.chosen]["study"] is None


def test_downloads_are_for_the_owner(tab: results.ResultsTab, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: refused.append(message))
    asked = (None, None, "", True)
    assert tab.maker("csv")(*asked, VISITOR)[tab.file]["value"] is None and len(refused) == 1
    exact = Path(tab.maker("csv")(*asked, OWNER)[tab.file]["value"])
    assert exact.read_bytes() == tab.services.ratings.path.read_bytes()
    excel = Path(tab.maker("excel")(*asked, OWNER)[tab.file]["value"])
    assert excel.read_bytes().startswith(b"\xef\xbb\xbf")
    made = tab.maker("pairs")(*asked, OWNER)
    lines = Path(made[tab.file]["value"]).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 19 and set(json.loads(lines[0])) == {"prompt", "chosen", "rejected"}
    assert "19" in made[tab.told] and Words("ko")("ratings.left_out.not_blind") in made[tab.told]


@pytest.mark.parametrize("kind", ["report", *FORMATS])
def test_every_file_can_be_made(tab: results.ResultsTab, kind: str) -> None:
    made = tab.maker(kind)(None, None, "emotion", True, OWNER)
    written = Path(made[tab.file]["value"])
    assert written.stat().st_size > 500 and written.name in made[tab.told]


def test_models_of_one_name_are_told_apart() -> None:
    assert data.names_of(("a/gemma@1", "b/gemma@2"), None) == ("a/gemma@1", "b/gemma@2")
    assert data.names_of(("a/gemma@1", "b/koni@2"), None) == ("gemma", "koni")


def test_a_judges_opinion_over_real_http_is_shown_apart(tab: results.ResultsTab) -> None:
    with serving(Script(replies={"m": [Reply(pieces=("판정: ", "1"))]})) as script:
        asked = (f"{script.url}#m", "secret-key", 10, None, None, "", True)
        before = show(tab)
        said = list(tab.judge.asker(tab.to_judge)(*asked, OWNER))
        assert Words("ko")("results.judge.done", total=10, n=10) in said[-1][tab.judge.told]
        assert said[-1][tab.judge.key] == "" and "Bearer secret-key" in str(script.headers)
    shown = show(tab)
    assert Words("ko")("results.judge.apart") in shown[tab.folded] and "같은 판정 0 %" in shown[tab.folded]
    assert (shown[tab.verdict], shown[tab.rates]) == (before[tab.verdict], before[tab.rates])
    kept = "".join(
        f.read_text("utf-8") for f in tab.services.workspace.ratings.glob("*") if f.suffix in (".jsonl", ".csv")
    )
    assert "judge" in kept and "secret-key" not in kept


def test_only_the_owner_asks_a_judge_and_faults_are_said(tab: results.ResultsTab) -> None:
    run = tab.judge.asker(tab.to_judge)
    for address, request, reason in (
        ("http://127.0.0.1:9/v1#m", VISITOR, "app.owner_only"),
        ("nonsense", OWNER, "remote.bad_address"),
        ("http://127.0.0.1:9/v1", OWNER, "remote.no_model"),
    ):
        with pytest.raises(gr.Error, match=Words("ko")(reason)[:12]):
            list(run(address, "", 10, None, None, "", True, request))
