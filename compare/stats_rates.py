"""Win rates with intervals, and how many votes are still needed.

Covers: counts with ties and both-bad kept apart, the win rate over decided votes, its interval and test, criteria in
place of votes, the left/right share, votes needed for 80 % power. Does not cover: which votes count (stats_votes.py),
control for length (stats_length.py), more than two models (stats_rank.py).

The interval is Wilson's score interval with the effective number of votes n / design effect and a t quantile, as
surveys use it (Kott & Carr 1997; Dean & Pagano 2015); with independent votes that is Wilson's interval. A difference is
claimed when both that score test and the exact binomial test are below 5 %, Holm's correction over the domains that are
spoken of, from MINIMUM_DECIDED votes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from compare.rating import Side
from compare.stats_cluster import Method, spread, t_quantile, t_tail
from compare.stats_votes import Codes, Floats, Votes

CONFIDENCE = 0.95
POWER = 0.8
MINIMUM_DECIDED = 10
# Beyond this many votes a difference is too small to be worth collecting for, and the number too uncertain to be told.
MOST_NEEDED = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Tally:
    """Counts of one pair. ``n`` is all votes, ``decided`` those for one of the two."""

    wins_a: int = 0
    wins_b: int = 0
    ties: int = 0
    both_bad: int = 0

    @property
    def decided(self) -> int:
        return self.wins_a + self.wins_b

    @property
    def n(self) -> int:
        return self.decided + self.ties + self.both_bad


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` yes-or-no outcomes with its 95 % interval; None without any.

    ``p`` is the larger of the p values of the score test with the effective number of votes and of the exact binomial
    test, against one half.
    """

    wins: int
    n: int
    rate: float | None = None
    interval: Interval | None = None
    p: float = 1.0
    design_effect: float = 1.0
    method: Method = "independent"
    prompts: int = 0
    raters: int = 0
    df: float = math.inf

    @property
    def excludes_half(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0.5 <= self.interval[1]

    def other(self) -> Rate:
        """The same share seen from the other side."""
        if self.rate is None or self.interval is None:
            return self
        low, high = self.interval
        return Rate(
            self.n - self.wins, self.n, 1 - self.rate, (1 - high, 1 - low), self.p, self.design_effect, self.method,
            self.prompts, self.raters, self.df,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One line of the results: the counts, and the share of ``side`` (model_b) among the decided votes."""

    tally: Tally
    rate: Rate

    def share(self, side: Side) -> Rate:
        return self.rate if side == "model_b" else self.rate.other()

    @property
    def needed(self) -> int | None:
        """How many more votes tell the observed difference from none; None at one half or without any."""
        return votes_needed(self.tally, self.rate)


def tally(votes: Votes) -> Tally:
    """Counts over votes of one pair."""
    return Tally(*(int(votes.is_("winner", winner).sum()) for winner in ("model_a", "model_b", "tie", "both_bad")))


def outcome(votes: Votes) -> Outcome:
    """Counts and model_b's share of the decided votes."""
    decided = votes.decided
    return Outcome(tally(votes), share(votes.wins("model_b")[decided], votes.prompts[decided], votes.raters[decided]))


def by_domain(votes: Votes) -> dict[str, Outcome]:
    """The same by domain, most votes first."""
    return {domain: outcome(votes.where(votes.is_("domain", domain))) for domain in votes.domains()}


def by_criterion(votes: Votes, best: Mapping[str, int]) -> dict[str, Outcome]:
    """Which answer came nearer to the ``best`` mark, by criterion; equally near is a tie."""
    found = {}
    for criterion in (name for name in votes.criteria if name in best):
        apart = [np.abs(votes.marks(criterion, side) - best[criterion]) for side in ("model_a", "model_b")]
        given = ~np.isnan(apart[0]) & ~np.isnan(apart[1])
        a, b = apart[0][given], apart[1][given]
        decided = a != b
        wins = (b < a)[decided]
        rate = share(wins.astype(float), votes.prompts[given][decided], votes.raters[given][decided])
        counts = Tally(int((~wins).sum()), int(wins.sum()), int((~decided).sum()))
        if counts.n:
            found[criterion] = Outcome(counts, rate)
    return found


def left(votes: Votes) -> Rate:
    """Whether the place mattered: about half of the decided votes should go left."""
    decided = votes.decided
    won_left = votes.is_("winner", "model_b") == votes.is_("left_is", "model_b")
    return share(won_left[decided].astype(float), votes.prompts[decided], votes.raters[decided])


def share(wins: Floats, prompts: Codes, raters: Codes) -> Rate:
    """The share of ones in ``wins``; ``prompts`` and ``raters`` say which votes go together."""
    n = len(wins)
    if n == 0:
        return Rate(0, 0)
    count = int(wins.sum())
    rate = count / n
    found = spread((wins - rate) / n, prompts, raters)
    effective = n / found.design_effect
    df = math.inf if found.method == "independent" else found.df
    interval = score_interval(rate, effective, t_quantile(df))
    tail = t_tail((rate - 0.5) / math.sqrt(0.25 / effective), df)
    return Rate(
        count, n, rate, interval, max(tail, p_value(count, n)), found.design_effect, found.method, found.prompts,
        found.raters, df,
    )  # fmt: skip


def score_interval(rate: float, n: float, quantile: float) -> Interval:
    """Wilson's interval of a share with any effective number of votes and any quantile."""
    square = quantile**2
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def wilson(wins: int, n: int) -> Interval | None:
    """Wilson's 95 % score interval of a share of independent votes, without continuity correction; None for n = 0."""
    return score_interval(wins / n, n, t_quantile(math.inf, CONFIDENCE)) if n else None


def p_value(wins: int, n: int) -> float:
    """Exact two-sided binomial test of a share against one half; 1 for n = 0."""
    if n == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, float(2 * bdtr(min(wins, n - wins), n, 0.5)))


def holm(tails: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the order given."""
    order = sorted(range(len(tails)), key=lambda i: tails[i])
    adjusted, highest = [0.0] * len(tails), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(tails) - rank) * tails[i]))
        adjusted[i] = highest
    return adjusted


def claims(rates: Sequence[Rate]) -> list[bool]:
    """Which of the shares may be called different from one half when all of them are spoken of together."""
    can = [found.n >= MINIMUM_DECIDED for found in rates]
    tails = iter(holm([found.p for found, enough in zip(rates, can, strict=True) if enough]))
    return [
        enough and next(tails) < 1 - CONFIDENCE and found.excludes_half
        for found, enough in zip(rates, can, strict=True)
    ]


def decided_needed(rate: float, power: float = POWER, design_effect: float = 1.0, df: float = math.inf) -> int | None:
    """Decided votes with which a true ``rate`` is told from one half (two-sided, 5 %); None for exactly one half.

    Normal approximation of the sign test with the interval's own quantile (``df``), times the design effect; never fewer
    than MINIMUM_DECIDED. With few raters more votes help less than more raters, which this leaves out.
    """
    if rate == 0.5:
        return None
    alpha, beta = t_quantile(df, CONFIDENCE), NormalDist().inv_cdf(power)
    needed = ((alpha / 2 + beta * math.sqrt(rate * (1 - rate))) / (rate - 0.5)) ** 2
    return max(MINIMUM_DECIDED, math.ceil(needed * design_effect))


def votes_needed(counts: Tally, rate: Rate, power: float = POWER) -> int | None:
    """How many more votes, ties and both-bad as often among them as so far; None at one half or without any.

    Votes go together as much as so far: as many per prompt and rater.
    """
    needed = None if rate.rate is None else decided_needed(rate.rate, power, rate.design_effect, rate.df)
    if needed is None or not counts.decided:
        return None
    return max(0, math.ceil((needed - counts.decided) * counts.n / counts.decided))
