"""A model on another server as a candidate of the comparison tab."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from compare import tab, tab_remote, views
from compare.candidates import Asked, Choice, choose, look_up
from compare.desk import Desk
from compare.machine import Card, Taken
from compare.provenance import provenance
from compare.remote_engine import RemoteEngine
from compare.remote_engine_address import Keys
from compare.remote_engine_call import Patience
from compare.remote_engine_switch import EngineSwitch
from compare.services import CompareServices
from compare.session import Session
from compare.tab_events import Page
from tests.compare.openai_server import Reply, Script, serving
from tests.compare.pages import followed
from tests.compare.pairs import ended, no_prompts, store
from tests.fake_engine import FakeEngine

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)
KEY = "sk-very-secret"
pytestmark = pytest.mark.usefixtures("one_loop")


@pytest.fixture
def script() -> Iterator[Script]:
    with serving(Script()) as running:
        yield running


@pytest.fixture
def services(tmp_path: Path) -> CompareServices:
    workspace, keys = Workspace(tmp_path).prepare(), Keys()
    engine = EngineSwitch(FakeEngine(), RemoteEngine(keys, Patience(first=5, models=1, tries=1)))
    return CompareServices(
        workspace, engine, store(workspace.ratings), lambda r: r.owner, "0.1", no_prompts, idle=0, keys=keys
    )


@pytest.fixture
def page(services: CompareServices, monkeypatch: pytest.MonkeyPatch) -> Page:
    for name in ("Warning", "Info"):
        monkeypatch.setattr(gr, name, lambda *said, **options: None)
    with gr.Blocks(analytics_enabled=False):
        return tab.build(Words("ko"), services).page


def sides(*texts: str) -> list[Choice]:
    return [look_up(text) for text in texts]


def test_an_address_is_a_candidate() -> None:
    found = look_up(" https://Host/v1/#org/my-lora ")
    assert found.text == "https://host/v1#org/my-lora" and found.remote is not None and not found.foreign
    with pytest.raises(UserError, match="no_model"):
        look_up("https://host/v1")


def test_two_addresses_make_a_pair(tmp_path: Path) -> None:
    chosen = choose(Workspace(tmp_path), "https://h/v1#org/base", "https://h/v1#my-lora", Asked())
    assert (chosen.first.model, chosen.first.name) == (
        "org/base@h",
        "base",
    ) and chosen.first.base == "https://h/v1#org/base"
    assert chosen.first.names == ("base", "org/base") and chosen.second.adapter is None and chosen.notes == ()
    same = choose(Workspace(tmp_path), "https://one/v1#m", "https://two/v1#m", Asked())
    assert (same.first.name, same.second.name) == ("m@one", "m@two")


def test_a_model_here_beside_one_elsewhere(tmp_path: Path) -> None:
    chosen = choose(Workspace(tmp_path), STARTER, "https://h/v1#m", Asked())
    assert (chosen.first.base, chosen.second.base) == (STARTER, "https://h/v1#m")


def test_fields_for_keys() -> None:
    fields: list[Any] = ["first", "second"]
    words = Words("ko")
    shown = tab_remote.shown(fields, sides("https://h/v1#a", "https://h/v1#b"), words)
    assert [shown[f]["visible"] for f in fields] == [True, False] and "h" in shown["first"]["label"]
    shown = tab_remote.shown(fields, sides("https://h/v1#a", "https://g/v1#b"), words)
    assert [shown[f]["visible"] for f in fields] == [True, True]
    shown = tab_remote.shown(fields, sides(STARTER, "https://g/v1#b"), words)
    assert [shown[f]["visible"] for f in fields] == [False, True] and shown["first"]["value"] == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_said_of_servers(language: str) -> None:
    words = Words(language)
    assert tab_remote.facts(sides(STARTER, STARTER), words) == ""
    plain = tab_remote.facts(sides("http://10.0.0.2:8000#a", STARTER), words)
    assert "10.0.0.2:8000" in plain and words("remote.facts.open") in plain
    twice = tab_remote.facts(sides("https://h#a", "https://h#a"), words)
    assert words("compare.same_twice") in twice and words("remote.facts.open") not in twice
    assert "<script>" not in tab_remote.facts(sides("https://h<script>/v1#a", STARTER), words)


def told(shown: Iterable[dict[Any, Any]]) -> str:
    return json.dumps([list(one.values()) for one in shown], ensure_ascii=False, default=str)


def test_the_card_with_addresses(page: Page, script: Script) -> None:
    session = Session()
    shown = page.look(session, f"{script.url}#a", f"{script.url}#b", OWNER)
    setup = page.setup
    assert shown[setup.key_base]["visible"] and not shown[setup.key_other]["visible"]
    assert shown[setup.load]["interactive"] and not shown[setup.foreign]["visible"]
    shown = page.look(session, STARTER, f"{script.url}", OWNER)
    assert Words("ko")("remote.no_model") in shown[setup.facts] and not shown[setup.key_other]["visible"]
    shown = page.look(session, STARTER, f"{script.url}#b", OWNER)
    assert shown[setup.key_other]["visible"] and "메모리 약" in shown[setup.facts]


def test_from_the_card_to_the_vote(page: Page, script: Script) -> None:
    session = Session()
    page.show(session, None, OWNER)
    script.replies = {"a": [Reply(("가",)), Reply(("원본 답",))], "b": [Reply(("나",)), Reply(("튜닝 답",))]}
    sent = [page.load(session, f"{script.url}#a", f"{script.url}#b", "", "", KEY, "", OWNER)]
    sent += followed(page, session)
    assert sent[0][page.setup.key_base]["value"] == "" and page.services.desk.pair is not None
    assert {h["authorization"] for h in script.headers} == {f"Bearer {KEY}"}
    sent += list(page.ask(session, "안녕", "general", None, "", 0.7, 0.9, 32, 0))
    sent.append(page.confirm(session, "left", "", "columns", *[None] * len(page.vote.radios)))
    [vote] = page.services.ratings.read().votes
    assert {vote.response_a, vote.response_b} == {"원본 답", "튜닝 답"} and vote.model_a.startswith("a@127.0.0.1:")
    assert vote.provenance["model_a"]["told"]["answered_as"] == "a" and vote.provenance["device"] == "remote"
    assert KEY not in told(sent) + page.services.ratings.path.read_text() + repr(session)
    assert Words("ko")("remote.unproven") in told(sent) and Words("ko")("compare.check.good") not in told(sent)
    page.unload(session, OWNER)
    assert page.services.keys.get(script.url) is None


def test_a_visitor_can_neither_look_nor_load(page: Page, script: Script) -> None:
    session = Session()
    assert script.url not in told([page.look(session, f"{script.url}#a", f"{script.url}#b", VISITOR)])
    page.load(session, f"{script.url}#a", f"{script.url}#b", "", "", KEY, "", VISITOR)
    assert script.paths == [] and page.services.keys.get(script.url) is None


def test_a_wrong_key_is_said_in_the_card(page: Page, script: Script) -> None:
    script.replies["a"] = [Reply(status=401)]
    session = Session()
    page.show(session, None, OWNER)
    began = page.load(session, f"{script.url}#a", STARTER, "", "", KEY, "", OWNER)
    shown = told([began, *followed(page, session)])
    assert Words("ko")("remote.refused_key") in shown and KEY not in shown and page.services.desk.pair is None


class BusyMachine:
    """Every GPU is held by a run that does not end."""

    def cards(self) -> list[Card]:
        return [Card("gpu-0", 1, 1)]

    def taken(self, devices: list[str] | None = None, wanted: int = 1) -> Taken | None:
        names = [card.device for card in self.cards()] if devices is None else devices
        return Taken("run") if names else None

    def freed(self) -> None:
        return None


def test_a_pair_elsewhere_waits_for_no_gpu_and_never_sleeps(script: Script, tmp_path: Path) -> None:
    chosen = choose(Workspace(tmp_path), f"{script.url}#a", f"{script.url}#b", Asked())
    desk = Desk(RemoteEngine(Keys(), Patience(first=5, models=1)), BusyMachine(), idle=0.2)  # type: ignore[arg-type]
    desk.load(chosen.first, chosen.second)
    assert ended(desk).error is None and desk.pair is not None
    time.sleep(0.5)
    assert not desk.resting
    desk.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_proof_says_what_could_not_be_proven(services: CompareServices, script: Script, language: str) -> None:
    words = Words(language)
    chosen = choose(services.workspace, STARTER, f"{script.url}#b", Asked())
    services.desk.load(chosen.first, chosen.second)
    assert ended(services.desk).error is None
    pair = services.desk.pair
    assert pair is not None
    assert words("remote.unproven") in views.check_badge(pair, words)
    proof = views._proof(pair, words)
    assert words("remote.proof.side", model="b", server=script.url) in proof and "rev1" in proof
    record = provenance(pair)
    assert "told" not in record["model_a"] and record["model_b"]["told"]["server"] == script.url
    json.dumps(record, allow_nan=False)
