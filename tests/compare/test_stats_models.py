"""Bradley-Terry and length control against choix, evalica and statsmodels."""

from __future__ import annotations

import math

import choix
import evalica
import numpy as np
import pytest
from scipy.special import expit, logit
from statsmodels.discrete.discrete_model import Logit
from statsmodels.stats.sandwich_covariance import cov_cluster

from compare.stats_length import length_controlled
from compare.stats_logit import PRIOR_SD, fit
from compare.stats_rank import rank
from compare.stats_votes import Votes, from_ratings
from tests.compare.rating_files import vote
from tests.simulated_votes import Truth, simulate

NAMES = ("x", "y", "z", "w")


def many(ties: float = 0.15, seed: int = 1) -> Votes:
    """Four models of different strength, 400 votes on 30 prompts by 8 raters."""
    rng = np.random.default_rng(seed)
    votes = simulate(Truth(30, 8, 50, ties=0, both_bad=0), rng)
    first = rng.integers(0, 4, 400)
    second = (first + rng.integers(1, 4, 400)) % 4
    wins = rng.random(400) < expit(0.6 * (second - first))
    winner = np.where(wins, "model_b", "model_a").astype(object)
    winner[rng.random(400) < ties] = "tie"
    names = np.array(NAMES, dtype=object)
    return Votes(votes.frame.assign(model_a=names[first], model_b=names[second], winner=winner))


def test_strengths_against_choix() -> None:
    votes = many(ties=0)
    frame = votes.frame
    place = {name: i for i, name in enumerate(NAMES)}
    pairs = [
        (place[b], place[a]) if winner == "model_b" else (place[a], place[b])
        for a, b, winner in zip(frame["model_a"], frame["model_b"], frame["winner"], strict=True)
    ]
    expected = choix.opt_pairwise(4, pairs, alpha=0.5 / PRIOR_SD**2, tol=1e-12)
    found = {one.model: one.strength for one in rank(votes)}
    assert [found[name] for name in NAMES] == pytest.approx(list(expected - expected.mean()), abs=1e-6)


def test_strengths_with_ties_against_evalica() -> None:
    votes = many()
    outcome = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    frame = votes.frame
    expected = evalica.bradley_terry(
        list(frame["model_a"]), list(frame["model_b"]), [outcome[w] for w in frame["winner"]], tie_weight=0.5,
        tolerance=1e-14, limit=100_000,
    ).scores  # fmt: skip
    logs = np.log(expected)
    logs -= logs.mean()
    found = rank(votes, prior_sd=1e4)
    assert {one.model: one.strength for one in found} == pytest.approx(dict(logs.items()), abs=1e-6)
    assert [one.model for one in found] == list(expected.sort_values(ascending=False).index)


def test_the_interval_is_the_sandwich_worked_out_vote_by_vote() -> None:
    votes = many()
    frame = votes.frame
    alone = Votes(frame.assign(prompt_id=frame["rating_id"], rater=frame["rating_id"]))
    found = {one.model: one for one in rank(alone)}
    beta = np.array([found[name].strength for name in NAMES])
    hessian, meat = np.eye(4) / PRIOR_SD**2, np.zeros((4, 4))
    for a, b, winner in zip(frame["model_a"], frame["model_b"], frame["winner"], strict=True):
        x = np.zeros(4)
        x[NAMES.index(b)], x[NAMES.index(a)] = 1, -1
        p = expit(x @ beta)
        y = {"model_a": 0.0, "model_b": 1.0, "tie": 0.5}[winner]
        hessian += p * (1 - p) * np.outer(x, x)
        meat += (y - p) ** 2 * np.outer(x, x)
    inverse = np.linalg.inv(hessian)
    centre = np.eye(4) - 0.25
    for i, name in enumerate(NAMES):
        variance = max(centre[i] @ inverse @ meat @ inverse @ centre[i], centre[i] @ inverse @ centre[i])
        half = (found[name].interval[1] - found[name].interval[0]) / 2
        assert half / math.sqrt(variance) == pytest.approx(1.96, abs=0.01)


def test_a_model_that_never_lost_stays_finite() -> None:
    given = [vote(str(i), model_a="x", model_b="y", winner="model_b", prompt_id=str(i), kind="main") for i in range(20)]
    given += [
        vote(f"z{i}", model_a="x", model_b="z", winner=w, prompt_id=f"z{i}")
        for i, w in enumerate(["model_a", "model_b"] * 10)
    ]
    found = rank(from_ratings(given))
    assert [one.model for one in found][0] == "y" and found[0].undefeated and not found[1].undefeated
    assert found[0].rank == 1 and found[0].interval[0] > found[1].interval[1]
    assert all(math.isfinite(end) for one in found for end in one.interval)
    assert found[0].chance_interval[0] < found[0].chance < found[0].chance_interval[1] <= 1
    loser = rank(from_ratings([vote(str(i), winner="model_b", prompt_id=str(i)) for i in range(5)]))[-1]
    assert loser.model == "base" and loser.winless


def test_what_a_ranking_does_not_use() -> None:
    given = [
        vote("1", kind="repeat"),
        vote("2", kind="practice"),
        vote("3", model_b="base"),
        vote("4", winner="both_bad"),
    ]
    assert rank(from_ratings(given)) == []
    assert len(rank(many(), ("x", "y"))) == 2


def test_length_control_against_statsmodels() -> None:
    votes = simulate(Truth(40, 9, 40, 0.4), np.random.default_rng(3))
    found = length_controlled(votes, prior_sd=math.inf)
    assert found is not None
    decided = votes.where(votes.decided)
    apart = (decided.frame["length_b"] - decided.frame["length_a"]).to_numpy(float)
    design = np.column_stack([np.ones(len(apart)), np.tanh(apart / apart.std())])
    model = Logit(decided.wins("model_b"), design).fit(disp=False, tol=1e-12)
    assert (logit(found.rate), found.length) == pytest.approx(tuple(model.params), abs=1e-6)
    alone = Votes(votes.frame.assign(prompt_id=votes.frame["rating_id"], rater=votes.frame["rating_id"]))
    simple = length_controlled(alone, prior_sd=math.inf)
    assert simple is not None
    robust = cov_cluster(model, np.arange(len(apart)), use_correction=False)
    for ends, at in (((logit(simple.interval[0]), logit(simple.interval[1])), 0), (simple.length_interval, 1)):
        sd = math.sqrt(max(robust[at, at], model.cov_params()[at, at]))
        assert (ends[1] - ends[0]) / 2 / sd == pytest.approx(1.96, abs=0.02)


def test_length_control_says_nothing_without_votes_or_differences() -> None:
    votes = simulate(Truth(10, 2, 10), np.random.default_rng(3))
    assert length_controlled(Votes(votes.frame.assign(length_a=5, length_b=9))) is None
    assert length_controlled(Votes(votes.frame[:5])) is None


def test_a_fit_without_any_defeat_settles() -> None:
    found = fit(np.ones((30, 1)), np.ones(30))
    assert 2 < found.coefficients[0] < 10 and np.isfinite(found.covariance).all()
