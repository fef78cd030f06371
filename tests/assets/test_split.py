"""Which prompts are kept for judging: always the same ones."""

from __future__ import annotations

import unicodedata

from assets.split import SHARE, is_heldout, position, prompt_text


def test_the_rule_never_changes() -> None:
    """A changed rule would let a later version train on what an earlier one judged by."""
    asked = [f"질문 {n}" for n in range(12)]
    assert [round(position(text), 6) for text in asked[:3]] == [0.203124, 0.619836, 0.975297]
    assert [n for n, text in enumerate(asked) if is_heldout(text)] == [6, 7]


def test_about_a_fifth_is_held_out_and_more_at_a_larger_share() -> None:
    asked = [f"오늘은 {n}번째로 힘든 날이에요" for n in range(5000)]
    held = {text for text in asked if is_heldout(text)}
    assert abs(len(held) / len(asked) - SHARE) < 0.02
    assert held <= {text for text in asked if is_heldout(text, 0.3)}
    assert not any(is_heldout(text, 0.0) for text in asked) and all(is_heldout(text, 1.0) for text in asked)


def test_spelling_and_white_space_do_not_matter() -> None:
    text = "할머니가 보고 싶어요"
    for same in (unicodedata.normalize("NFD", text), "  할머니가   보고\n싶어요 "):
        assert position(same) == position(text)
    assert position("할머니가 보고싶어요") != position(text)


def test_a_conversation_stands_where_its_first_question_does() -> None:
    talk = [
        {"role": "system", "content": "짧게"},
        {"role": "user", "content": "처음"},
        {"role": "assistant", "content": "네"},
        {"role": "user", "content": "다음"},
    ]
    assert prompt_text(talk) == "처음" and position(talk) == position("처음")
    assert prompt_text([]) == "" and 0 <= position("\ud800") < 1
