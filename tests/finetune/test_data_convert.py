"""Rows to conversations: each shape, and each reason to drop a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune.data import Converted, Example, Mapping, convert, usable
from tests.finetune.data_samples import assistant, converted, refused, system, table, told, user

PAIR = (user("안녕"), assistant("네"))
SHAREGPT = [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "네"}]


def only(result: Converted) -> Example:
    assert not result.dropped, result.dropped
    (example,) = result.examples
    return example


def reasons(result: Converted) -> list[tuple[int, str]]:
    return [(drop.row, drop.key.removeprefix("data.drop.")) for drop in result.dropped]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": list(PAIR)},
        {"messages": json.dumps(PAIR, ensure_ascii=False)},
        {"messages": str(list(PAIR))},
        {"대화": [{"화자": "사용자", "발화": " 안녕 "}, {"화자": "상담사", "발화": "네\r\n"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "안녕"}]}, assistant("네")]},
        {"conversations": SHAREGPT},
        {"conversations": [{"from": "system", "value": " "}, *SHAREGPT]},
        {"prompt": "안녕", "completion": "네"},
        {"prompt": [user("안녕")], "completion": [assistant("네")]},
        {"prompt": [user("안녕")], "completion": assistant("네")},
        {"instruction": "안녕", "input": None, "output": "네"},
        {"instruction": "", "input": "안녕", "output": "네"},
        {"Q": "\n안녕 ", "A": "네"},
        {"talk": {"content": {"HS01": "안녕", "SS01": "네", "HS02": "", "SS02": ""}}},
        {"talk": '{"content": {"HS01": "안녕", "SS01": "네"}}'},
        {"사람문장1": "안녕", "시스템문장1": "네", "사람문장2": "", "시스템문장2": None},
    ],
)
def test_every_shape_gives_the_same_conversation(row: dict[str, Any]) -> None:
    assert only(converted(row)) == Example(PAIR)


def test_instruction_with_input() -> None:
    row = {"instruction": "요약해 줘", "input": "긴 글", "output": "짧은 글", "system": "짧게"}
    assert only(converted(row)).messages == (system("짧게"), user("요약해 줘\n\n긴 글"), assistant("짧은 글"))


def test_turns_in_order_of_an_aihub_talk() -> None:
    content = {f"{who}0{number}": f"{who}{number}" for number in (1, 2, 3) for who in ("SS", "HS")}
    messages = only(converted({"profile": {}, "talk": {"id": {}, "content": content}})).messages
    assert [message["content"] for message in messages] == ["HS1", "SS1", "HS2", "SS2", "HS3", "SS3"]


def test_an_aihub_question_without_answer_is_cut_off() -> None:
    result = converted({"talk": {"content": {"HS01": "안녕", "SS01": "네", "HS02": "그럼", "SS02": ""}}})
    assert only(result) == Example(PAIR)
    assert told(result.notes) == ["data.unanswered"]


def test_a_gap_in_an_aihub_talk_is_an_empty_turn() -> None:
    content = {"HS01": "안녕", "SS01": "네", "HS02": "", "SS02": "음", "HS03": "그럼", "SS03": "네"}
    assert reasons(converted({"talk": {"content": content}})) == [(1, "empty_user")]


def test_inner_whitespace_stays() -> None:
    assert only(converted({"Q": "가  나\n\n\t다", "A": "007"})).messages == (user("가  나\n\n\t다"), assistant("007"))


def test_json_as_an_answer_stays_text() -> None:
    messages = only(converted({"prompt": "JSON으로", "completion": '{"답": [1, 2]}'})).messages
    assert messages[-1] == assistant('{"답": [1, 2]}')


def test_one_speaker_twice_in_a_row_is_joined() -> None:
    result = converted({"messages": [user("안녕"), user("있잖아"), assistant("네"), assistant("말해요")]})
    assert only(result).messages == (user("안녕\n있잖아"), assistant("네\n말해요"))
    assert result.notes[0].values == {"count": 1} and told(result.notes) == ["data.merged_turns"]


def test_the_system_column_leads_unless_the_conversation_has_its_own() -> None:
    assert only(converted({"conversations": SHAREGPT, "system": "짧게"})).messages[0] == system("짧게")
    own = {"messages": [system("길게"), *PAIR], "system": "짧게"}
    assert only(converted(own)).messages == (system("길게"), *PAIR)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "empty_row"),
        (None, "empty_row"),
        ([user(""), assistant(" ")], "empty_row"),
        ([user("  "), assistant("네")], "empty_user"),
        ([user("안녕"), assistant("")], "empty_assistant"),
        ([user("안녕"), assistant(""), user("응?"), assistant("네")], "empty_assistant"),
        ([user("안녕")], "no_assistant"),
        ([system("친절"), user("안녕")], "no_assistant"),
        ([system("친절")], "empty_user"),
        ([assistant("어서 오세요"), user("안녕"), assistant("네")], "assistant_first"),
        ([user("안녕"), system("친절"), assistant("네")], "system_inside"),
        ([user("안녕"), {"role": "tool", "content": "{}"}, assistant("네")], "unknown_role"),
        ([user("안녕"), {"role": "assistant", "tool_calls": []}], "no_messages"),
        ([user("안녕"), {"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}], "not_text"),
        ([user("안녕"), {"role": "assistant", "content": {"a": 1}}], "not_text"),
        ([user("안녕"), assistant("네\ud800")], "bad_characters"),
        ([user("안\0녕"), assistant("네")], "bad_characters"),
        ("말뿐인 칸", "no_messages"),
    ],
)
def test_reasons_to_drop_a_conversation(said: Any, reason: str) -> None:
    rows = table({"messages": list(PAIR)}, {"messages": said})
    result = convert(rows, Mapping("messages", {"messages": "messages"}))
    told(result.notes)
    assert reasons(result) == [(2, reason)]
    assert result.examples == [Example(PAIR)]


def test_roles_nobody_knows_are_named() -> None:
    result = converted({"messages": [{"role": "홍길동", "content": "안녕"}, assistant("네")]})
    assert result.notes[0].values == {"names": "홍길동"}


def test_duplicates_are_dropped_but_not_near_ones() -> None:
    result = converted({"Q": "안녕", "A": "네"}, {"Q": "안녕 ", "A": "네"}, {"Q": "안녕", "A": "네!"})
    assert reasons(result) == [(2, "duplicate")] and len(result.examples) == 2


def test_numbers_and_missing_cells() -> None:
    result = converted(
        {"Q": "1+1?", "A": 2}, {"Q": "0으로 나누면?", "A": float("nan")}, {"Q": "없음"}, {"Q": "목록", "A": [1]}
    )
    assert result.examples == [Example((user("1+1?"), assistant("2")))]
    assert reasons(result) == [(2, "empty_assistant"), (3, "empty_assistant"), (4, "not_text")]


def test_columns_not_used_are_named() -> None:
    assert converted({"Q": "안녕", "A": "네", "label": 0}).notes[-1].values == {"count": 1, "names": "label"}


# text


def test_text_is_kept_whole() -> None:
    result = converted({"text": " 첫 줄\n둘째 줄 "}, {"text": ""}, {"text": "첫 줄\n둘째 줄"})
    assert result.examples == [Example(text="첫 줄\n둘째 줄")]
    assert reasons(result) == [(2, "empty_row"), (3, "duplicate")]
    assert told(result.notes) == ["data.one_column"]


# preference

TRANSCRIPT = "\n\nHuman: 안녕\n\nAssistant: 네\n\nHuman: 심심해\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "안녕", "chosen": "네!", "rejected": "왜"},
        {"prompt": [user("안녕")], "chosen": [assistant("네!")], "rejected": [assistant("왜")]},
        {"prompt": "안녕", "chosen": [user("안녕"), assistant("네!")], "rejected": [user("안녕"), assistant("왜")]},
        {"chosen": [user("안녕"), assistant("네!")], "rejected": [user("안녕"), assistant("왜")]},
        {
            "conversations": SHAREGPT[:1],
            "chosen": {"from": "gpt", "value": "네!"},
            "rejected": {"from": "gpt", "value": "왜"},
        },
        {"chosen": "\n\nHuman: 안녕\n\nAssistant: 네!", "rejected": "\n\nHuman: 안녕\n\nAssistant: 왜"},
    ],
)
def test_every_form_of_preference_gives_the_same_pair(row: dict[str, Any]) -> None:
    assert only(converted(row)) == Example((user("안녕"),), (assistant("네!"),), (assistant("왜"),))


def test_a_shared_transcript_is_the_prompt() -> None:
    example = only(converted({"chosen": TRANSCRIPT + "산책해요", "rejected": TRANSCRIPT + "몰라요\n\nHuman: 쳇"}))
    assert example.messages == (user("안녕"), assistant("네"), user("심심해"))
    assert example.chosen == (assistant("산책해요"),)
    assert example.rejected == (assistant("몰라요"), user("쳇"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "안녕", "chosen": "네", "rejected": " 네"}, "equal_pair"),
        ({"chosen": [*PAIR], "rejected": [*PAIR]}, "equal_pair"),
        ({"chosen": [*PAIR], "rejected": [user("잘 가"), assistant("네")]}, "empty_user"),
        ({"chosen": [*PAIR], "rejected": [*PAIR, user("응"), assistant("네")]}, "no_common_prompt"),
        ({"prompt": "", "chosen": "네", "rejected": "왜"}, "empty_row"),
        ({"prompt": "안녕", "chosen": "", "rejected": "왜"}, "empty_assistant"),
        ({"prompt": [*PAIR], "chosen": "네", "rejected": "왜"}, "no_common_prompt"),
        ({"chosen": "네", "rejected": "왜"}, "empty_user"),
        ({"prompt": "안녕", "chosen": [assistant("네"), system("친절")], "rejected": "왜"}, "system_inside"),
    ],
)
def test_reasons_to_drop_a_pair(row: dict[str, Any], reason: str) -> None:
    columns = {name: name for name in row}
    assert reasons(convert(table(row), Mapping("preference", columns))) == [(1, reason)]


# mappings made by hand


def test_a_mapping_that_does_not_fit_is_refused() -> None:
    rows = table({"Q": "안녕", "A": "네"})
    assert refused(convert, rows, Mapping("qa", {"question": "Q"})).key == "data.needs.answer"
    assert refused(convert, rows, Mapping("qa", {"question": "Q", "answer": "B"})).key == "data.no_such_column"
    assert refused(convert, rows, Mapping("aihub", {})).key == "data.needs.talk"
    assert refused(convert, rows, Mapping("chat", {})).key == "data.no_such_shape"
    assert refused(convert, rows, Mapping("text", {"text": "Q", "answer": "A"})).key == "data.no_such_field"


def test_a_corrected_mapping_is_obeyed() -> None:
    rows = table({"Q": "안녕", "A": "네"})
    result = convert(rows, Mapping("qa", {"question": "A", "answer": "Q"}))
    assert result.examples == [Example((user("네"), assistant("안녕")))]


def test_nothing_left_is_refused_with_the_commonest_reason() -> None:
    rows = table({"Q": "안녕", "A": ""}, {"Q": "뭐 해", "A": ""}, {"Q": "", "A": ""})
    result = convert(rows, Mapping("qa", {"question": "Q", "answer": "A"}))
    assert refused(usable, result).key == "data.nothing_left.empty_assistant"
    kept = converted({"Q": "안녕", "A": "네"})
    assert usable(kept) is kept
