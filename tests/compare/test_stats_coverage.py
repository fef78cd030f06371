"""Do 95 % intervals hold the truth in 95 of 100 studies, and do studies of equal models stay silent?

`python -m tests.compare.test_stats_coverage` prints the comparison of methods that stats_cluster.py shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from compare.rating import Side
from compare.stats_cluster import bootstrap_rates, spread, t_quantile
from compare.stats_length import length_controlled
from compare.stats_rank import rank
from compare.stats_rates import Interval, Rate, claims, outcome, score_interval, share
from compare.stats_report import report
from compare.stats_votes import Filter, Votes
from tests.simulated_votes import A, B, Truth, places, simulate

STUDIES = 1000
DESIGNS = {
    "40 prompts, 5 raters, all of them": Truth(40, 5, 40, 0.4, 0.7, 0.5),
    "60 prompts, 8 raters, half of them each": Truth(60, 8, 30, 0.0, 1.0, 0.5),
    "100 prompts, 10 raters, 20 each": Truth(100, 10, 20, 0.6, 0.7, 0.7),
    "60 prompts, 20 raters, 30 each": Truth(60, 20, 30, 0.0, 0.7, 0.7),
    "100 prompts, 30 raters, 40 each": Truth(100, 30, 40, 0.6, 0.5, 0.3),
    "200 prompts, 6 raters, 50 each": Truth(200, 6, 50, 0.3, 0.3, 1.0),
}
HARD = {
    "40 prompts, 3 raters, all of them": Truth(40, 3, 40, 0.0, 0.7, 0.7),
    "60 prompts, 8 raters, no effects": Truth(60, 8, 30, 0.3, 0.0, 0.0),
}


def draw(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decided votes only: wins of B, prompts, raters."""
    prompt, rater = places(truth)
    logit = (
        truth.taste
        + truth.prompt_sd * rng.standard_normal(truth.prompts)[prompt]
        + truth.rater_sd * rng.standard_normal(truth.raters)[rater]
    )
    return (rng.random(len(prompt)) < 1 / (1 + np.exp(-logit))).astype(float), prompt, rater


def ours(wins: np.ndarray, prompt: np.ndarray, rater: np.ndarray) -> Interval:
    return share(wins, prompt, rater).interval or (0.0, 1.0)


def covered(truth: Truth, method: Callable[..., Interval], studies: int = STUDIES, seed: int = 5) -> float:
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(studies):
        low, high = method(*draw(truth, rng))
        hits += low <= truth.rate <= high
    return hits / studies


@pytest.mark.parametrize("name", DESIGNS)
def test_a_win_rates_interval_holds_the_truth(name: str) -> None:
    assert 0.93 <= covered(DESIGNS[name], ours) <= 0.97


@pytest.mark.parametrize("name", HARD)
def test_where_it_cannot_be_exact_it_is_not_too_sure(name: str) -> None:
    assert covered(HARD[name], ours) >= 0.93


def test_independent_votes() -> None:
    truth, rng = Truth(300, 300, 1, 0.5, 0.0, 0.0), np.random.default_rng(2)
    assert 0.93 <= covered(truth, ours, seed=2) <= 0.97
    found = share(*draw(truth, rng))
    assert (found.method, found.design_effect) == ("independent", 1.0)


def test_ignoring_who_voted_on_what_would_be_far_too_sure() -> None:
    """The reason for all of this: Wilson's interval of the same votes misses the truth three times in ten."""
    truth = DESIGNS["100 prompts, 10 raters, 20 each"]
    assert covered(truth, wilson_alone) < 0.85


def equal_study(rng: np.random.Generator) -> list[Rate]:
    """Two domains rated by the same people; the models are equal, people and questions are not. Overall, then domains."""
    truth = Truth(30, 8, 15, 0.0, 0.5, 0.4)
    first, second = draw(truth, rng), draw(truth, rng)
    both = [np.concatenate(parts) for parts in zip(first, (second[0], second[1] + 30, second[2]), strict=True)]
    return [share(*both), share(*first), share(*second)]


def test_equal_models_are_called_different_in_at_most_one_study_in_twenty() -> None:
    """Any claim counts, overall or in a domain."""
    rng = np.random.default_rng(11)
    claimed = sum(any(claims(equal_study(rng))) for _ in range(STUDIES))
    assert claimed <= 0.05 * STUDIES


def test_one_model_against_itself_is_called_different_in_at_most_one_study_in_twenty() -> None:
    """Coin flips: nobody can prefer one of two answers by the same model but by chance or by its place."""
    rng = np.random.default_rng(12)
    prompt, rater = places(Truth(40, 8, 20))
    claimed = 0
    for _ in range(STUDIES):
        on_left = rng.random(len(prompt)) < 0.5
        chosen_left = rng.random(len(prompt)) < 0.65
        claimed += claims([share((on_left == chosen_left).astype(float), prompt, rater)])[0]
    assert claimed <= 0.05 * STUDIES


def test_a_report_claims_what_the_simulation_checked() -> None:
    rng = np.random.default_rng(3)
    truth = Truth(30, 8, 15, 0.0, 0.5, 0.4)
    frames = [simulate(truth, rng, domain).frame for domain in ("emotion", "science")]
    votes = Votes(pd.concat(frames, ignore_index=True))
    found = report(votes, Filter((A, B)))
    parts = [votes, *(votes.where(votes.is_("domain", domain)) for domain in found.domains)]
    assert list(found.different.values()) == claims([outcome(part).rate for part in parts])


@pytest.mark.parametrize("side", ["model_a", "model_b"])
def test_a_real_difference_is_found(side: Side) -> None:
    rng = np.random.default_rng(4)
    taste = 1.2 if side == "model_b" else -1.2
    found = [outcome(simulate(Truth(60, 10, 30, taste, 0.5, 0.3), rng)) for _ in range(100)]
    assert sum(claims([one.rate])[0] and one.share(side).rate > 0.5 for one in found) >= 95  # type: ignore[operator]


@pytest.fixture(scope="module")
def empty() -> Votes:
    """A study whose columns a simulation fills in."""
    return simulate(Truth(60, 12, 25), np.random.default_rng(0))


def test_length_control_recovers_the_rate_at_equal_length(empty: Votes) -> None:
    """Raters who like longer answers; B is longer. The interval holds what the rate would be at equal length."""
    rng, truth = np.random.default_rng(6), Truth(60, 12, 25, 0.3, 0.6, 0.4)
    prompt, rater = places(truth)
    hits = raw = 0
    for _ in range(STUDIES):
        longer = rng.normal(60, 120, len(empty)).astype(int)
        people = truth.prompt_sd * rng.standard_normal(60)[prompt] + truth.rater_sd * rng.standard_normal(12)[rater]
        wins = rng.random(len(empty)) < 1 / (1 + np.exp(-truth.taste - np.tanh(longer / 120) - people))
        votes = filled(empty, wins, length_a=500, length_b=500 + longer)
        found = length_controlled(votes)
        assert found is not None
        hits += found.interval[0] <= truth.rate <= found.interval[1]
        raw += wins.mean() > truth.rate
    assert 0.93 <= hits / STUDIES <= 0.97
    assert raw / STUDIES > 0.85, "without control the longer model looks better than it is"


def test_strengths_of_three_models_are_covered(empty: Votes) -> None:
    """Every vote on a prompt of its own by a rater of its own: with effects the true strengths have no closed form."""
    rng, true = np.random.default_rng(7), np.array([-0.5, 0.0, 0.5])
    names = np.array(["x", "y", "z"], dtype=object)
    alone = Votes(empty.frame.assign(prompt_id=empty.frame["rating_id"], rater=empty.frame["rating_id"]))
    hits = np.zeros(3)
    for _ in range(STUDIES):
        pair = np.array([(0, 1), (0, 2), (1, 2)])[rng.integers(0, 3, len(alone))]
        wins = rng.random(len(alone)) < 1 / (1 + np.exp(true[pair[:, 0]] - true[pair[:, 1]]))
        for one in rank(filled(alone, wins, model_a=names[pair[:, 0]], model_b=names[pair[:, 1]])):
            i = "xyz".index(one.model)
            hits[i] += one.interval[0] <= true[i] <= one.interval[1]
    assert (hits / STUDIES >= 0.93).all() and (hits / STUDIES <= 0.97).all()


def filled(votes: Votes, wins: np.ndarray, **columns: object) -> Votes:
    winner = np.where(wins, "model_b", "model_a").astype(object)
    return Votes(votes.frame.assign(winner=winner, **columns))


def wilson_alone(wins: np.ndarray, prompt: np.ndarray, rater: np.ndarray) -> Interval:
    return score_interval(float(wins.mean()), len(wins), t_quantile(math.inf))


def normal_two_way(wins: np.ndarray, prompt: np.ndarray, rater: np.ndarray) -> Interval:
    found = spread((wins - wins.mean()) / len(wins), prompt, rater)
    return score_interval(float(wins.mean()), len(wins) / found.design_effect, t_quantile(math.inf))


def pigeonhole(wins: np.ndarray, prompt: np.ndarray, rater: np.ndarray) -> Interval:
    low, high = np.nanpercentile(bootstrap_rates(wins, prompt, rater), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    methods = {"Wilson": wilson_alone, "bootstrap": pigeonhole, "z": normal_two_way, "ours": ours}
    print("design".ljust(44) + "   sp   sr", *(name.rjust(10) for name in methods))
    for name, truth in (DESIGNS | HARD).items():
        found = [f"{100 * covered(truth, method):.1f}".rjust(10) for method in methods.values()]
        print(name.ljust(44) + f"  {truth.prompt_sd:.1f}  {truth.rater_sd:.1f}", *found, flush=True)


if __name__ == "__main__":
    main()
