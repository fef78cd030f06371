from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compare.study_items import (
    Item,
    Items,
    Task,
    count_same,
    missing,
    needed,
    overlap_ids,
    report,
    same_pool,
    servable,
)
from tests.compare.studies import answer, study

HARD = ["", "=cmd", '따옴표 "', "줄\n바꿈\r\n", "\u2028 \x85", "\ud83d 홀로", "가" * 100_000, "👩‍👩‍👧"]


@pytest.mark.parametrize("text", HARD)
def test_answers_come_back_as_they_were(tmp_path: Path, text: str) -> None:
    made = study()
    items = Items(tmp_path / "items.jsonl")
    first = replace(answer(made, needed(made)[0]), text=text, named=("Gemma",), created_at="x")
    items.append(first)
    assert items.read() == {first.task: first}
    assert Items(items.path).read() == {first.task: first}


def test_a_torn_last_line_is_no_answer_and_takes_none_with_it(tmp_path: Path) -> None:
    made = study()
    tasks = needed(made)
    items = Items(tmp_path / "items.jsonl")
    items.append(answer(made, tasks[0]))
    with items.path.open("ab") as file:
        file.write('{"prompt_id": "x", "text": "끊긴'.encode()[:-1])
    assert list(items.read()) == [tasks[0]]
    items.mend()
    items.append(answer(made, tasks[1]))
    assert list(items.read()) == [tasks[0], tasks[1]]


def test_the_first_answer_of_a_task_counts_and_nothing_there_is_nothing(tmp_path: Path) -> None:
    made = study()
    items = Items(tmp_path / "items.jsonl")
    assert items.read() == {}
    first = answer(made, needed(made)[0])
    items.append(first)
    items.append(replace(first, text="다른 답"))
    assert items.read()[first.task].text == first.text


def test_what_is_needed() -> None:
    made = study(3, count=20, same_share=0.1, list_length=20)
    tasks = needed(made)
    pool = same_pool(made)
    assert len({t for t in tasks if t.sample == 0}) == 60
    assert {t for t in tasks if t.sample == 1} == {item.tasks[1] for item in pool}
    assert count_same(made) == 2 and len(pool) == 6
    assert not {item.prompt_id for item in pool} & set(overlap_ids(made))
    assert needed(made) == tasks and missing(made, {}) == tasks
    assert count_same(replace(made, same_share=0)) == 0 == len(same_pool(replace(made, same_share=0)))


def test_seeds_are_shared_by_the_models_and_differ_by_prompt_and_sample() -> None:
    made = study()
    a, b = made.arms
    seeds = [Task("p", arm.key, sample).seed(made) for arm in (a, b) for sample in (0, 1)]
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1]
    assert Task("q", a.key, 0).seed(made) != seeds[0]


def test_what_gives_a_model_away_is_counted_and_not_served() -> None:
    made = study()
    answers = {task: answer(made, task) for task in needed(made)}
    first, second = needed(made)[:2]
    answers[first] = replace(answers[first], named=("Gemma",), reason="length")
    assert not servable(Item(first.prompt_id, first.arm, second.arm), answers)
    found = report(made, answers)
    assert (found.total, found.done, found.named, found.cut, found.equal) == (len(answers), len(answers), 1, 1, 0)
    answers[second] = replace(answers[second], text=answers[first].text)
    assert report(made, answers).equal == 1


def test_item_ids() -> None:
    item = Item("set/a:b", "x1", "x2")
    assert Item.of(item.id) == item
    for text in ("", "p", "p:", "p:x", ":x-y"):
        with pytest.raises(ValueError):
            Item.of(text)
