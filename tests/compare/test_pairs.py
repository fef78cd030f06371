"""Votes to preference pairs: one verdict per prompt and two answers, what is left out and why, DPO or KTO."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.errors import UserError
from assets.split import is_heldout
from assets.words import LANGUAGES, Words
from compare.pairs import OTHER, PairFilter, Pairs, allowed, from_votes
from compare.rating import Rating
from tests.compare.rating_files import vote as a_vote

KEPT = [text for n in range(40) if not is_heldout(text := f"질문 {n}")]
HELD = next(text for n in range(40) if is_heldout(text := f"질문 {n}"))


def vote(rating_id: str, prompt: str = KEPT[0], **values: Any) -> Rating:
    told = {"blind": True, "kind": "main", "response_a": "차가운 답", "response_b": "따뜻한 답", "model_b": "tuned@1"}
    conversation = [{"role": "user", "content": prompt}]
    return a_vote(rating_id, **{**told, "conversation": conversation, "domain": "emotion", **values})


def made(rows: list[Rating], objective: Any = None, /, **chosen: Any) -> Pairs:
    return from_votes(rows, PairFilter(**chosen), objective)


def test_a_decided_vote_is_a_pair_with_the_winner_first() -> None:
    pairs = made([vote("1", winner="model_b"), vote("2", KEPT[1], winner="model_a")])
    assert pairs.objective == "dpo" and pairs.used == ("1", "2") and pairs.raters == 1
    assert pairs.rows[0] == {
        "prompt": [{"role": "user", "content": KEPT[0]}],
        "chosen": [{"role": "assistant", "content": "따뜻한 답"}],
        "rejected": [{"role": "assistant", "content": "차가운 답"}],
    }
    assert pairs.rows[1]["chosen"][0]["content"] == "차가운 답"


def test_votes_on_the_same_two_answers_are_one_pair_whichever_side_they_stood_on() -> None:
    swapped = {"response_a": "따뜻한 답", "response_b": "차가운 답"}
    votes = [vote("1", winner="model_b"), vote("2", winner="model_a", **swapped), vote("3", winner="model_a")]
    (row,) = made(votes).rows
    assert row["chosen"][0]["content"] == "따뜻한 답"
    assert made(votes, agreement=2 / 3).verdicts[0].agreement == pytest.approx(2 / 3)
    other = vote("4", response_b="또 다른 답", winner="model_b")
    assert len(made([*votes, other]).rows) == 2


@pytest.mark.parametrize(
    ("winners", "chosen", "reason"),
    [
        (["model_a", "model_b"], {}, "no_majority"),
        (["tie"], {}, "tie"),
        (["model_a", "model_a", "model_b"], {"agreement": 0.8}, "low_agreement"),
        (["model_a", "tie", "tie"], {}, "tie"),
        (["model_a"], {"votes": 2}, "few_votes"),
        (["both_bad", "model_a"], {}, "no_majority"),
    ],
)
def test_undecided_prompts_are_counted(winners: list[str], chosen: dict[str, Any], reason: str) -> None:
    votes = [vote(str(n), winner=winner) for n, winner in enumerate(winners)]
    clear = [vote(f"x{n}", KEPT[1], winner="model_a") for n in range(2)]
    pairs = made([*votes, *clear], **chosen)
    assert pairs.undecided == {reason: 1} and len(pairs.rows) == 1 and pairs.used == ("x0", "x1")
    assert all(Words(language)("ratings.left_out." + reason) for language in LANGUAGES)


@pytest.mark.parametrize(
    ("values", "chosen", "reason"),
    [
        ({"kind": "practice"}, {}, "practice"),
        ({"kind": "repeat"}, {}, "repeat"),
        ({"kind": "aa"}, {}, "aa"),
        ({"model_b": "base"}, {}, "aa"),
        ({"blind": False}, {}, "not_blind"),
        ({"study_id": "other"}, {"study": "mine"}, "other_study"),
        ({"domain": "science"}, {"domain": "emotion"}, "other_domain"),
        ({"model_b": "someone"}, {"models": ("tuned@1", "base")}, "other_models"),
        ({"response_a": " "}, {}, "empty_answer"),
        ({"response_a": "따뜻한 답 "}, {}, "same_answer"),
        ({"conversation": []}, {}, "no_prompt"),
        ({"conversation": {"model_a": [], "model_b": [{"role": "user", "content": "x"}]}}, {}, "histories_differ"),
        ({"conversation": [{"role": "user", "content": HELD}]}, {}, "heldout"),
        ({"conversation": [{"role": "user", "content": f"  {HELD} "}]}, {}, "heldout"),
    ],
)
def test_votes_that_do_not_count_are_counted(values: dict[str, Any], chosen: dict[str, Any], reason: str) -> None:
    good = vote("good", study_id=chosen.get("study", ""))
    pairs = made([vote("bad", **values), good], **chosen)
    assert pairs.left_out == {reason: 1} and pairs.used == ("good",)
    assert all(Words(language)("ratings.left_out." + reason) for language in LANGUAGES)
    if reason == "not_blind":
        assert len(made([vote("bad", KEPT[1], **values), good], blind_only=False).rows) == 2


def test_a_lead_in_the_marks_can_be_asked_for() -> None:
    close = {"model_a": {"empathy": 3.0}, "model_b": {"empathy": 4.0}}
    clear = {"model_a": {"empathy": 1.0, "honesty": 3.0}, "model_b": {"empathy": 6.0, "honesty": 4.0}}
    votes = [
        vote("1", KEPT[0], winner="model_b", criteria=close),
        vote("2", KEPT[1], winner="model_b", criteria=clear),
        vote("3", KEPT[2], winner="model_b"),
        vote("4", KEPT[3], winner="model_a", criteria=clear),
    ]
    pairs = made(votes, margin=2.0)
    assert pairs.used == ("2",) and pairs.undecided == {"margin": 3}
    assert len(made(votes).rows) == 4


def test_prompts_with_two_bad_answers_speak_through_kto() -> None:
    bad = [vote(f"b{n}", KEPT[n], winner="both_bad") for n in range(3)]
    pairs = made([*bad, vote("good", KEPT[5], winner="model_b")])
    assert pairs.objective == "kto" and (pairs.decided, pairs.both_bad) == (1, 3)
    assert [row["label"] for row in pairs.rows] == [False] * 6 + [False, True]
    assert set(pairs.rows[0]) == {"prompt", "completion", "label"}
    paired = made([*bad, vote("good", KEPT[5], winner="model_b")], "dpo")
    assert len(paired.rows) == 1 and set(paired.rows[0]) == {"prompt", "chosen", "rejected"}
    assert (allowed(3, 3), allowed(3, 4)) == ("dpo", "kto")


@pytest.mark.parametrize(
    ("winners", "objective", "key"),
    [
        (["tie"], None, "pairs.none"),
        ([], None, "pairs.none"),
        (["both_bad"], None, "pairs.none"),
        (["both_bad"], "kto", "pairs.no_good"),
    ],
)
def test_nothing_to_learn_says_so(winners: list[str], objective: Any, key: str) -> None:
    with pytest.raises(UserError) as caught:
        made([vote(str(n), KEPT[n], winner=winner) for n, winner in enumerate(winners)], objective)
    assert caught.value.key == key and all(Words(language).error(caught.value) for language in LANGUAGES)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["model_a", "model_b", "tie", "both_bad"]),
            st.integers(0, 5),
            st.booleans(),
            st.sampled_from([HELD, *KEPT[:4]]),
        ),
        max_size=30,
    ),
    st.floats(0.5, 1),
)
def test_every_vote_is_used_or_counted_and_no_held_out_prompt_gets_through(
    drawn: list[tuple[str, int, bool, str]], agreement: float
) -> None:
    votes = [
        vote(
            str(n), prompt, winner=winner, rater=f"r{rater}",
            **({"response_a": "따뜻한 답", "response_b": "차가운 답"} if swap else {}),
        )
        for n, (winner, rater, swap, prompt) in enumerate(drawn)
    ]  # fmt: skip
    try:
        pairs = made(votes, agreement=agreement)
    except UserError:
        return
    groups = {(v.conversation[0]["content"], frozenset((v.response_a, v.response_b))) for v in votes}  # type: ignore[index]
    counted = {g for g in groups if g[0] != HELD}
    assert sum(pairs.left_out.values()) == sum(prompt == HELD for *_, prompt in drawn)
    assert len(pairs.verdicts) + sum(pairs.undecided.values()) == len(counted)
    for row in pairs.rows:
        assert not is_heldout(row["prompt"])
        assert row.get("chosen") is None or row["chosen"] != row["rejected"]
    assert made(list(reversed(votes)), agreement=agreement).sha256 == pairs.sha256
    assert set(OTHER) == {"model_a", "model_b"}
