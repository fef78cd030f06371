from __future__ import annotations

import threading
import time

import pytest

from assets.errors import UserError
from compare.desk import Desk, Ticket, Waiting
from compare.engine import Done
from tests.compare.pairs import BASE, SAMPLING, TUNED, desk, ended
from tests.fake_engine import FakeEngine

TURNS = {"a": [{"role": "user", "content": "안녕"}], "b": [{"role": "user", "content": "안녕"}]}


def test_loading_runs_by_itself_and_gives_a_pair() -> None:
    engine = FakeEngine()
    here = desk(engine)
    assert here.pair is not None and here.pair.system == "친구예요." and here.pair.kind(0) == "base"
    arms = engine.specs[0].arms
    assert [(a.key, a.base, a.adapter) for a in arms] == [("a", BASE.base, None), ("b", BASE.base, TUNED.adapter)]


def test_two_do_not_load_at_once_and_loading_can_be_cancelled() -> None:
    here = Desk(FakeEngine(load_pause=5))
    here.load(BASE, TUNED)
    with pytest.raises(UserError, match="loading_already"):
        here.load(BASE, TUNED)
    time.sleep(0.05)
    here.cancel_loading()
    error = ended(here).error
    assert isinstance(error, UserError) and error.key == "engine.load_cancelled" and here.pair is None
    here.engine.load_pause = 0  # type: ignore[attr-defined]
    here.load(BASE, TUNED)
    assert ended(here).error is None


@pytest.mark.parametrize("error", [UserError("engine.no_memory", model="x"), ZeroDivisionError("unforeseen")])
def test_what_goes_wrong_while_loading_is_kept(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    here = Desk(FakeEngine(load_error=error))
    here.load(BASE, TUNED)
    assert ended(here).error is error and here.pair is None
    assert ("unforeseen" in caplog.text) == isinstance(error, ZeroDivisionError)


def test_unloading_while_loading_leaves_nothing() -> None:
    here = Desk(FakeEngine(load_pause=0.05))
    here.load(BASE, TUNED)
    here.unload()
    time.sleep(0.4)
    assert here.pair is None and here.loading is None


def test_answers_come_one_after_the_other_in_the_order_of_asking() -> None:
    engine = FakeEngine(answers={"a": "가" * 20, "b": "나" * 20}, pause=0.01)
    here = desk(engine)
    pair = here.pair
    assert pair is not None
    ends: list[int] = []
    places: list[set[int]] = [set(), set(), set()]

    def ask(number: int) -> None:
        for event in here.answers(pair, Ticket(), TURNS, None, SAMPLING):
            if isinstance(event, Waiting):
                places[number].add(event.place)
        ends.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(10)
    assert ends == [0, 1, 2] and engine.most_running == 1
    assert 2 in places[2] and not places[0]


def test_cancelling_ones_own_place_does_not_touch_the_one_who_answers() -> None:
    engine = FakeEngine(answers={"a": "가" * 60, "b": "나" * 60}, pause=0.005)
    here = desk(engine)
    assert here.pair is not None
    first = here.answers(here.pair, Ticket(), TURNS, None, SAMPLING)
    next(first)
    ticket = Ticket()
    waiting = here.answers(here.pair, ticket, TURNS, None, SAMPLING)
    assert next(waiting) == Waiting(1)
    here.cancel(ticket)
    assert [e.reason for e in waiting if isinstance(e, Done)] == ["cancelled", "cancelled"]
    assert {e.reason for e in first if isinstance(e, Done)} == {"stop"}


def test_a_question_to_a_pair_that_is_gone_is_refused() -> None:
    here = desk()
    old = here.pair
    assert old is not None
    here.load(TUNED, BASE)
    ended(here)
    with pytest.raises(UserError, match="pair_changed"):
        list(here.answers(old, Ticket(), TURNS, None, SAMPLING))
    assert here.pair is not None
    list(here.answers(here.pair, Ticket(), TURNS, None, SAMPLING))
