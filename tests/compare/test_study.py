from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from assets.errors import UserError
from assets.words import Words
from compare.engine import Sampling
from compare.study import Practice, Study, StudyArm, StudyPrompt, check_id
from compare.study_new import default_questions, new_study
from tests.compare.studies import CANDIDATES, prompts, study

HARD = [
    "=cmd|' /C calc'!A0",
    "줄\n바꿈\r\n그리고\r또",
    "\0 NUL",
    "👩‍👩‍👧 \u2028 \x85",
    "\ud83d 홀로 \udc00",
    "\\ud83d",
    "- a: b # c",
]


def test_yaml_and_back() -> None:
    made = study(3, reveal="never", language="ko")
    assert Study.from_yaml(made.to_yaml()) == made
    assert yaml.safe_load(made.to_yaml())["version"] == 1


@pytest.mark.parametrize("text", HARD)
def test_any_text_survives(text: str) -> None:
    prompt = StudyPrompt("p", "emotion", ({"role": "user", "content": text},), text)
    made = replace(
        study(), consent=text, prompts=(prompt,), overlap=0, practice=(Practice("x", prompt.messages, text, text),)
    )
    assert Study.from_yaml(made.to_yaml()) == made


def test_a_later_version_is_refused_and_unknown_fields_are_not() -> None:
    record = yaml.safe_load(study().to_yaml())
    assert (
        Study.from_yaml(yaml.safe_dump(record | {"colour": "red"})).to_yaml()
        == Study.from_yaml(yaml.safe_dump(record)).to_yaml()
    )
    with pytest.raises(UserError, match=r"study\.newer"):
        Study.from_yaml(yaml.safe_dump(record | {"version": 2}))


@pytest.mark.parametrize("text", ["", "- 1", "version: x", "id: [", "id: a\nname: b\n", "!!python/object:os.system {}"])
def test_what_is_no_study(text: str) -> None:
    with pytest.raises(UserError, match=r"study\.unreadable"):
        Study.from_yaml(text)


@pytest.mark.parametrize("name", ["..", "a/b", "", ".", "A", "-a", "a-", "x" * 61, "a\n", "../../etc"])
def test_ids_that_could_leave_the_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"study\.unknown"):
        check_id(name)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": " "}, "study.no_name"),
        ({"arms": ()}, "study.two_models"),
        ({"arms": (StudyArm("x1", "m"), StudyArm("x2", "m"))}, "study.same_model_twice"),
        ({"arms": (StudyArm("X-1", "m"), StudyArm("x2", "n"))}, "study.bad_value"),
        ({"prompts": ()}, "study.no_prompts"),
        (
            {"prompts": (StudyPrompt("p", "d", ({"role": "assistant", "content": "x"},)),), "overlap": 0},
            "study.bad_prompt",
        ),
        ({"target": 0}, "study.range.target"),
        ({"target": 1.5}, "study.range.target"),
        ({"overlap": 13}, "study.range.overlap"),
        ({"repeat_share": 0.6}, "study.range.repeat_share"),
        ({"same_share": -0.1}, "study.range.same_share"),
        ({"list_length": 0}, "study.range.list_length"),
        ({"reveal": "now"}, "study.bad_value"),
        ({"language": "fr"}, "study.bad_value"),
        ({"state": "x"}, "study.bad_value"),
        ({"sampling": Sampling(temperature=0)}, "study.same_needs_chance"),
    ],
)
def test_parts_that_do_not_go_together(changes: dict[str, Any], key: str) -> None:
    made = study()
    with pytest.raises(UserError) as caught:
        replace(made, **changes)
    assert caught.value.key == key
    for language in ("ko", "en"):
        assert Words(language).error(caught.value)


def test_a_prompt_or_a_question_twice() -> None:
    made = study()
    with pytest.raises(UserError, match=r"study\.prompt_twice"):
        replace(made, prompts=made.prompts + made.prompts[:1])
    with pytest.raises(UserError, match=r"study\.question_twice"):
        replace(made, questions=made.questions + made.questions[:1])
    with pytest.raises(UserError, match=r"study\.bad_question"):
        replace(made, questions=(replace(made.questions[0], anchors=("x",)),))


@pytest.mark.parametrize("language", ["ko", "en"])
def test_defaults(language: str) -> None:
    made = new_study("이름", CANDIDATES[:2], prompts(60), Words(language))
    assert (made.list_length, made.overlap, made.target, made.reveal, made.state) == (
        40,
        10,
        200,
        "after_list",
        "draft",
    )
    assert [(q.key, q.domains) for q in made.questions] == [("empathy", ("emotion",)), ("correctness", ("science",))]
    assert len(made.practice) == 2 and "109" in made.consent and made.language == language
    assert made.system == "친구예요."
    assert "상담이 아니" in made.consent if language == "ko" else "not counselling" in made.consent
    assert not any(name in made.title for name in ("KONI", "Gemma"))


def test_a_short_prompt_set_makes_a_short_list() -> None:
    made = new_study("이름", CANDIDATES[:2], prompts(3), Words("ko"))
    assert (made.list_length, made.overlap) == (3, 0)


def test_questions_can_be_chosen() -> None:
    found = default_questions(Words("ko"), ("emotion", "science"), ("fluency", "clarity"))
    assert [q.key for q in found] == ["fluency", "clarity"]
    assert len(found[0].anchors) == 5 and found[0].anchors[0] == "읽기 어려워요"


def test_marks_are_checked_against_the_study() -> None:
    made = study()
    made.check_marks("emotion", {"empathy": -2})
    for marks in ({"correctness": 3}, {"empathy": 3}, {"empathy": "1"}, {"empathy": True}):
        with pytest.raises(UserError):
            made.check_marks("emotion", marks)


def test_arms_and_candidates() -> None:
    arm = StudyArm.of(CANDIDATES[1], "x1")
    assert arm.candidate() == CANDIDATES[1]
    made = study(3)
    assert len(made.pairs) == 3 and made.pairs[0][0] == made.arms[0].key
    assert not any(part in key for arm in made.arms for key in (arm.key,) for part in ("gemma", "koni", "base"))
