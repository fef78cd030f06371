"""What tuning changed over a study's prompts: records, orders, measuring behind the pages."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare import changes_set
from compare.changes_measure import Measurer, Measuring
from compare.changes_set import Measured, Sides
from compare.engine import Changes, ChangesAsked, TokenChange
from compare.study import Study
from compare.study_items import Task
from compare.study_store import Studies
from tests.compare.pairs import desk as desk_of
from tests.compare.studies import CANDIDATES, answer, opened, study
from tests.fake_engine import FakeEngine

SIDES = Sides("a", "b")


@dataclass
class Judge(FakeEngine):
    """Finds the reference of prompt n ``n`` times less likely after tuning; ``pause`` seconds per prompt."""

    refuses: str = ""
    started: threading.Event = field(default_factory=threading.Event)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        self.compared.append(asked)
        self.started.set()
        self._cancelled.clear()
        text = str(asked.turns[-1]["content"])
        if self.refuses and self.refuses in text:
            raise UserError("engine.prompt_too_long", tokens=9, limit=8)
        if self._cancelled.wait(self.pause):
            return
        number = int(text.split()[-1])
        perplexity = (4.0, 4.0 * (number / 4 + 0.1)) if asked.reference else None
        yield Changes((TokenChange("가", 0.01 * (12 - number), 0.25, 0.123456789),) * 4, 0, perplexity)


def keys(made: Study) -> Sides:
    return Sides(made.arms[0].key, made.arms[1].key)


def measurer(root: Path, engine: Judge | None = None, made: Study | None = None) -> tuple[Measurer, Study, Judge]:
    studies, kept = opened(root, made)
    known = engine or Judge()
    return Measurer(studies, desk_of(known, *CANDIDATES[:2])), kept, known


def until(measuring: Measurer, made: Study) -> Measuring:
    for _ in range(2000):
        work = measuring.work(made.id, keys(made))
        if work is not None and not work.running:
            return work
        time.sleep(0.005)
    raise AssertionError("it never ended")


def records(measuring: Measurer, made: Study) -> dict[str, Measured]:
    studies = measuring.studies
    return changes_set.read(studies.folder(made.id), made, studies.items(made.id).read(), keys(made))


def test_every_prompt_is_measured_once_and_stored(tmp_path: Path) -> None:
    measuring, made, engine = measurer(tmp_path)
    measuring.start(made.id, keys(made))
    work = until(measuring, made)
    assert (work.done, work.total, work.error, work.failed, work.seconds_left) == (12, 12, None, (), 0)
    found = records(measuring, made)
    assert set(found) == set(made.prompt_ids) and len(engine.compared) == 12
    asked = engine.compared[0]
    answers = measuring.studies.items(made.id).read()
    texts = [answers[Task(made.prompts[0].id, arm.key, 0)].text for arm in made.arms]
    assert asked.answers == dict(zip(("a", "b"), texts, strict=True))
    assert asked.reference == made.prompts[0].reference and asked.system == (made.system or None)
    measuring.start(made.id, keys(made))
    assert until(measuring, made).done == 12 and len(engine.compared) == 12


def test_both_orders(tmp_path: Path) -> None:
    measuring, made, _ = measurer(tmp_path)
    measuring.start(made.id, keys(made))
    until(measuring, made)
    found = records(measuring, made).values()
    worst = changes_set.by_reference(found)
    ids = list(made.prompt_ids)
    assert [one.prompt_id for one in worst] == ids[:3:-1]
    assert worst[0].farther == pytest.approx(11 / 4 + 0.1)
    assert [one.prompt_id for one in changes_set.by_change(found)] == ids
    assert changes_set.by_change(found)[0].nats == pytest.approx(0.12) and worst[0].share == 0


def test_stopping_keeps_what_was_measured_and_the_next_start_goes_on(tmp_path: Path) -> None:
    measuring, made, engine = measurer(tmp_path, Judge(pause=0.02))
    measuring.start(made.id, keys(made))
    while not records(measuring, made):
        time.sleep(0.005)
    measuring.stop(made.id)
    stopped = until(measuring, made)
    assert stopped.error is None and 0 < stopped.done < 12
    engine.pause = 0
    measuring.start(made.id, keys(made))
    assert until(measuring, made).done == 12 and len(records(measuring, made)) == 12
    assert len(engine.compared) <= 13


def test_stopping_ends_a_prompt_in_the_middle(tmp_path: Path) -> None:
    measuring, made, engine = measurer(tmp_path, Judge(pause=60))
    measuring.start(made.id, keys(made))
    assert engine.started.wait(5)
    measuring.stop(made.id)
    assert until(measuring, made).done == 0 and records(measuring, made) == {}


def test_a_prompt_that_cannot_be_measured_is_passed_over(tmp_path: Path) -> None:
    measuring, made, _ = measurer(tmp_path, Judge(refuses="질문 7"))
    measuring.start(made.id, keys(made))
    work = until(measuring, made)
    assert work.failed == (made.prompts[7].id,) and work.done == 11 and work.error is None


def test_models_that_can_measure_nothing_end_it(tmp_path: Path) -> None:
    measuring, made, engine = measurer(tmp_path, Judge(refuses="질문"))
    measuring.start(made.id, keys(made))
    work = until(measuring, made)
    assert isinstance(work.error, UserError) and work.error.key == "engine.prompt_too_long"
    assert len(engine.compared) == 3


def test_it_loads_its_models_and_does_not_disturb_others_work(tmp_path: Path) -> None:
    measuring, made, engine = measurer(tmp_path)
    measuring.desk.unload()
    busy = replace(measuring, busy=lambda: True)
    with pytest.raises(UserError, match="busy"):
        busy.start(made.id, keys(made))
    measuring.start(made.id, keys(made))
    assert until(measuring, made).done == 12 and [arm.adapter for arm in engine.specs[-1].arms] == [
        None,
        "/jobs/x/adapter",
    ]
    with pytest.raises(UserError, match="no_answers"):
        measuring.start(made.id, Sides("x", "y"))


def test_answers_that_changed_are_measured_anew(tmp_path: Path) -> None:
    measuring, made, _ = measurer(tmp_path)
    measuring.start(made.id, keys(made))
    until(measuring, made)
    path = measuring.studies.folder(made.id) / "items.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    row = next(r for r in rows if r["prompt_id"] == made.prompts[2].id and r["sample"] == 0)
    row["text"] = "다른 답"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    assert set(made.prompt_ids) - set(records(measuring, made)) == {made.prompts[2].id}


def test_torn_lines_and_later_versions_are_passed_over(tmp_path: Path) -> None:
    measuring, made, _ = measurer(tmp_path)
    measuring.start(made.id, keys(made))
    until(measuring, made)
    path = measuring.studies.folder(made.id) / changes_set.FILE
    lines = path.read_text(encoding="utf-8").splitlines()
    later = json.loads(lines[0]) | {"version": 2}
    broken = json.loads(lines[1]) | {"tokens": [[1]]}
    path.write_text(
        "\n".join([json.dumps(later), json.dumps(broken), "[]", *lines[2:], lines[3][:40]]), encoding="utf-8"
    )
    assert set(made.prompt_ids) - set(records(measuring, made)) == {made.prompts[0].id, made.prompts[1].id}
    measuring.start(made.id, keys(made))
    assert until(measuring, made).done == 12 and len(records(measuring, made)) == 12


def test_which_models_can_be_held_against_each_other(tmp_path: Path) -> None:
    made = study(3)
    a, b, c = made.arms
    assert changes_set.sides_of(made) == (Sides(a.key, b.key),)
    other = replace(b, key="d", model="둘째@1", adapter="/jobs/y/adapter")
    assert changes_set.sides_of(replace(made, arms=(b, other, c))) == (Sides(b.key, "d"),)
    assert changes_set.sides_of(replace(made, arms=(other, a, b))) == (Sides(a.key, "d"), Sides(a.key, b.key))
    assert changes_set.sides_of(replace(made, arms=(a, c))) == ()


def test_only_prompts_with_both_answers_are_ready(tmp_path: Path) -> None:
    studies = Studies(Workspace(tmp_path))
    made = studies.create(study())
    first, second = made.prompts[:2]
    a, b = (arm.key for arm in made.arms)
    for prompt_id, key in ((first.id, a), (first.id, b), (second.id, a)):
        studies.items(made.id).append(answer(made, Task(prompt_id, key, 0)))
    assert changes_set.ready(made, studies.items(made.id).read(), keys(made)) == (first,)


def test_figures_of_a_record() -> None:
    tokens = (TokenChange("가", 2.0, 0.1, 0.9), TokenChange("나", 0.0, 0.5, 0.5))
    one = Measured("p", SIDES, "s", Changes(tokens, 0, (2.0, 1e300)))
    assert (one.nats, one.share) == (1.0, 0.5) and one.farther == pytest.approx(5e299)
    none = Measured("p", SIDES, "s", Changes((), None, None))
    assert (none.nats, none.share, none.farther) == (0.0, 0.0, None)
    assert changes_set.by_change([none]) == [] == changes_set.by_reference([none])
    assert math.isfinite(replace(one, changes=Changes(tokens, 0, (1.0, 1.7e308))).farther or math.inf)
