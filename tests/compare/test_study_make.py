from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare.desk import Desk, Pair, Ticket
from compare.study import Study
from compare.study_items import missing, needed
from compare.study_make import Making, forecast, generate, next_candidates
from compare.study_store import Studies
from tests.compare.pairs import desk as desk_of
from tests.compare.studies import CANDIDATES, study
from tests.fake_engine import FakeEngine


def ready(root: Path, arms: int = 2, engine: FakeEngine | None = None, **changes: Any) -> tuple[Studies, Study, Desk]:
    studies = Studies(Workspace(root))
    made = studies.create(study(arms, **changes))
    return studies, made, desk_of(engine or FakeEngine(answers={"a": "차가운 답", "b": "따뜻한 답"}), *CANDIDATES[:2])


def run(studies: Studies, made: Study, desk: Desk) -> list[Making]:
    assert desk.pair is not None
    return list(generate(studies, made.id, desk, desk.pair, Ticket()))


def test_every_answer_is_made_with_its_record(tmp_path: Path) -> None:
    engine = FakeEngine(answers={"a": "차가운 답", "b": "저는 구글이 만든 젬마예요."}, reasons={"b": "length"})
    studies, made, desk = ready(tmp_path, engine=engine)
    states = run(studies, made, desk)
    answers = studies.items(made.id).read()
    assert set(answers) == set(needed(made)) and missing(made, answers) == ()
    assert (states[0].done, states[-1].done, states[-1].ended) == (0, len(needed(made)), "done")
    assert states[0].seconds_left is None and states[-1].seconds_left == 0
    a, b = (answers[task] for task in needed(made)[:2])
    assert (a.text, a.reason, a.named) == ("차가운 답", "stop", ())
    assert b.reason == "length" and "Gemma" in b.named
    assert a.provenance["arm"]["model"] == CANDIDATES[0].model and a.provenance["versions"] == {"torch": "2.13.0"}
    assert "model_a" not in a.provenance and b.provenance["arm"]["adapter_sha256"] == "f" * 64
    assert a.sampling["temperature"] == 0.7 and "seed" not in a.sampling and a.timing["tokens_per_second"] > 0
    assert studies.get(made.id).state == "generating"
    turns, system, sampling = engine.asked[0]
    assert turns["a"] == turns["b"] == list(made.prompts[0].messages) and system == made.system
    assert sampling.seed == a.seed == b.seed


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    engine = FakeEngine(answers={"a": "하나", "b": "둘"})
    studies, made, desk = ready(tmp_path, engine=engine)
    assert desk.pair is not None
    for number, _ in enumerate(generate(studies, made.id, desk, desk.pair, Ticket())):
        if number == 3:
            break
    there = dict(studies.items(made.id).read())
    assert 0 < len(there) < len(needed(made))
    assert run(studies, made, desk)[-1].ended == "done"
    answers = studies.items(made.id).read()
    assert set(answers) == set(needed(made)) and all(answers[task] is not None for task in there)
    assert len(engine.asked) <= len({(task.prompt_id, task.sample) for task in needed(made)}) + 1
    assert run(studies, made, desk)[-1].ended == "done" and len(studies.items(made.id).read()) == len(answers)


def test_stopping_keeps_whole_answers_only(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path, engine=FakeEngine(answers={"a": "가" * 40, "b": "나" * 40}, pause=0.004))
    ticket = Ticket()
    timer = threading.Timer(0.5, desk.cancel, [ticket])
    timer.start()
    assert desk.pair is not None
    states = list(generate(studies, made.id, desk, desk.pair, ticket))
    timer.join()
    assert states[-1].ended == "stopped"
    answers = studies.items(made.id).read()
    assert 0 < len(answers) < len(needed(made))
    assert all(answer.text in ("가" * 40, "나" * 40) for answer in answers.values())


def test_only_one_page_at_a_time(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path)
    assert desk.pair is not None
    first = generate(studies, made.id, desk, desk.pair, Ticket())
    next(first)
    with pytest.raises(UserError, match=r"study\.generating_already"):
        next(generate(Studies(Workspace(tmp_path)), made.id, desk, desk.pair, Ticket()))
    threading.Thread(target=first.close).start()  # a page's generator is closed by any thread
    for _ in range(50):
        try:
            assert run(studies, made, desk)[-1].ended == "done"
            return
        except UserError:
            threading.Event().wait(0.05)
    raise AssertionError("the lock was not given back")


def test_three_models_are_made_in_two_loadings(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path, arms=3, same_share=0.2)
    items = studies.items(made.id)
    assert next_candidates(made, items.read()) == CANDIDATES[:2]
    last = run(studies, made, desk)[-1]
    assert last.ended == "partly" and last.left == (made.arms[2].key,)
    following = next_candidates(made, items.read())
    assert following is not None and CANDIDATES[2] in following
    assert run(studies, made, desk_of(FakeEngine(), *following))[-1].ended == "done"
    assert missing(made, items.read()) == () and next_candidates(made, items.read()) is None


def test_models_of_another_study(tmp_path: Path) -> None:
    studies, made, _ = ready(tmp_path)
    other = desk_of(FakeEngine(), replace(CANDIDATES[0], model="x"), replace(CANDIDATES[1], model="y"))
    with pytest.raises(UserError, match=r"study\.arms_not_loaded"):
        run(studies, made, other)


def test_a_prompt_without_an_answer_is_named_and_three_in_a_row_end_it(tmp_path: Path) -> None:
    engine = FakeEngine(reasons={"a": "error"}, errors={"a": "engine.out_of_memory"})
    studies, made, desk = ready(tmp_path, engine=engine)
    with pytest.raises(UserError, match=r"engine\.out_of_memory"):
        run(studies, made, desk)
    assert all(answer.arm == made.arms[1].key for answer in studies.items(made.id).read().values())

    class Picky(FakeEngine):
        def stream(self, turns: Any, system: Any, sampling: Any) -> Any:
            if next(iter(turns.values()))[-1]["content"] == "질문 4":
                raise UserError("engine.empty_prompt")
            return super().stream(turns, system, sampling)

    studies, made, desk = ready(tmp_path / "two", engine=Picky())
    last = run(studies, made, desk)[-1]
    assert (last.ended, last.failed) == ("partly", ("emotion-004",))
    assert last.error is not None and last.error.key == "engine.empty_prompt"
    assert {task.prompt_id for task in missing(made, studies.items(made.id).read())} == {"emotion-004"}


def test_another_pair_was_loaded_meanwhile(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path)
    assert desk.pair is not None
    stale: Pair = desk.pair
    desk.load(*CANDIDATES[:2])
    for _ in desk.follow():
        pass
    with pytest.raises(UserError, match=r"compare\.pair_changed"):
        list(generate(studies, made.id, desk, stale, Ticket()))


def test_the_time_left(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path, same_share=0)
    items = studies.items(made.id)
    assert forecast(made, items.read()) is None
    assert forecast(made, items.read(), 2.0) == 2.0 * len(made.prompts)
    run(studies, made, desk)
    assert forecast(made, items.read(), 2.0) == 0


def test_an_open_study_makes_no_more(tmp_path: Path) -> None:
    studies, made, desk = ready(tmp_path)
    run(studies, made, desk)
    studies.set_state(made.id, "open")
    with pytest.raises(UserError, match=r"study\.has_answers_only"):
        run(studies, made, desk)


def test_models_that_do_not_fit_together_are_asked_one_after_the_other(tmp_path: Path) -> None:
    engine = FakeEngine(answers={"a": "하나", "b": "둘"})
    studies, made, desk = ready(tmp_path, engine=engine)
    desk.load(*CANDIDATES[:2], together=False)
    for _ in desk.follow():
        pass
    assert run(studies, made, desk)[-1].ended == "done"
    asked = [next(iter(turns)) for turns, _, _ in engine.asked]
    assert sum(one != two for one, two in pairwise(asked)) == 1
    assert missing(made, studies.items(made.id).read()) == ()
