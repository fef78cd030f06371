from __future__ import annotations

import copy
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.criteria import CRITERIA, criteria_for
from compare.names import names_leaked
from compare.trial import Setting, Trial, TrialArm, side_for

ARMS = (TrialArm("k1", "google/gemma-2-2b-it"), TrialArm("k2", "공감 연습 7", ("gemma-emotion",)))
PROMPT = [{"role": "user", "content": "오늘 힘들었어요."}]


def trial(left_is: Any = "model_b", **setting: Any) -> Trial:
    ticks = iter(range(100))
    return Trial(ARMS, PROMPT, left_is, Setting(domain="emotion", **setting), clock=lambda: next(ticks))


def answered(**values: Any) -> Trial:
    one = trial(**values)
    one.push("k1", "많이 ")
    one.push("k1", "힘드셨겠어요.")
    one.finish("k1", "stop", tokens_per_second=30.0)
    one.push("k2", "그랬군요.")
    one.finish("k2", "length")
    return one


def test_sides_are_balanced_in_every_block_of_four() -> None:
    for rater in ("kim", "lee", ""):
        sides = [side_for("secret", rater, number) for number in range(400)]
        assert all(Counter(sides[i : i + 4]) == {"model_a": 2, "model_b": 2} for i in range(0, 400, 4))
        assert sides == [side_for("secret", rater, number) for number in range(400)]


def test_sides_differ_between_raters_and_seeds_and_show_no_pattern() -> None:
    def row(seed: str, rater: str) -> list[str]:
        return [side_for(seed, rater, number) for number in range(40)]

    assert len({tuple(row("s", str(rater))) for rater in range(20)} | {tuple(row("t", "0"))}) == 21
    blocks = Counter(tuple(side_for("s", str(r), n) for n in range(4)) for r in range(600))
    assert len(blocks) == 6
    assert min(blocks.values()) > 60


def test_nothing_visible_before_the_reveal_tells_the_models() -> None:
    one = answered(kind="aa", provenance={"adapter": "sha"})
    for _ in range(2):
        text = json.dumps(one.visible(), ensure_ascii=False)
        for secret in ("gemma", "google", "공감", "model_a", "model_b", "k1", "k2", "aa", "sha", "30.0", "length"):
            assert secret not in text.replace(one.id, "")
        one.vote("left", "kim")
    one.reveal()
    assert one.visible()["left_name"] == "공감 연습 7"


def test_names_are_visible_when_the_trial_is_not_blind() -> None:
    one = answered(blind=False)
    assert (one.visible()["left_name"], one.visible()["right_name"]) == ("공감 연습 7", "google/gemma-2-2b-it")
    assert not one.vote("left", "kim").blind


def test_the_states_in_their_order() -> None:
    one = trial()
    assert one.state == "open"
    with pytest.raises(UserError, match=r"ratings\.vote_first"):
        one.reveal()
    one.finish("k1", "stop")
    with pytest.raises(UserError, match=r"ratings\.not_answered"):
        one.vote("left", "kim")
    one.finish("k2", "stop")
    assert (one.state, one.visible()["can_vote"]) == ("answered", True)
    with pytest.raises(UserError, match=r"ratings\.vote_first"):
        one.reveal()
    one.vote("left", "kim")
    assert (one.state, one.visible()["can_vote"]) == ("voted", False)
    one.reveal()
    assert one.visible()["state"] == "revealed"


@pytest.mark.parametrize("reason", ["cancelled", "error"])
def test_an_answer_that_was_broken_off_cannot_be_voted_on(reason: str) -> None:
    one = trial()
    one.finish("k1", "stop")
    one.finish("k2", reason)
    with pytest.raises(UserError, match=r"ratings\.not_answered"):
        one.vote("tie", "kim")
    one.clear()
    assert (one.state, one.visible()["left"]) == ("open", "")


def test_a_double_click_is_one_vote_and_a_second_thought_is_told() -> None:
    one = answered()
    first = one.vote("left", "kim")
    assert one.vote("left", "kim") is first
    with pytest.raises(UserError, match=r"ratings\.already_voted"):
        one.vote("right", "kim")
    with pytest.raises(UserError, match=r"ratings\.already_voted"):
        one.clear()
    one.reveal()
    assert one.vote("left", "kim") is first
    with pytest.raises(UserError, match=r"ratings\.already_voted"):
        one.vote("tie", "kim")


def test_clicks_at_once_give_one_vote() -> None:
    one = answered()

    def click(choice: str) -> str | None:
        try:
            return one.vote(choice, "kim").winner
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = set(pool.map(click, ["left", "right", "tie", "both_bad"] * 10)) - {None}
    assert len(winners) == 1


@pytest.mark.parametrize(
    ("left_is", "choice", "winner"),
    [
        ("model_a", "left", "model_a"),
        ("model_a", "right", "model_b"),
        ("model_b", "left", "model_b"),
        ("model_b", "right", "model_a"),
        ("model_b", "tie", "tie"),
        ("model_a", "both_bad", "both_bad"),
    ],
)
def test_places_become_models(left_is: str, choice: str, winner: str) -> None:
    one = answered(left_is=left_is)
    assert one.place("k1") == ("left" if left_is == "model_a" else "right")
    row = one.vote(choice, "kim", {"left": {"empathy": 2}, "right": {"empathy": -1, "fluency": 5}})
    assert (row.winner, row.left_is) == (winner, left_is)
    left, right = ("model_a", "model_b") if left_is == "model_a" else ("model_b", "model_a")
    assert row.criteria == {left: {"empathy": 2}, right: {"empathy": -1, "fluency": 5}}
    assert (row.response_a, row.response_b) == ("많이 힘드셨겠어요.", "그랬군요.")
    seen = one.visible()
    assert seen["left" if left == "model_a" else "right"] == row.response_a


def test_the_row_has_all_that_was_known() -> None:
    one = answered(prompt_set="emotion", prompt_id="emotion-001", seed=7, sampling={"top_p": 0.9}, study_id="s")
    row = one.vote("tie", "kim", comment="둘 다 =좋아요", layout="stacked", rater_role="owner")
    assert row.rating_id == one.id
    assert (row.rater, row.rater_role, row.layout, row.comment) == ("kim", "owner", "stacked", "둘 다 =좋아요")
    assert (row.prompt_id, row.seed, row.study_id, row.blind, row.domain) == ("emotion-001", 7, "s", True, "emotion")
    assert row.timing == {
        "model_a": {"reason": "stop", "tokens_per_second": 30.0},
        "model_b": {"reason": "length"},
        "seconds_to_vote": 1,
    }
    assert row.created_at.endswith("Z")


def test_histories_that_parted() -> None:
    turns = {"model_a": [*PROMPT, {"role": "assistant", "content": "가"}], "model_b": PROMPT}
    one = Trial(ARMS, turns, "model_b")
    turns["model_a"].clear()
    assert one.visible()["left_turns"] == PROMPT
    assert len(one.visible()["right_turns"]) == 2
    assert copy.deepcopy(one).id == one.id


@pytest.mark.parametrize(
    ("marks", "key"),
    [
        ({"left": {"correctness": 3}}, "ratings.unknown_criterion"),
        ({"left": {"empathy": 3}}, "ratings.off_scale"),
        ({"right": {"fluency": 0}}, "ratings.off_scale"),
        ({"right": {"fluency": 2.5}}, "ratings.off_scale"),
        ({"right": {"fluency": True}}, "ratings.off_scale"),
    ],
)
def test_marks_off_the_scale_are_refused_and_the_vote_stays_open(marks: Any, key: str) -> None:
    one = answered()
    with pytest.raises(UserError) as caught:
        one.vote("left", "kim", marks)
    assert caught.value.key == key
    assert one.state == "answered"


def test_a_model_that_says_its_name_is_marked() -> None:
    one = trial()
    one.push("k1", "저는 구글에서 만든 Gemma예요.")
    one.finish("k1", "stop")
    one.finish("k2", "stop")
    assert one.vote("right", "kim").provenance["named"] == {"model_a": ["Gemma", "Google"]}
    assert one.reveal().leaked == {"left": (), "right": ("Gemma", "Google")}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I am Gemma, an open model.", "Gemma"),
        ("Hi! I'm a large language model, trained by Google.", "Google"),
        ("As an AI language model called ChatGPT, I", "GPT"),
        ("저는 KONI입니다.", "KONI"),
        ("안녕하세요. 저는 코니라고 해요.", "KONI"),
        ("나는 라마야", "Llama"),
        ("제 이름은 젬마라고 합니다", "Gemma"),
        ("저는 KISTI가 개발한 인공지능이에요.", "KISTI"),
        ("Ｉ ａｍ Ｌｌａｍａ", "Llama"),
        ("Llama 3.1 기준으로는", "Llama"),
        ("gemma-emotion", "gemma-emotion"),
        ("저는 공감 연습 7 입니다", "공감 연습 7"),
    ],
)
def test_names_that_leak(text: str, name: str) -> None:
    assert name in names_leaked(text, ARMS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "라마는 남아메리카에 사는 동물이에요.",
        "저는 라마를 본 적이 있어요. 라마 3마리요.",
        "I am sure that solar energy helps.",
        "The llama is an animal; I like llamas.",
        "저는 메타인지가 중요하다고 생각해요.",
        "저는 구글에서 검색해 봤어요.",
        "나라마다 달라요.",
    ],
)
def test_names_that_do_not(text: str) -> None:
    assert names_leaked(text, ARMS) == ()


def test_a_long_answer_is_read_quickly() -> None:
    import time

    began = time.perf_counter()
    names_leaked("저는 구글 " * 20_000 + "i am a a a " * 5_000, ARMS)
    assert time.perf_counter() - began < 2


def test_every_scale_is_worded_in_both_languages() -> None:
    for language in LANGUAGES:
        words = Words(language)
        for criterion in {c for group in CRITERIA.values() for c in group}:
            assert criterion.low <= criterion.best <= criterion.high
            assert words(criterion.label) and words(criterion.question)
            assert len({words(criterion.anchor(value)) for value in criterion.values}) == 5


def test_empathy_has_too_much_on_its_scale() -> None:
    empathy = criteria_for("emotion")[0]
    assert (empathy.key, empathy.values, empathy.best) == ("empathy", (-2, -1, 0, 1, 2), 0)
    assert criteria_for("역사") == CRITERIA["general"]
