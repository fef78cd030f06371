"""More than two models on one scale.

Covers: Bradley-Terry strengths with intervals and ranks. Does not cover: two models, whose win rate says it all
(stats_rates.py).

P(i beats j) = expit(s_i - s_j); ties count as half a win for each, both-bad counts for nobody (after FastChat's
rating_systems.py). A model that never lost would be infinitely strong: the prior of stats_logit.py, s ~ N(0, PRIOR_SD),
keeps it finite. Intervals are the clustered sandwich; a model's rank is one more than the number of models whose lower
end lies above its upper end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compare.stats_logit import PRIOR_SD, fit
from compare.stats_rates import Interval
from compare.stats_votes import Mask, Votes


@dataclass(frozen=True)
class Strength:
    """One model. ``chance`` is its probability to beat an average one; ``undefeated`` when it never lost a vote."""

    model: str
    votes: int
    strength: float
    interval: Interval
    rank: int
    undefeated: bool
    winless: bool

    @property
    def chance(self) -> float:
        return _expit(self.strength)

    @property
    def chance_interval(self) -> Interval:
        return _expit(self.interval[0]), _expit(self.interval[1])


def rank(votes: Votes, models: Sequence[str] = (), prior_sd: float = PRIOR_SD) -> list[Strength]:
    """Strengths around their mean, strongest first; models that meet nobody else are left out.

    ``votes`` may hold any pairs; those of a model against itself, repeats and practice are not used.
    """
    used = votes.where(_usable(votes, models))
    if not len(used):
        return []
    names = list(dict.fromkeys([*used.frame["model_a"], *used.frame["model_b"]]))
    place = {name: i for i, name in enumerate(names)}
    a, b = (used.frame[column].astype(object).map(place).to_numpy(np.int64) for column in ("model_a", "model_b"))
    rows = np.arange(len(used))
    design = np.zeros((len(used), len(names)))
    design[rows, b], design[rows, a] = 1.0, -1.0
    wins = np.where(used.is_("winner", "tie"), 0.5, used.wins("model_b"))
    found = fit(design, wins, prior_sd)
    centred = np.eye(len(names)) - 1 / len(names)
    known = []
    for i, name in enumerate(names):
        about = found.spread(centred[i], used.prompts, used.raters)
        half, middle = about.quantile * math.sqrt(about.variance), float(centred[i] @ found.coefficients)
        got = np.concatenate([wins[b == i], 1 - wins[a == i]])
        known.append((name, len(got), middle, (middle - half, middle + half), bool((got == 1).all()), not got.any()))
    return sorted(
        (
            Strength(name, n, middle, ends, 1 + sum(ends[1] < other[3][0] for other in known), never, none)
            for name, n, middle, ends, never, none in known
        ),
        key=lambda one: -one.strength,
    )


def _usable(votes: Votes, models: Sequence[str]) -> Mask:
    different = np.asarray(votes.frame["model_a"] != votes.frame["model_b"], dtype=bool)
    mask = different & votes.is_("kind", "free", "main") & votes.is_("winner", "model_a", "model_b", "tie")
    if models:
        mask &= np.asarray(votes.frame["model_a"].isin(models) & votes.frame["model_b"].isin(models), dtype=bool)
    return mask


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
