"""Prompts for comparing that stand in the training data."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import NEAR, Example, similar
from finetune.data_similar import normalised
from tests.finetune.data_samples import assistant, user

SAID = "어제 십 년 키운 강아지를 떠나보냈어요. 집이 너무 조용해요."


def prompt(*said: str, name: str = "p") -> dict[str, Any]:
    return {"id": name, "domain": "emotion", "messages": [user(text) for text in said], "reference": None}


def row(*said: str) -> Example:
    return Example(tuple(message for text in said for message in (user(text), assistant("그랬군요"))))


def test_equal_and_nearly_equal_prompts_are_flagged() -> None:
    examples = [
        row("안녕하세요 반갑습니다"),
        row("어제 10년 키운 강아지를 떠나보냈어요! 집이 너무 조용해요"),
        row(SAID.upper()),
    ]
    found = similar(examples, [prompt("전혀 다른 이야기를 할게요", name="a"), prompt(SAID.replace(" ", ""), name="b")])
    assert [(each.prompt, each.example, each.equal, each.score) for each in found] == [("b", 2, True, 1.0)]
    (near,) = similar(examples[:2], [prompt(SAID)])
    assert near.example == 1 and not near.equal and NEAR <= near.score < 1


def test_first_and_last_turns_count_and_middle_ones_do_not() -> None:
    examples = [row("처음 하는 말이에요 여러분", "가운데서 하는 말이랍니다", "마지막으로 하는 말입니다")]
    assert similar(examples, [prompt("처음 하는 말이에요, 여러분")])
    assert similar(examples, [prompt("다른 이야기로 시작하고", "마지막으로 하는 말입니다")])
    assert not similar(examples, [prompt("가운데서 하는 말이랍니다")])


def test_short_and_empty_turns() -> None:
    assert similar([row("안녕")], [prompt("안녕!")])[0].equal
    assert not similar([row("안녕")], [prompt("안녕하세요")])
    assert not similar([row("?!")], [prompt("...")])


def test_plain_text_and_preference_rows() -> None:
    assert similar([Example(text=SAID)], [prompt(SAID)])
    assert similar([Example((user(SAID),), (assistant("네"),), (assistant("아니요"),))], [prompt(SAID)])


def test_the_best_row_is_named_once_per_prompt() -> None:
    examples = [row(SAID + " 정말로요."), row(SAID), row(SAID + " 네.")]
    assert [each.example for each in similar(examples, [prompt(SAID)])] == [1]


def grams(text: str) -> set[str]:
    text = normalised(text)
    return {text[place : place + 5] for place in range(max(1, len(text) - 4))} if text else set()


@settings(max_examples=80, deadline=None)
@given(st.text("가나 ,", max_size=14), st.text("가나 ,", max_size=14))
def test_score_is_the_jaccard_of_five_grams(one: str, other: str) -> None:
    left, right = grams(one), grams(other)
    wanted = len(left & right) / len(left | right) if left and right else 0.0
    found = similar([row(one)], [prompt(other)])
    assert ([each.score for each in found] == [pytest.approx(wanted)]) if wanted >= NEAR else not found


def test_rows_that_all_resemble_the_prompts_stay_affordable() -> None:
    texts = [
        f"{number * 7919}번 손님이 오늘 {number % 97}도의 더위를 어떻게 견디는지 물었어요" for number in range(15_000)
    ]
    start = time.process_time()
    found = similar([row(text) for text in texts], [prompt(text) for text in texts[:120]])
    assert len(found) == 120 and all(each.equal for each in found)
    assert time.process_time() - start < 20
