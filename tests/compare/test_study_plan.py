from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from compare.study import Study
from compare.study_items import Item, needed, overlap_ids
from compare.study_plan import BLOCK, draw, pool, skeleton
from compare.study_raters import Book, Rater, Slot
from tests.compare.studies import answer, study

BOOK = Book("00" * 16, "11" * 32)


def lists(made: Study, raters: int, book: Book = BOOK) -> dict[str, list[Slot]]:
    """The whole lists of raters who go on in turns, a block each."""
    answers = {task: answer(made, task) for task in needed(made)}
    found = {f"r{n}": Rater(f"r{n}", n + 1) for n in range(raters)}
    length = len(skeleton(made, pool(made, answers), book, "r0"))
    for _ in range(-(-length // BLOCK)):
        for name, rater in list(found.items()):
            others = [slot for other in found.values() if other is not rater for slot in other.slots]
            found[name] = replace(rater, slots=draw(made, answers, book, rater, others))
    return {name: list(rater.slots) for name, rater in found.items()}


def big(arms: int = 2) -> Study:
    return study(arms, count=60, list_length=40, overlap=8, repeat_share=0.1, same_share=0.05, repeat_gap=8)


@pytest.mark.parametrize("arms", [2, 3])
def test_a_list_holds_what_the_study_asks_for(arms: int) -> None:
    made = big(arms)
    shared = set(overlap_ids(made))
    for slots in lists(made, 6).values():
        assert Counter(slot.kind for slot in slots) == {"main": 34, "repeat": 4, "aa": 2}
        firsts = [slot.item_id for slot in slots if slot.kind != "repeat"]
        assert len(set(firsts)) == len(firsts)
        prompts = [Item.of(i).prompt_id for i in firsts]
        assert len(set(prompts)) == len(prompts) and shared <= set(prompts)
        for place, slot in enumerate(slots):
            if slot.kind == "repeat":
                origin = next(n for n, s in enumerate(slots) if s.kind == "main" and s.item_id == slot.item_id)
                assert place - origin >= made.repeat_gap and slots[origin].left_is != slot.left_is


def test_overlap_items_are_the_same_for_everyone() -> None:
    made = big(3)
    shared = set(overlap_ids(made))
    sets = [
        {s.item_id for s in slots if s.kind == "main" and Item.of(s.item_id).prompt_id in shared}
        for slots in lists(made, 5).values()
    ]
    assert all(found == sets[0] for found in sets) and len(sets[0]) == 8
    pairs = Counter((Item.of(i).a, Item.of(i).b) for i in sets[0])
    assert max(pairs.values()) - min(pairs.values()) <= 1


@pytest.mark.parametrize(("arms", "raters"), [(2, 12), (3, 9), (3, 3)])
def test_balanced_over_models_sides_and_prompts(arms: int, raters: int) -> None:
    made = big(arms)
    shared = set(overlap_ids(made))
    slots = [slot for found in lists(made, raters).values() for slot in found]
    mains = [slot for slot in slots if slot.kind == "main" and Item.of(slot.item_id).prompt_id not in shared]
    prompts = Counter(Item.of(slot.item_id).prompt_id for slot in mains)
    assert max(prompts.values()) - min(prompts[p] for p in made.prompt_ids if p not in shared) <= 2
    pairs = Counter((Item.of(s.item_id).a, Item.of(s.item_id).b) for s in mains)
    assert max(pairs.values()) - min(pairs.values()) <= 0.12 * len(mains)
    by_item: dict[str, Counter[str]] = {}
    for slot in slots:
        if slot.kind == "main":
            by_item.setdefault(slot.item_id, Counter())[slot.left_is] += 1
    ahead = [abs(sides["model_a"] - sides["model_b"]) for sides in by_item.values()]
    assert max(ahead) <= 2 + raters // 4
    left = Counter(slot.left_is for slot in slots if slot.kind == "main")
    assert abs(left["model_a"] - left["model_b"]) <= 0.06 * sum(left.values())


def test_the_order_tells_nothing_and_differs_by_rater_and_secret() -> None:
    made = big()
    found = lists(made, 2)
    assert [s.item_id for s in found["r0"]] != [s.item_id for s in found["r1"]]
    other = lists(made, 2, Book("00" * 16, "22" * 32))
    assert [s.item_id for s in found["r0"]] != [s.item_id for s in other["r0"]]
    assert found == lists(made, 2)
    runs = [a.left_is == b.left_is for slots in found.values() for a, b in pairwise(slots)]
    assert 0.2 < sum(runs) / len(runs) < 0.8


def test_few_prompts_make_a_shorter_list() -> None:
    made = study(count=4, list_length=40, overlap=2, repeat_gap=3)
    [slots] = lists(made, 1).values()
    assert len({s.item_id for s in slots if s.kind == "main"}) == 4
    assert len(slots) <= 4 + 2 + 4
    assert [s.kind for s in lists(study(count=1, list_length=1, overlap=0, same_share=0), 1)["r0"]] == ["main"]


def test_answers_that_name_a_model_are_left_out() -> None:
    made = big()
    answers = {task: answer(made, task) for task in needed(made)}
    task = needed(made)[0]
    answers[task] = replace(answers[task], named=("Gemma",))
    found = pool(made, answers)
    assert len(found.main) == 59 and not any(item.prompt_id == task.prompt_id for item in found.main)
