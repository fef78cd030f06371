"""The dialogues, questions and prompts that come with the program: written, not templated, and held out in truth."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import pytest

from assets.catalog import ROOT, prompts, read_dialogues
from finetune.data import Example, similar

DOMAINS = ("emotion", "science")
EMOTIONS = {"grief", "breakup", "work", "exams", "loneliness", "pride", "joy", "anger", "anxiety", "family"}
STOCK: set[str] = set()  # runs of eight words that may repeat; so far none does
RUN = 8
# The nearest of 18,000 pairs (held out, trained) score 0.07, and the nearest of two trained ones 0.11 to 0.13;
# the same situation told again in other words scores 0.2 and more (see the test of the measure). 0.15 lies between.
TOO_NEAR = 0.15
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\ufe0f\u200d]")


def rows(name: str) -> list[dict[str, Any]]:
    return read_dialogues(ROOT / "data" / f"{name}.jsonl")


def everything() -> list[dict[str, Any]]:
    return [row for domain in DOMAINS for part in ("train", "heldout") for row in rows(f"{domain}_{part}")]


def grams(text: str) -> set[str]:
    letters = re.sub(r"[\W_]+", "", text)
    return {letters[at : at + 3] for at in range(len(letters) - 2)}


def likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def told(row: dict[str, Any]) -> str:
    return f"{row.get('situation', '')} {row['messages'][0]['content']}"


def test_how_many_there_are() -> None:
    assert len(rows("emotion_train")) >= 240 and len(rows("emotion_heldout")) >= 60
    assert len(rows("science_train")) >= 120 and len(rows("science_heldout")) >= 30
    assert len(prompts("emotion")) >= 60 and len(prompts("science")) >= 60
    for part in ("emotion_train", "emotion_heldout"):
        assert {row["emotion"] for row in rows(part)} == EMOTIONS


def test_two_to_six_messages_by_turns() -> None:
    for row in everything():
        roles = [message["role"] for message in row["messages"]]
        assert 2 <= len(roles) <= 6 and roles == ["user", "assistant"] * (len(roles) // 2), row["id"]
        for message in row["messages"]:
            assert set(message) == {"role", "content"} and message["content"] == message["content"].strip() != "", row[
                "id"
            ]
            assert re.search("[가-힣]", message["content"]), row["id"]
    assert {len(row["messages"]) for row in rows("emotion_train")} == {2, 4, 6}


def test_ids_are_unique() -> None:
    ids = [row["id"] for row in everything()] + [prompt.id for domain in DOMAINS for prompt in prompts(domain)]
    assert [name for name, count in Counter(ids).items() if count > 1] == []


def test_no_two_share_a_run_of_eight_words() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    texts = [(row["id"], row["messages"]) for row in everything()]
    texts += [(prompt.id, list(prompt.messages)) for domain in DOMAINS for prompt in prompts(domain)]
    for name, messages in texts:
        for message in messages:
            words = re.sub(r"[^\w\s]", "", message["content"]).split()
            for at in range(len(words) - RUN + 1):
                owners[" ".join(words[at : at + RUN])].add(name)
    assert {run: names for run, names in owners.items() if len(names) > 1 and run not in STOCK} == {}


def test_the_measure_tells_the_same_situation_from_another() -> None:
    again = {
        "emotion-train-grief-01": "돌아가신 아버지 번호를 새로 받은 사람이 카톡 친구 목록에 떴다 "
        "아빠 번호를 해지한 지 석 달인데 카톡에 모르는 아기 사진이 떠요. 누가 그 번호를 새로 받았나 봐요",
        "emotion-train-grief-02": "냉동실에 돌아가신 할머니의 마지막 김치 한 통이 있다 "
        "할머니가 담가 주신 김치가 한 통 남았는데 먹으면 끝이라 못 먹겠어요",
        "science-train-001": "볼링공하고 탁구공을 같은 높이에서 떨어뜨리면 볼링공이 먼저 떨어지나요?",
    }
    known = {row["id"]: row for row in everything()}
    scores = {name: likeness(grams(told(known[name])), grams(text)) for name, text in again.items()}
    assert all(score > TOO_NEAR + 0.05 for score in scores.values()), scores


@pytest.mark.parametrize("domain", DOMAINS)
def test_held_out_situations_are_others(domain: str) -> None:
    trained = {row["id"]: grams(told(row)) for row in rows(f"{domain}_train")}
    near = {
        (row["id"], name): round(score, 3)
        for row in rows(f"{domain}_heldout")
        for name, known in trained.items()
        if (score := likeness(grams(told(row)), known)) >= TOO_NEAR
    }
    assert near == {}


def test_no_two_begin_alike() -> None:
    first = Counter(re.sub(r"[\W_]+", "", row["messages"][0]["content"]) for row in everything())
    assert [text for text, count in first.items() if count > 1] == []
    answers = Counter(m["content"] for row in everything() for m in row["messages"] if m["role"] == "assistant")
    assert [text for text, count in answers.items() if count > 1] == []


def test_assistants_use_no_emoji() -> None:
    assert EMOJI.search("좋아요 🙂") and EMOJI.search("✨") and not EMOJI.search("9.8m/s² → 약 89% ‘네’…")
    said = [(row["id"], m["content"]) for row in everything() for m in row["messages"] if m["role"] == "assistant"]
    assert [name for name, text in said if EMOJI.search(text)] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_prompts_end_with_a_question_to_the_model(domain: str) -> None:
    for prompt in prompts(domain):
        roles = [message["role"] for message in prompt.messages]
        assert prompt.domain == domain and roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
        assert roles[-1] == "user" and all(message["content"].strip() for message in prompt.messages)


def test_some_emotional_prompts_have_several_turns_and_science_has_references() -> None:
    assert sum(len(prompt.messages) > 1 for prompt in prompts("emotion")) >= 10
    assert {prompt.tags["emotion"] for prompt in prompts("emotion")} == EMOTIONS
    assert [prompt.id for prompt in prompts("science") if not (prompt.reference or "").strip()] == []


def test_no_prompt_is_near_a_training_row() -> None:
    examples = [Example(messages=tuple(row["messages"])) for row in everything()]
    asked = [{"id": p.id, "messages": list(p.messages)} for domain in DOMAINS for p in prompts(domain)]
    assert similar(examples, asked) == []
    trained = {domain: [grams(row["messages"][0]["content"]) for row in rows(f"{domain}_train")] for domain in DOMAINS}
    near = [
        prompt.id
        for domain in DOMAINS
        for prompt in prompts(domain)
        if any(likeness(grams(prompt.messages[0]["content"]), known) >= TOO_NEAR for known in trained[domain])
    ]
    assert near == []
