from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import Lease, acquire
from compare.desk import Desk, Ticket, Waiting
from compare.engine import Done
from compare.machine import Card, Machine, Taken
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


def busy(tmp_path: Path, engine: FakeEngine | None = None) -> tuple[Desk, Lease, list[str]]:
    """A desk on a machine whose only GPU a job holds; the list gets "freed" each time memory was given back."""
    workspace, freed = Workspace(tmp_path).prepare(), []  # type: ignore[var-annotated]
    lease = acquire(workspace, ("gpu-0",), {"kind": "job", "id": "j", "name": "밤샘 학습"})
    assert lease is not None
    machine = Machine(
        workspace, lambda: [Card("gpu-0", 24, 20)], left=lambda job: 90.0, freed=lambda: freed.append("freed")
    )
    return Desk(engine or FakeEngine(), machine, idle=0), lease, freed


def test_a_gpu_that_trains_is_waited_for_and_then_the_pair_loads_by_itself(tmp_path: Path) -> None:
    here, lease, _ = busy(tmp_path)
    here.load(BASE, TUNED)
    seen = next(now for now in here.follow() if now.taken)
    assert seen.taken == Taken("밤샘 학습", 90.0) and here.pair is None and not here.engine.specs  # type: ignore[attr-defined]
    lease.release()
    assert ended(here).error is None and here.pair is not None and here.loading is not None and not here.loading.taken


def test_waiting_for_a_gpu_can_be_cancelled(tmp_path: Path) -> None:
    here, lease, _ = busy(tmp_path)
    here.load(BASE, TUNED)
    next(now for now in here.follow() if now.taken)
    here.cancel_loading()
    error = ended(here).error
    assert isinstance(error, UserError) and error.key == "engine.load_cancelled"
    lease.release()
    here.load(BASE, TUNED)
    assert ended(here).error is None


def test_a_job_that_is_quicker_is_waited_for_as_well(tmp_path: Path) -> None:
    engine = FakeEngine(load_error=UserError("engine.gpu_busy", name="밤샘 학습"))
    here, lease, _ = busy(tmp_path, engine)
    lease.release()
    here.load(BASE, TUNED)
    while len(engine.specs) < 2:
        time.sleep(0.01)
    engine.load_error = None
    assert ended(here).error is None and here.pair is not None


def test_nobody_asks_so_the_memory_is_given_back_until_somebody_does(tmp_path: Path) -> None:
    engine = FakeEngine()
    here, lease, freed = busy(tmp_path, engine)
    lease.release()
    here.idle = 0.2
    here.load(BASE, TUNED)
    ended(here)
    while not here.resting:
        time.sleep(0.01)
    while not freed:
        time.sleep(0.01)
    assert engine.rests == 1 and here.pair is not None
    list(here.answers(here.pair, Ticket(), TURNS, None, SAMPLING))
    assert not here.resting
    while engine.rests < 2:
        time.sleep(0.01)
    here.close()


def test_who_asks_keeps_it_awake() -> None:
    engine = FakeEngine(answers={"a": "가" * 40, "b": "나" * 40}, pause=0.01)
    here = desk(engine)
    assert here.pair is not None
    here.idle = 0.1
    list(here.answers(here.pair, Ticket(), TURNS, None, SAMPLING))
    assert engine.rests == 0
    here.close()


def test_unloading_tells_the_training_room(tmp_path: Path) -> None:
    here, lease, freed = busy(tmp_path)
    lease.release()
    here.load(BASE, TUNED)
    ended(here)
    here.unload()
    assert freed == ["freed"] and here.engine.loaded is None


def test_one_visitors_failure_does_not_touch_anothers_answer() -> None:
    engine = FakeEngine(stream_error=ZeroDivisionError("for one"))
    here = desk(engine)
    assert here.pair is not None
    with pytest.raises(ZeroDivisionError):
        list(here.answers(here.pair, Ticket(owner="x"), TURNS, None, SAMPLING))
    engine.stream_error = None
    done = [e for e in here.answers(here.pair, Ticket(owner="y"), TURNS, None, SAMPLING) if isinstance(e, Done)]
    assert [(e.reason, e.error) for e in done] == [("stop", None)] * 2


def test_the_bases_may_answer_in_turn() -> None:
    here = Desk(FakeEngine(), idle=0)
    here.load(BASE, TUNED, together=False)
    assert ended(here).error is None and here.pair is not None and not here.pair.together
    assert not here.engine.specs[0].together  # type: ignore[attr-defined]
