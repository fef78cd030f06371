"""How far an estimate from votes may be off when votes on one prompt, or of one rater, go together.

Covers: the variance of an estimate from each vote's influence on it, clustered by prompt and by rater at once; the
degrees of freedom; the two-way bootstrap it was compared with. Does not cover: the estimates (stats_rates.py,
stats_logit.py).

Method: Cameron, Gelbach & Miller (2011): V = V_prompt + V_rater - V_independent, each V the sum of squared cluster sums,
times G / (G - 1) for few clusters; never below V_independent. Degrees of freedom by Satterthwaite from the three terms,
because a handful of raters estimates V_rater badly. Chosen for its coverage: of 1,000 simulated studies each, how many
95 % intervals held the truth (`python -m tests.compare.test_stats_coverage`; sp and sr are the standard deviations of
prompt and rater effects in logits, "bootstrap" resamples prompts and raters, "z" is ours with a normal quantile):

    design                                     sp   sr   Wilson  bootstrap     z   ours
    40 prompts, 5 raters, all of them         0.7  0.5     72.8       97.1  91.1   96.3
    60 prompts, 8 raters, half of them each   1.0  0.5     78.4       96.9  92.2   94.1
    100 prompts, 10 raters, 20 each           0.7  0.7     77.5       97.3  91.9   94.8
    60 prompts, 20 raters, 30 each            0.7  0.7     66.0       97.2  93.3   94.4
    100 prompts, 30 raters, 40 each           0.5  0.3     80.7       99.4  95.1   95.6
    200 prompts, 6 raters, 50 each            0.3  1.0     47.8       93.0  91.7   96.4
    40 prompts, 3 raters, all of them         0.7  0.7     63.4       91.1  85.4   94.0
    60 prompts, 8 raters, no effects          0.0  0.0     95.0       99.7  96.1   97.9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compare.stats_votes import Codes, Floats

Method = Literal["independent", "prompts", "raters", "prompts_raters"]


@dataclass(frozen=True)
class Spread:
    """``variance`` of an estimate; ``design_effect`` is what clustering costs: 2 means half as many votes in effect."""

    variance: float
    df: float
    design_effect: float
    method: Method
    prompts: int
    raters: int

    @property
    def quantile(self) -> float:
        """The two-sided 95 % quantile of Student's t with ``df``."""
        return t_quantile(self.df)


def t_quantile(df: float, confidence: float = 0.95) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(df, 1.0), (1 + confidence) / 2))


def t_tail(value: float, df: float) -> float:
    """The two-sided p of a t statistic."""
    from scipy.special import stdtr

    return float(2 * stdtr(max(df, 1.0), -abs(value)))


def spread(influence: Floats, prompts: Codes, raters: Codes, floor: float | None = None) -> Spread:
    """The spread of an estimate whose error is the sum of ``influence``, one number per vote, about 0 in sum.

    A dimension in which every vote stands alone, or that has a single cluster, is no clustering; an estimate from one
    rater speaks for that rater. ``floor`` is the least variance to report, by default that of independent votes.
    """
    n = len(influence)
    independent = float(influence @ influence)
    least = independent if floor is None else max(floor, 0.0)
    count_p, count_r = _clusters(prompts), _clusters(raters)
    by_prompt, by_rater = 1 < count_p < n, 1 < count_r < n
    parts: list[tuple[float, int]] = [(independent, max(n - 1, 1))] if by_prompt == by_rater else []
    total = -independent if by_prompt and by_rater else (0.0 if by_prompt or by_rater else independent)
    for used, codes, count in ((by_prompt, prompts, count_p), (by_rater, raters, count_r)):
        if used:
            clustered = _clustered(influence, codes, count)
            total += clustered
            parts.append((clustered, count - 1))
    variance = max(total, least)
    noise = sum(part**2 / df for part, df in parts)
    return Spread(
        variance=variance,
        df=max(1.0, variance**2 / noise) if noise > 0 else float(max(n - 1, 1)),
        design_effect=variance / independent if independent > 0 else 1.0,
        method=_method(by_prompt, by_rater),
        prompts=count_p,
        raters=count_r,
    )


def _method(by_prompt: bool, by_rater: bool) -> Method:
    if by_prompt and by_rater:
        return "prompts_raters"
    return "prompts" if by_prompt else "raters" if by_rater else "independent"


def _clusters(codes: Codes) -> int:
    return int(np.count_nonzero(np.bincount(codes))) if len(codes) else 0


def _clustered(influence: Floats, codes: Codes, count: int) -> float:
    sums = np.bincount(codes, influence)
    return float(sums @ sums) * count / (count - 1)


def bootstrap_rates(wins: Floats, prompts: Codes, raters: Codes, resamples: int = 1000, seed: int = 0) -> Floats:
    """Win rates of resamples of prompts and of raters, both with replacement (Owen 2007, the pigeonhole bootstrap).

    Shape (resamples,). Works on the table of wins and votes per prompt and rater, so votes cost nothing.
    """
    prompts, raters = np.unique(prompts, return_inverse=True)[1], np.unique(raters, return_inverse=True)[1]
    shape = (int(prompts.max()) + 1, int(raters.max()) + 1)
    cells = prompts * shape[1] + raters
    won = np.bincount(cells, wins, shape[0] * shape[1]).reshape(shape)
    seen = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    rng = np.random.default_rng(seed)
    some_prompts, some_raters = (
        (rng.multinomial(size, np.full(size, 1 / size), resamples) if size > 1 else np.ones((resamples, 1)))
        for size in shape
    )
    of_won = ((some_prompts @ won) * some_raters).sum(axis=1)
    of_seen = ((some_prompts @ seen) * some_raters).sum(axis=1)
    rates: Floats = np.divide(of_won, of_seen, out=np.full(resamples, np.nan), where=of_seen > 0)
    return rates
