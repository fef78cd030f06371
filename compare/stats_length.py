"""The win rate as it would be if both answers were equally long.

Covers: the length-controlled win rate with its interval. Does not cover: other matters of form (stats_text.py).

Formula, after AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, without their term for the difficulty of an
instruction, which needs many models):

    logit P(b wins) = model + length * tanh(d / sd(d)),  d = characters of b's answer - characters of a's

over decided votes; the controlled rate is P(b wins) at d = 0, that is expit(model).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compare.stats_logit import PRIOR_SD, fit
from compare.stats_rates import MINIMUM_DECIDED, Interval
from compare.stats_votes import Votes


@dataclass(frozen=True)
class LengthControlled:
    """model_b's share at equal length; ``length`` is the coefficient, ``longer`` the median length of b over a's.

    ``longer_won`` is the share of decided votes for the longer answer, among those with unequal lengths.
    """

    n: int
    rate: float
    interval: Interval
    length: float
    length_interval: Interval
    longer: float
    longer_won: float


def length_controlled(votes: Votes, prior_sd: float = PRIOR_SD) -> LengthControlled | None:
    """None below MINIMUM_DECIDED decided votes, or when all pairs differ by the same length."""
    decided = votes.decided
    wins = votes.wins("model_b")[decided]
    a, b = (votes.frame[column].to_numpy(float)[decided] for column in ("length_a", "length_b"))
    apart = b - a
    if len(wins) < MINIMUM_DECIDED or apart.std() == 0:
        return None
    design = np.column_stack([np.ones(len(wins)), np.tanh(apart / apart.std())])
    found = fit(design, wins, prior_sd)
    prompts, raters = votes.prompts[decided], votes.raters[decided]
    ends = []
    for weights in np.eye(2):
        about = found.spread(weights, prompts, raters)
        half = about.quantile * math.sqrt(about.variance)
        middle = float(weights @ found.coefficients)
        ends.append((middle - half, middle + half))
    unequal = apart != 0
    return LengthControlled(
        n=len(wins),
        rate=_expit(float(found.coefficients[0])),
        interval=(_expit(ends[0][0]), _expit(ends[0][1])),
        length=float(found.coefficients[1]),
        length_interval=ends[1],
        longer=float(np.median(b) / max(np.median(a), 1.0)),
        longer_won=float(((apart > 0) == (wins > 0))[unequal].mean()),
    )


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
