from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assets.words import LANGUAGES, Words
from compare.rating import Rating
from compare.stats import (
    Tally,
    by_domain,
    decided_needed,
    is_difference,
    left_share,
    p_value,
    pairs,
    select,
    tally,
    verdict,
    votes_needed,
    wilson,
)


def vote(winner: str = "model_b", number: int = 0, **values: Any) -> Rating:
    known: dict[str, Any] = {"model_a": "base", "model_b": "tuned", "left_is": "model_a", "blind": True}
    return Rating(rating_id=f"{winner}{number}", winner=winner, **(known | values))


def wilson_by_hand(wins: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, wins / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (6, 10), (129, 212), (0, 50), (50, 50)])
def test_wilson_against_the_formula(wins: int, n: int) -> None:
    assert wilson(wins, n) == pytest.approx(wilson_by_hand(wins, n), abs=1e-9)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(20, 0.39, 0.78), (50, 0.46, 0.72), (200, 0.53, 0.67), (400, 0.55, 0.65)]
)
def test_wilson_at_sixty_percent(n: int, low: float, high: float) -> None:
    assert wilson(round(0.6 * n), n) == pytest.approx((low, high), abs=0.006)


def test_p_value_by_hand() -> None:
    assert p_value(8, 10) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert p_value(5, 10) == pytest.approx(1)
    assert p_value(0, 0) == 1


@pytest.mark.parametrize(("rate", "n"), [(0.8, 20), (0.75, 29), (0.7, 47), (0.65, 85), (0.6, 194), (0.55, 783)])
def test_decided_votes_needed(rate: float, n: int) -> None:
    assert decided_needed(rate) == decided_needed(1 - rate) == n


def test_votes_needed_at_the_edges() -> None:
    assert decided_needed(0.5) is None
    assert decided_needed(1.0) == 10
    assert votes_needed(Tally()) is None
    assert votes_needed(Tally(5, 5)) is None
    assert votes_needed(Tally(60, 40)) == 94
    assert votes_needed(Tally(60, 40, ties=20, both_bad=5)) == 118
    assert votes_needed(Tally(1000, 10)) == 0


def test_what_counts_and_what_is_left_out() -> None:
    votes = [
        vote("model_b"),
        vote("model_a", kind="main"),
        vote("tie", kind="practice"),
        vote("tie", kind="aa"),
        vote("tie", kind="repeat"),
        vote("tie", model_b="base"),
        vote("tie", model_b="other"),
        vote("tie", blind=False),
        vote("tie", study_id="s"),
    ]
    found = select(votes, "base", "tuned", study_id="")
    assert [v.winner for v in found.votes] == ["model_b", "model_a"]
    assert found.left_out == {
        "practice": 1,
        "aa": 2,
        "repeat": 1,
        "other_models": 1,
        "not_blind": 1,
        "other_study": 1,
    }
    assert len(select(votes, "base", "tuned", blind_only=False).votes) == 4
    for language in LANGUAGES:
        assert all(Words(language)(f"ratings.left_out.{reason}") for reason in found.left_out)


def test_a_pair_the_other_way_round_is_the_same_pair() -> None:
    turned = vote(
        "model_a",
        model_a="tuned",
        model_b="base",
        response_a="t",
        response_b="b",
        criteria={"model_a": {"fluency": 5}},
        conversation={"model_a": [], "model_b": [{"role": "user", "content": "x"}]},
    )
    [found] = select([turned], "base", "tuned").votes
    assert (found.winner, found.left_is, found.response_a, found.response_b) == ("model_b", "model_b", "b", "t")
    assert found.criteria == {"model_b": {"fluency": 5}}
    assert found.turns("model_b") == []
    assert pairs([vote(), turned, vote(model_b="x")]) == [("base", "tuned", 2), ("base", "x", 1)]


def test_counts_keep_ties_and_both_bad_apart() -> None:
    votes = [vote(winner, number, domain="emotion") for number, winner in enumerate(("model_a", "model_b", "tie"))]
    votes += [vote("model_b", 3, domain="emotion"), vote("both_bad", domain="science")]
    assert tally(votes) == Tally(1, 2, 1, 1)
    assert (tally(votes).n, tally(votes).decided) == (5, 3)
    assert tally(votes).rate("model_b") == pytest.approx(2 / 3)
    assert by_domain(votes) == {"emotion": Tally(1, 2, 1, 0), "science": Tally(0, 0, 0, 1)}
    assert by_domain(votes)["science"].rate("model_a") is None
    assert by_domain(votes)["science"].interval("model_a") is None


def test_left_share() -> None:
    votes = [vote("model_a"), vote("model_b"), vote("model_a"), vote("tie")]
    share = left_share(votes)
    assert (share.left, share.n) == (2, 3)
    assert share.rate == pytest.approx(2 / 3)
    assert share.interval == wilson(2, 3)
    assert left_share([vote("tie")]).rate is None


def test_the_sentence_for_a_difference() -> None:
    said = verdict(Tally(83, 129, 40), "emotion", tuned="model_b")
    assert said.say(Words("ko")) == (
        "감정 대화에서 튜닝한 모델이 더 자주 선택되었어요 (결정된 212표 중 61 %, 95 % 구간 54–67 %)."
    )
    assert said.say(Words("en")) == (
        "On emotional conversations, the tuned model was chosen more often "
        "(61 % of 212 decided votes, 95 % interval 54–67 %)."
    )
    assert "원본이" in verdict(Tally(129, 83), "emotion", tuned="model_b").say(Words("ko"))
    assert "gemma 쪽이" in verdict(Tally(129, 83), names=("gemma", "koni")).say(Words("ko"))


@pytest.mark.parametrize(
    ("counts", "key"),
    [
        (Tally(), "none"),
        (Tally(1, 0), "few"),
        (Tally(4, 0), "few"),
        (Tally(0, 9), "few"),
        (Tally(0, 10), "better"),
        (Tally(0, 0, 30, 4), "undecided"),
        (Tally(10, 10), "even"),
        (Tally(501, 499), "even"),
        (Tally(45, 55), "open"),
        (Tally(500, 0), "better"),
    ],
)
def test_no_claim_beyond_the_votes(counts: Tally, key: str) -> None:
    for domain in ("", "emotion", "science", "general", "역사"):
        found = verdict(counts, domain, tuned="model_b")
        assert found.key == f"ratings.verdict.{key}"
        for language in LANGUAGES:
            assert "{" not in found.say(Words(language))


def test_about_how_many_more() -> None:
    found = verdict(Tally(20, 27), tuned="model_b")
    assert found.values == {"decided": 47, "more": 310}
    assert "약 310표가 더 필요해요" in found.say(Words("ko"))


def test_equal_models_are_rarely_called_different() -> None:
    rng = random.Random(0)
    claims = 0
    for _ in range(400):
        wins = sum(rng.random() < 0.5 for _ in range(60))
        claims += is_difference(Tally(wins, 60 - wins))
    assert claims <= 0.05 * 400


def test_scipy_waits_until_it_is_asked_for() -> None:
    code = "import sys, compare.stats, compare.trial, compare.export; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2]).returncode == 0
