"""A person's own prompts for comparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.data import Mapping, guess_prompts, prompts_from, read_file, read_prompts
from tests.finetune.data_samples import assistant, refused, system, table, user, write


@pytest.mark.parametrize(
    "row",
    [
        {"id": "s1", "domain": "과학", "prompt": "하늘은 왜 파란가요?", "reference": "빛이 흩어져서요"},
        {"번호": "s1", "분야": "과학", "질문": "하늘은 왜 파란가요?", "정답": "빛이 흩어져서요"},
        {"id": "s1", "category": "Science", "messages": [user("하늘은 왜 파란가요?")], "answer": "빛이 흩어져서요"},
        {"id": "s1", "domain": "science", "messages": [user("하늘은 왜 파란가요?"), assistant("빛이 흩어져서요")]},
        {"id": "s1", "domain": "science", "prompt": [user("하늘은 왜 파란가요?")], "gold": "빛이 흩어져서요"},
    ],
)
def test_columns_are_recognised(row: dict[str, Any]) -> None:
    assert prompts_from(table(row)) == [
        {
            "id": "s1",
            "domain": "science",
            "messages": [user("하늘은 왜 파란가요?")],
            "reference": "빛이 흩어져서요",
        }
    ]


def test_several_turns_stay() -> None:
    said = [system("상담사입니다"), user("힘들어요"), assistant("무슨 일이에요?"), user("시험을 망쳤어요")]
    (found,) = prompts_from(table({"messages": said, "domain": "감정"}))
    assert found["messages"] == said and found["domain"] == "emotion" and found["reference"] is None


def test_from_a_sheet_with_any_name(tmp_path: Path) -> None:
    rows = [{"내가 쓴 말": "오늘 너무 힘들었어요"}, {"내가 쓴 말": "친구와 다퉜어요"}]
    found = prompts_from(read_file(write(tmp_path / "내 프롬프트.xlsx", rows)))
    assert [(each["id"], each["domain"]) for each in found] == [("prompt-1", "general"), ("prompt-2", "general")]


def test_rows_left_out_and_names_given_twice() -> None:
    rows = table(
        {"id": "a", "prompt": "안녕하세요"},
        {"id": "a", "prompt": "잘 지내요?"},
        {"id": "b", "prompt": " "},
        {"id": "c", "prompt": "안녕하세요 "},
        {"id": "d", "prompt": ["목록"]},
    )
    found = read_prompts(rows)
    assert [each["id"] for each in found.prompts] == ["a", "a-2"]
    assert [(drop.row, drop.key.rpartition(".")[2]) for drop in found.dropped] == [
        (3, "empty_user"),
        (4, "duplicate"),
        (5, "not_text"),
    ]


def test_a_mapping_by_hand() -> None:
    rows = table({"가": "답이에요", "나": "질문이에요"})
    mapping = Mapping("prompts", {"prompt": "나", "reference": "가"})
    (found,) = prompts_from(rows, mapping)
    assert found["messages"] == [user("질문이에요")] and found["reference"] == "답이에요"
    assert refused(prompts_from, rows, Mapping("prompts", {"reference": "가"})).key == "data.needs.prompt"
    assert refused(prompts_from, rows, Mapping("prompts", {"prompt": "다"})).key == "data.no_such_column"


def test_nothing_to_ask() -> None:
    assert refused(prompts_from, table({"prompt": ""})).key == "data.no_prompts"
    assert refused(guess_prompts, table({"n": 1})).key == "data.no_text_column"
    assert (
        refused(prompts_from, table({"messages": [user("안녕"), assistant("네"), system("음")]})).key
        == "data.no_prompts"
    )
