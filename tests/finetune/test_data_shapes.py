"""Guessing what columns are for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune.data import FIELDS, Table, guess
from tests.finetune.data_samples import assistant, refused, table, user

TALK = [user("안녕하세요"), assistant("반가워요")]
SHAREGPT = [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "네"}]
AIHUB = {"profile": {"emotion": {}}, "talk": {"id": {}, "content": {"HS01": "힘들어", "SS01": "무슨 일이에요?"}}}
LONG = "여기는 조금 더 긴 설명이 들어가는 칸입니다."


@pytest.mark.parametrize(
    ("row", "shape", "columns"),
    [
        ({"messages": TALK}, "messages", {"messages": "messages"}),
        ({"id": 1, "대화": TALK, "system": "친절하게"}, "messages", {"messages": "대화", "system": "system"}),
        ({"dialog": json.dumps(TALK)}, "messages", {"messages": "dialog"}),
        ({"dialog": str(TALK)}, "messages", {"messages": "dialog"}),
        ({"발화목록": [{"화자": "내담자", "발화": "힘들어요"}]}, "messages", {"messages": "발화목록"}),
        ({"prompt": "p", "prompt_id": "x", "messages": TALK}, "messages", {"messages": "messages"}),
        ({"id": "1", "conversations": SHAREGPT}, "sharegpt", {"conversations": "conversations"}),
        ({"prompt": "p", "completion": "c"}, "prompt_completion", {"prompt": "prompt", "completion": "completion"}),
        (
            {"prompt": TALK[:1], "completion": TALK[1:]},
            "prompt_completion",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            {"instruction": "i", "input": "", "output": "o"},
            "instruction",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            {"Instruction": "i", "context": "", "response": "o", "category": "qa"},
            "instruction",
            {"instruction": "Instruction", "input": "context", "output": "response"},
        ),
        ({"지시": "i", "출력": "o"}, "instruction", {"instruction": "지시", "output": "출력"}),
        ({"Q": "1+1", "A": "2", "label": "0"}, "qa", {"question": "Q", "answer": "A"}),
        ({"번호": "1", "질문": "q", "답변": "a"}, "qa", {"question": "질문", "answer": "답변"}),
        ({"답변": "a", "질문": "q"}, "qa", {"question": "질문", "answer": "답변"}),
        ({"문의": "q", "응답": "a"}, "qa", {"question": "문의", "answer": "응답"}),
        ({"발화": "q", "응답": "a"}, "qa", {"question": "발화", "answer": "응답"}),
        (
            {"고객 질문": "물어요", "상담원 답변(최종)": "답해요"},
            "qa",
            {"question": "고객 질문", "answer": "상담원 답변(최종)"},
        ),
        (
            {"system_prompt": "s", "question": "q", "response": "a"},
            "qa",
            {"question": "question", "answer": "response", "system": "system_prompt"},
        ),
        ({"c1": "17", "c2": "밥 먹었니, 친구야?", "c3": LONG}, "qa", {"question": "c2", "answer": "c3"}),
        (AIHUB, "aihub", {"talk": "talk"}),
        (
            {"연령": "청년", "사람문장1": "가", "시스템문장1": "나", "사람문장2": "", "시스템문장2": ""},
            "aihub",
            {"user1": "사람문장1", "assistant1": "시스템문장1", "user2": "사람문장2", "assistant2": "시스템문장2"},
        ),
        ({"HS01": "가", "SS01": "나"}, "aihub", {"user1": "HS01", "assistant1": "SS01"}),
        (
            {"prompt": "p", "chosen": "c", "rejected": "r"},
            "preference",
            {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        ({"chosen": TALK, "rejected": TALK}, "preference", {"chosen": "chosen", "rejected": "rejected"}),
        (
            {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": SHAREGPT[1]},
            "preference",
            {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"},
        ),
        ({"text": LONG}, "text", {"text": "text"}),
        ({"id": "1", "text": LONG}, "text", {"text": "text"}),
        ({"아무 이름": LONG, "n": 3}, "text", {"text": "아무 이름"}),
    ],
)
def test_shapes_are_recognised(row: dict[str, Any], shape: str, columns: dict[str, str]) -> None:
    mapping = guess(table(row, row))
    assert (mapping.shape, mapping.columns) == (shape, columns)
    assert mapping.columns.keys() <= FIELDS[shape].keys()


def test_labels_are_no_text() -> None:
    rows = [{"이름": LONG + str(number), "감정": "기쁨" if number % 2 else "슬픔"} for number in range(50)]
    assert guess(table(*rows)).columns == {"text": "이름"}


def test_a_few_odd_rows_do_not_change_the_shape() -> None:
    rows: list[dict[str, Any]] = [{"messages": TALK}] * 20
    assert guess(table(*rows, {"messages": None}, {"messages": "?"})).shape == "messages"


def test_no_text_at_all_is_said() -> None:
    assert refused(guess, table({"a": "1", "b": 2.5}, {"a": "3", "b": 1})).key == "data.no_text_column"
    assert refused(guess, Table(["a"], [{"a": ""}])).key == "data.no_text_column"
