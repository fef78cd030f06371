"""Votes -> counts, win rates with intervals, and a sentence that claims no more than they carry.

Covers: which votes count, win rate by domain with Wilson's interval, the left/right share, how many votes are still
needed, the verdict. Does not cover: agreement between raters, length control, more than two models.

Win rates are over decided votes: ties and both-bad are counted and kept apart. A difference is claimed when the exact
two-sided binomial test is below 5 % and Wilson's 95 % interval leaves 50 % out, from MINIMUM_DECIDED votes on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal, Protocol

from compare.criteria import DOMAINS
from compare.rating import Rating, Side

CONFIDENCE = 0.95
POWER = 0.8
MINIMUM_DECIDED = 10
# Beyond this many votes a difference is too small to be worth collecting for, and the number too uncertain to be told.
MOST_NEEDED = 2000

Interval = tuple[float, float]
_Words = Mapping[str, tuple[str, Mapping[str, object]]]


@dataclass(frozen=True)
class Selection:
    """The votes that count, each turned so that model_a and model_b are the pair's; and why the others do not."""

    model_a: str
    model_b: str
    votes: tuple[Rating, ...]
    left_out: Mapping[str, int]


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

    def rate(self, side: Side) -> float | None:
        """The side's share of the decided votes; None without any."""
        wins = self.wins_a if side == "model_a" else self.wins_b
        return wins / self.decided if self.decided else None

    def interval(self, side: Side) -> Interval | None:
        """Wilson's 95 % interval of ``rate``."""
        return wilson(self.wins_a if side == "model_a" else self.wins_b, self.decided)


@dataclass(frozen=True)
class Share:
    """How often the left answer won among ``n`` decided votes; ``rate`` and ``interval`` are None without any."""

    left: int
    n: int
    rate: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Verdict:
    """A sentence as data. ``words`` are keys to be said in the reader's language and filled in beside ``values``."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)
    words: _Words = field(default_factory=dict)

    def say(self, words: Speaker) -> str:
        """The sentence; ``words`` is an assets.words.Words."""
        said = {name: words(key, **values) for name, (key, values) in self.words.items()}
        return words(self.key, **self.values, **said)


class Speaker(Protocol):
    def __call__(self, key: str, **values: object) -> str: ...


def pairs(votes: Iterable[Rating]) -> list[tuple[str, str, int]]:
    """The pairs of models in the votes with their number, most votes first; (x, y) and (y, x) are one pair."""
    counts: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        pair = (vote.model_a, vote.model_b)
        counts[pair if pair in counts or pair[::-1] not in counts else pair[::-1]] += 1
    return [(a, b, n) for (a, b), n in counts.most_common()]


def select(
    votes: Iterable[Rating], model_a: str, model_b: str, *, blind_only: bool = True, study_id: str | None = None
) -> Selection:
    """The votes on this pair that a win rate may count. ``study_id`` keeps one study; "" those outside of any.

    Left out, with their number: practice, aa (also: a model against itself), repeat (the same rater's second look at an
    item is no new vote), not_blind, other_models, other_study.
    """
    kept: list[Rating] = []
    left_out: Counter[str] = Counter()
    for vote in votes:
        reason = _reason(vote, {model_a, model_b}, blind_only, study_id)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(vote if vote.model_a == model_a else _turned(vote))
    return Selection(model_a, model_b, tuple(kept), dict(left_out))


def _reason(vote: Rating, models: set[str], blind_only: bool, study_id: str | None) -> str:
    if vote.kind in ("practice", "aa", "repeat"):
        return vote.kind
    if vote.model_a == vote.model_b:
        return "aa"
    if {vote.model_a, vote.model_b} != models:
        return "other_models"
    if study_id is not None and vote.study_id != study_id:
        return "other_study"
    return "not_blind" if blind_only and not vote.blind else ""


def _turned(vote: Rating) -> Rating:
    """The same vote with model_a and model_b exchanged."""
    other = {"model_a": "model_b", "model_b": "model_a"}
    conversation = vote.conversation
    return replace(
        vote,
        model_a=vote.model_b,
        model_b=vote.model_a,
        response_a=vote.response_b,
        response_b=vote.response_a,
        left_is=other[vote.left_is],
        winner=other.get(vote.winner, vote.winner),
        criteria={other[side]: marks for side, marks in vote.criteria.items()},
        conversation=(
            {other[side]: turns for side, turns in conversation.items()}
            if isinstance(conversation, dict)
            else conversation
        ),
    )


def tally(votes: Iterable[Rating]) -> Tally:
    """Counts over votes of one pair, as ``select`` gives them."""
    counts = Counter(vote.winner for vote in votes)
    return Tally(counts["model_a"], counts["model_b"], counts["tie"], counts["both_bad"])


def by_domain(votes: Iterable[Rating]) -> dict[str, Tally]:
    """Counts by domain, in the order of first appearance."""
    groups: dict[str, list[Rating]] = {}
    for vote in votes:
        groups.setdefault(vote.domain, []).append(vote)
    return {domain: tally(group) for domain, group in groups.items()}


def left_share(votes: Iterable[Rating]) -> Share:
    """Whether the place mattered: about half of the decided votes should go left."""
    decided = [vote.winner == vote.left_is for vote in votes if vote.winner in ("model_a", "model_b")]
    left, n = sum(decided), len(decided)
    return Share(left, n, left / n if n else None, wilson(left, n))


def wilson(wins: int, n: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Wilson's score interval of a share, without continuity correction; None for n = 0."""
    if n == 0:
        return None
    from scipy.stats import binomtest  # 1.1 s to import, so not before somebody asks for results

    found = binomtest(wins, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def p_value(wins: int, n: int) -> float:
    """Exact two-sided binomial test of a share against one half; 1 for n = 0."""
    if n == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, n).pvalue)


def decided_needed(rate: float, power: float = POWER) -> int | None:
    """Decided votes with which a true ``rate`` is told from one half (two-sided, 5 %); None for exactly one half.

    Normal approximation of the sign test; never fewer than MINIMUM_DECIDED.
    """
    if rate == 0.5:
        return None
    alpha, beta = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), NormalDist().inv_cdf(power)
    needed = ((alpha / 2 + beta * math.sqrt(rate * (1 - rate))) / (rate - 0.5)) ** 2
    return max(MINIMUM_DECIDED, math.ceil(needed))


def votes_needed(counts: Tally, power: float = POWER) -> int | None:
    """How many more votes, ties and both-bad as often among them as so far; None at one half or without any."""
    rate = counts.rate("model_a")
    needed = None if rate is None else decided_needed(rate, power)
    if needed is None:
        return None
    return max(0, math.ceil((needed - counts.decided) * counts.n / counts.decided))


def is_difference(counts: Tally) -> bool:
    """Whether the votes carry the claim that one of the two is preferred."""
    interval = counts.interval("model_a")
    if interval is None or counts.decided < MINIMUM_DECIDED:
        return False
    return not interval[0] <= 0.5 <= interval[1] and p_value(counts.wins_a, counts.decided) < 1 - CONFIDENCE


def verdict(counts: Tally, domain: str = "", tuned: Side | None = None, names: tuple[str, str] = ("A", "B")) -> Verdict:
    """What may be said. ``domain`` "" is overall; ``tuned`` says which arm is the tuned one and the other its base.

    Without ``tuned`` the models go by ``names``.
    """
    where: _Words = {"where": _where(domain)}
    if counts.n == 0:
        return Verdict("ratings.verdict.none", words=where)
    if counts.decided == 0:
        return Verdict("ratings.verdict.undecided", {"n": counts.n}, where)
    if is_difference(counts):
        return _better(counts, where, tuned, names)
    more = votes_needed(counts)
    values = {"decided": counts.decided}
    if counts.decided < MINIMUM_DECIDED:
        return Verdict("ratings.verdict.few", values | {"minimum": MINIMUM_DECIDED}, where)
    if more is None or more > MOST_NEEDED:
        return Verdict("ratings.verdict.even", values, where)
    return Verdict("ratings.verdict.open", values | {"more": _about(more)}, where)


def _where(domain: str) -> tuple[str, Mapping[str, object]]:
    if domain in ("", *DOMAINS):
        return f"ratings.where.{domain or 'overall'}", {}
    return "ratings.where.other", {"domain": domain}


def _better(counts: Tally, where: _Words, tuned: Side | None, names: tuple[str, str]) -> Verdict:
    side: Literal["model_a", "model_b"] = "model_a" if counts.wins_a > counts.wins_b else "model_b"
    rate, interval = counts.rate(side), counts.interval(side)
    if rate is None or interval is None:
        raise ValueError("nothing was decided")
    values = {
        "percent": _percent(rate),
        "decided": counts.decided,
        "low": _percent(interval[0]),
        "high": _percent(interval[1]),
    }
    if tuned is None:
        who: tuple[str, Mapping[str, object]] = ("ratings.who.named", {"name": names[side == "model_b"]})
    else:
        who = ("ratings.who.tuned" if side == tuned else "ratings.who.base", {})
    return Verdict("ratings.verdict.better", values, {**where, "who": who})


def _percent(share: float) -> int:
    return math.floor(100 * share + 0.5)


def _about(number: int) -> int:
    """Rounded up to two figures, for a number that is an estimate."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return max(1, math.ceil(number / step) * step)
