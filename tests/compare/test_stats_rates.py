from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster

from compare import stats_rates as rates
from compare.stats_cluster import bootstrap_rates, spread, t_quantile, t_tail
from compare.stats_rates import Outcome, Rate, Tally, decided_needed, votes_needed, wilson
from compare.stats_votes import from_ratings
from tests.compare.rating_files import vote
from tests.simulated_votes import Truth, places, simulate


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (0, 10), (12, 20), (129, 212), (50, 100), (999, 1000)])
def test_wilson_against_statsmodels_and_scipy(wins: int, n: int) -> None:
    found = wilson(wins, n)
    assert found == pytest.approx(proportion_confint(wins, n, method="wilson"), abs=1e-9)
    assert found == pytest.approx(tuple(stats.binomtest(wins, n).proportion_ci(method="wilson")), abs=1e-9)
    assert rates.p_value(wins, n) == pytest.approx(stats.binomtest(wins, n).pvalue, abs=1e-9)


def test_wilson_at_published_values() -> None:
    """Wilson intervals at 60 % wins, as tables print them; nothing without votes."""
    for n, low, high in ((20, 0.39, 0.78), (50, 0.46, 0.72), (100, 0.50, 0.69), (200, 0.53, 0.67), (400, 0.55, 0.65)):
        found = wilson(round(0.6 * n), n)
        assert found is not None and (round(found[0], 2), round(found[1], 2)) == (low, high)
    assert wilson(0, 0) is None and rates.p_value(0, 0) == 1


def clustered() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    prompts, raters = places(Truth(30, 7, 25))
    return (rng.random(len(prompts)) < 0.4 + 0.05 * (raters % 5)).astype(float), prompts, raters


def test_the_two_way_variance_against_statsmodels() -> None:
    wins, prompts, raters = clustered()
    fitted = OLS(wins, np.ones((len(wins), 1))).fit()
    parts = []
    for groups in (prompts, raters):
        count = len(np.unique(groups))
        parts.append(float(cov_cluster(fitted, groups, use_correction=False)[0, 0]) * count / (count - 1))
    independent = float(cov_cluster(fitted, np.arange(len(wins)), use_correction=False)[0, 0])
    found = spread((wins - wins.mean()) / len(wins), prompts, raters)
    assert found.variance == pytest.approx(max(sum(parts) - independent, independent), rel=1e-9)
    assert found.design_effect == pytest.approx(found.variance / independent, rel=1e-9)
    df = found.variance**2 / (parts[0] ** 2 / 29 + parts[1] ** 2 / 6 + independent**2 / (len(wins) - 1))
    assert found.df == pytest.approx(df, rel=1e-9)
    assert (found.method, found.prompts, found.raters) == ("prompts_raters", 30, 7)


def test_the_interval_is_where_the_score_test_turns() -> None:
    found = rates.share(*clustered())
    assert found.rate is not None and found.interval is not None
    effective, quantile = found.n / found.design_effect, stats.t.ppf(0.975, found.df)

    def off(p: float) -> float:
        return abs(found.rate - p) - quantile * math.sqrt(p * (1 - p) / effective)  # type: ignore[operator]

    assert found.interval[0] == pytest.approx(optimize.brentq(off, 1e-9, found.rate), abs=1e-9)
    assert found.interval[1] == pytest.approx(optimize.brentq(off, found.rate, 1 - 1e-9), abs=1e-9)


def test_student_against_scipy() -> None:
    for df in (1, 4.5, 30, math.inf):
        assert t_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), abs=1e-9)
        assert t_tail(1.7, df) == pytest.approx(2 * stats.t.sf(1.7, df), abs=1e-9)


def test_which_clustering_is_used() -> None:
    wins = np.array([1.0, 0, 1, 1, 0, 1])
    alone, same = np.arange(6), np.zeros(6, int)
    pairs = np.array([0, 0, 1, 1, 2, 2])
    assert rates.share(wins, alone, alone).method == "independent"
    assert rates.share(wins, same, same).method == "independent", "one rater, one prompt: nothing to compare"
    assert rates.share(wins, pairs, same).method == "prompts"
    assert rates.share(wins, alone, pairs).method == "raters"
    assert rates.share(wins, pairs, np.tile([0, 1], 3)).method == "prompts_raters"
    unanimous = rates.share(np.ones(6), pairs, same)
    assert unanimous.interval == rates.score_interval(1.0, 6, t_quantile(5)), "nothing shows how votes go together"
    assert rates.share(np.zeros(0), alone[:0], alone[:0]) == Rate(0, 0)


def test_the_bootstrap_against_expanding_every_resample() -> None:
    wins, prompts, raters = clustered()
    found = bootstrap_rates(wins, prompts, raters, resamples=50, seed=3)
    rng = np.random.default_rng(3)
    some_prompts = rng.multinomial(30, np.full(30, 1 / 30), 50)
    some_raters = rng.multinomial(7, np.full(7, 1 / 7), 50)
    for i in range(50):
        votes = [
            w
            for w, p, r in zip(wins, prompts, raters, strict=True)
            for _ in range(some_prompts[i, p] * some_raters[i, r])
        ]
        assert found[i] == pytest.approx(np.mean(votes), abs=1e-9)


def test_a_hundred_thousand_votes_are_resampled_a_thousand_times_within_a_second() -> None:
    votes = simulate(Truth(500, 200, 500), np.random.default_rng(0))
    wins, decided = votes.wins("model_b"), votes.decided
    prompts, raters = votes.prompts, votes.raters
    began = time.process_time()
    found = bootstrap_rates(wins[decided], prompts[decided], raters[decided], 1000)
    assert time.process_time() - began < 1 and found.shape == (1000,)


def test_holm_against_statsmodels() -> None:
    tails = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert rates.holm(tails) == pytest.approx(list(multipletests(tails, method="holm")[1]), abs=1e-12)
    assert rates.holm([]) == []


def test_claims_need_enough_votes_and_hold_together() -> None:
    clear, weak, few = (Rate(w, n, w / n, wilson(w, n), rates.p_value(w, n)) for w, n in ((70, 100), (61, 100), (9, 9)))
    assert rates.claims([clear]) == rates.claims([clear, weak])[:1] == [True]
    assert weak.p < 0.05 and rates.claims([weak]) == [True] and rates.claims([weak, weak]) == [False, False]
    assert rates.claims([few, clear]) == [False, True] and rates.claims([]) == []


@pytest.mark.parametrize(
    ("rate", "needed"), [(0.8, 20), (0.75, 29), (0.7, 47), (0.65, 85), (0.6, 194), (0.4, 194), (0.55, 783), (1.0, 10)]
)
def test_votes_for_80_percent_power(rate: float, needed: int) -> None:
    """Two-sided sign test at 5 %; the values of the normal approximation that tables print."""
    assert decided_needed(rate) == needed
    assert decided_needed(rate, design_effect=2.0) in (2 * needed, 2 * needed - 1, max(10, 2 * needed - 10), 10)


def test_a_few_raters_need_more_votes_and_never_fewer_than_there_are() -> None:
    """The same quantile as the interval: what does not show a difference yet always needs more."""
    assert (decided_needed(0.6, df=3) or 0) > (decided_needed(0.6) or 0)
    wins, prompts, raters = clustered()
    found = rates.share(wins, prompts, raters)
    counts = Tally(found.n - found.wins, found.wins)
    assert not found.excludes_half and (votes_needed(counts, found) or 0) > 0


def test_that_many_votes_have_that_power() -> None:
    """By the exact distribution: the score test with n votes finds a true rate of 60 % in about 80 of 100 studies."""
    n = decided_needed(0.6) or 0
    wins = np.arange(n + 1)
    found = np.abs(wins / n - 0.5) / math.sqrt(0.25 / n) > stats.norm.ppf(0.975)
    assert stats.binom.pmf(wins, n, 0.6)[found].sum() == pytest.approx(0.8, abs=0.02)


def test_votes_needed_counts_ties_and_clustering() -> None:
    def needed(counts: Tally, effect: float = 1.0) -> int | None:
        share = counts.wins_b / counts.decided if counts.decided else None
        return votes_needed(counts, Rate(counts.wins_b, counts.decided, share, (0, 1), design_effect=effect))

    assert needed(Tally(60, 40)) == 94
    assert needed(Tally(60, 40, ties=20, both_bad=5)) == 118
    assert needed(Tally(60, 40), effect=2.0) == 288, "twice 193.6, less the 100 there are"
    assert needed(Tally(1000, 10)) == 0 and needed(Tally(5, 5)) is None and needed(Tally()) is None


def test_ties_and_both_bad_are_kept_apart() -> None:
    winners = ["model_a", "model_b", "tie", "model_b", "both_bad"]
    votes = from_ratings([vote(str(i), winner=w, prompt_id=str(i), domain="d") for i, w in enumerate(winners)])
    found = rates.outcome(votes)
    assert found.tally == Tally(1, 2, 1, 1) and (found.tally.n, found.tally.decided) == (5, 3)
    assert found.rate.rate == pytest.approx(2 / 3) and found.share("model_a").rate == pytest.approx(1 / 3)
    assert rates.by_domain(votes) == {"d": found}
    low, high = found.rate.interval or (0, 0)
    assert found.share("model_a").interval == pytest.approx((1 - high, 1 - low))
    assert Outcome(Tally(), Rate(0, 0)).share("model_a") == Rate(0, 0)


def test_a_criterion_is_won_by_the_mark_nearer_to_the_best() -> None:
    marks = [((-1, 0), "b"), ((2, 1), "b"), ((0, 1), "a"), ((1, -1), "tie"), ((0, None), "none")]
    votes = from_ratings(
        vote(
            str(i),
            prompt_id=str(i),
            criteria={s: {"empathy": m} for s, m in zip(("model_a", "model_b"), given, strict=True) if m is not None},
        )
        for i, (given, _) in enumerate(marks)
    )
    assert rates.by_criterion(votes, {"empathy": 0})["empathy"].tally == Tally(1, 2, 1, 0)
    assert rates.by_criterion(votes, {"empathy": 2})["empathy"].tally == Tally(2, 2, 0, 0)
    assert rates.by_criterion(votes, {"other": 1}) == {}


def test_the_left_share() -> None:
    rows = [("model_a", "model_a"), ("model_b", "model_b"), ("model_b", "model_a"), ("tie", "model_a")]
    votes = from_ratings(vote(str(i), winner=w, left_is=left, prompt_id=str(i)) for i, (w, left) in enumerate(rows))
    found = rates.left(votes)
    assert (found.wins, found.n) == (2, 3) and found.interval == pytest.approx(wilson(2, 3))
