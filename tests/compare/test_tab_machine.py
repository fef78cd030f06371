"""The tab on a machine that is shared: GPUs that train, memory that is short, pairs that sleep; and what tuning changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from assets.catalog import STARTER, prompts
from assets.leases import Lease, acquire
from assets.words import Words
from compare import tab_setup
from compare.candidates import look_up
from compare.machine import Card, Machine
from compare.services import CompareServices
from compare.tab_events import Page
from tests.compare.pages import OWNER, Toasts, ask, build, last, load, meet, told
from tests.compare.pairs import BASE, TUNED, ended

LARGE = "meta-llama/Meta-Llama-3-70B-Instruct"
pytestmark = pytest.mark.usefixtures("one_loop")


def test_what_tuning_changed_is_told_after_the_vote_and_not_before(page: Page) -> None:
    session = meet(page)
    load(page)
    ask(page, session)
    assert not page.paint_talk(session)[page.changes.fold]["visible"]
    assert Words("ko")("compare.changes.failed") in told([last(page.unfold(session))])
    assert page.services.engine.compared == []  # type: ignore[attr-defined]
    shown = page.confirm(session, "left", "", "columns", *[None] * len(page.vote.radios))
    assert shown[page.changes.fold]["visible"]
    first, second = list(page.unfold(session))
    assert Words("ko")("compare.changes.measuring") in told([first]) and "n-heat-3" in told([second])
    list(page.unfold(session))
    (asked,) = page.services.engine.compared  # type: ignore[attr-defined]
    assert (asked.base, asked.tuned, asked.answers) == ("a", "b", {"a": "차가운 답", "b": "따뜻한 답"})
    assert asked.turns[-1]["content"] == "힘들어요" and asked.reference == ""


def test_the_reference_of_an_unchanged_prompt_is_measured_too(page: Page) -> None:
    session = meet(page)
    load(page)
    page.domain(session, "science")
    prompt = prompts("science")[0]
    settings = ("", 0.7, 0.9, 32, 0)
    page.mode(session, "open", None)
    list(page.ask(session, prompt.messages[-1]["content"], "science", prompt.id, *settings))
    assert page.paint_talk(session)[page.changes.fold]["visible"]
    assert Words("ko")("compare.changes.closer") in told(page.unfold(session))
    assert page.services.engine.compared[0].reference == prompt.reference  # type: ignore[attr-defined]
    list(page.ask(session, "그래서요?", "science", prompt.id, *settings))
    list(page.unfold(session))
    assert page.services.engine.compared[1].reference == ""  # type: ignore[attr-defined]


def test_nothing_is_measured_between_unrelated_models(page: Page) -> None:
    session = meet(page)
    session.blind = False
    page.services.desk.load(BASE, replace(TUNED, base="other/model"))
    ended(page.services.desk)
    ask(page, session)
    assert not page.paint_talk(session)[page.changes.fold]["visible"]


def test_a_page_follows_what_others_load_unload_and_what_falls_asleep(page: Page) -> None:
    session = meet(page)
    assert page.tick(session) == gr.skip()
    load(page)
    first = page.tick(session)
    assert first != gr.skip() and page.tick(session) != first  # else nobody would be told of the second change
    assert page.repaint(session)[page.setup.top]["visible"] and page.tick(session) == gr.skip()
    page.services.desk.resting = True
    assert page.tick(session) != gr.skip() and Words("ko")("compare.resting") in told([page.repaint(session)])
    page.services.desk.unload()
    assert page.tick(session) != gr.skip() and not page.repaint(session)[page.setup.top]["visible"]


def on_a_gpu(services: CompareServices, **holder: Any) -> tuple[CompareServices, Lease]:
    lease = acquire(services.workspace, ("gpu-0",), holder)
    assert lease is not None
    machine = Machine(services.workspace, lambda: [Card("gpu-0", 24 << 30, 2 << 30)], left=lambda job: 600.0)
    return replace(services, machine=machine), lease


def test_a_gpu_that_trains_turns_the_button_into_load_when_done(services: CompareServices, toasts: Toasts) -> None:
    busy, lease = on_a_gpu(services, kind="job", id="j", name="밤샘 학습")
    page = build(busy)[1]
    session = meet(page)
    words = Words("ko")
    choosing = page.look(session, STARTER, "google/gemma-2-2b-it", OWNER)
    assert choosing[page.setup.load] == gr.update(interactive=True, value=words("compare.load.later"))
    waiting = words("compare.taken", name="밤샘 학습", left=words("compare.left", time="10분"))
    assert waiting in choosing[page.setup.facts]
    page.services.desk.load(BASE, TUNED)
    page.show(session, session.rater, OWNER)
    shown = zip(page.follow(session), range(4), strict=False)
    assert any(waiting in str(update.get(page.setup.progress)) for update, _ in shown)
    lease.release()
    assert ended(page.services.desk).error is None
    after = page.look(session, STARTER, "google/gemma-2-2b-it", OWNER)
    assert after[page.setup.load]["value"] != words("compare.load.later")


def test_two_bases_that_do_not_both_fit_are_offered_in_turn(services: CompareServices, toasts: Toasts) -> None:
    busy, lease = on_a_gpu(services, kind="job")
    lease.release()
    page = build(busy)[1]
    shown = page.look(meet(page), STARTER, "google/gemma-2-2b-it", OWNER)
    words = Words("ko")
    fitting = tab_setup.room(busy, [look_up(STARTER), look_up("google/gemma-2-2b-it")])
    assert fitting is not None and fitting.bases == 2 and not fitting.fits
    key = "compare.memory.turns" if fitting.in_turn else "compare.memory.short"
    assert words(key, needed="", free="").split("{")[0][:8] in shown[page.setup.facts]


def on_cards(services: CompareServices, *free: int) -> CompareServices:
    cards = [Card(f"gpu-{i}", 24 << 30, gib << 30) for i, gib in enumerate(free)]
    return replace(services, machine=Machine(services.workspace, lambda: cards, left=lambda job: 600.0))


def test_a_model_larger_than_a_card_is_said_to_spread_before_it_is_loaded(
    services: CompareServices, toasts: Toasts
) -> None:
    page = build(on_cards(services, 18, 4, 18, 18))[1]
    session, words = meet(page), Words("ko")
    shown = page.look(session, LARGE, LARGE, OWNER)
    assert words("compare.memory.cards", numbers="0, 2, 3", each="").split("(")[0] in shown[page.setup.facts]
    assert "2번 " in shown[page.setup.facts] and "n-note warn" not in shown[page.setup.facts]
    fitting = tab_setup.room(page.services, [look_up(LARGE)])
    assert fitting is not None and fitting.wanted == len(fitting.cards) == 3


def test_a_model_that_needs_a_card_of_a_run_waits_for_the_run(services: CompareServices, toasts: Toasts) -> None:
    page = build(on_cards(services, 18, 18, 2))[1]
    lease = acquire(services.workspace, ("gpu-2",), {"kind": "job", "id": "j", "name": "밤샘 학습"})
    assert lease is not None
    words = Words("ko")
    shown = page.look(meet(page), LARGE, LARGE, OWNER)
    assert shown[page.setup.load]["value"] == words("compare.load.later") and "밤샘 학습" in shown[page.setup.facts]
    page.services.desk.load(replace(BASE, base=LARGE), replace(TUNED, base=LARGE), cards=3)
    with page.services.desk._line.moved:
        page.services.desk._line.moved.wait_for(lambda: page.services.desk.loading.taken is not None, 5)  # type: ignore[union-attr]
    assert page.services.engine.specs == []  # type: ignore[attr-defined]
    lease.release()
    assert ended(page.services.desk).error is None


def test_too_large_for_all_cards_together(services: CompareServices, toasts: Toasts) -> None:
    page = build(on_cards(services, 12, 12))[1]
    shown = page.look(meet(page), LARGE, LARGE, OWNER)
    assert "n-note warn" in shown[page.setup.facts]
