"""Everything the votes say about one pair of models, as one value, and the sentences for it.

Covers: all figures behind the results tab and the report, what may be claimed, notes of caution, votes over time, one
line per prompt. Does not cover: how it looks (results_view.py, export_report.py), texts of answers (stats_text.py).

A claim has to hold for all sentences together: over the overall figure and the domains, p values are corrected after
Holm. Intervals are 95 % each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from compare import stats_agreement as agreement
from compare import stats_rates as rates
from compare.criteria import CRITERIA, DOMAINS
from compare.rating import WINNERS, Side
from compare.stats_cluster import t_quantile
from compare.stats_length import LengthControlled, length_controlled
from compare.stats_rank import Strength, rank
from compare.stats_rates import Interval, Outcome, Rate
from compare.stats_votes import Filter, Selection, Votes, select

BEST: Mapping[str, int] = {criterion.key: criterion.best for known in CRITERIA.values() for criterion in known}
FEW_RATERS = 5
_POINTS = 80
_Words = Mapping[str, tuple[str, Mapping[str, object]]]


class Speaker(Protocol):
    def __call__(self, key: str, **values: object) -> str: ...


@dataclass(frozen=True)
class Said:
    """A sentence as data. ``words`` are keys to be said in the reader's language and filled in beside ``values``."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)
    words: _Words = field(default_factory=dict)

    def say(self, words: Speaker) -> str:
        """The sentence; ``words`` is an assets.words.Words."""
        said = {name: words(key, **values) for name, (key, values) in self.words.items()}
        return words(self.key, **self.values, **said)


@dataclass(frozen=True)
class Moment:
    """After ``votes`` votes, at ``time``: model_b's share of the decided ones and its interval."""

    time: pd.Timestamp
    votes: int
    rate: float
    interval: Interval


@dataclass(frozen=True)
class PromptLine:
    """One prompt's votes. ``won`` and ``lost`` are ids of votes for and against model_b, "" where there is none."""

    prompt_id: str
    domain: str
    counts: rates.Tally
    won: str
    lost: str
    any: str

    @property
    def share(self) -> float | None:
        """model_b's share of the decided votes."""
        return self.counts.wins_b / self.counts.decided if self.counts.decided else None

    @property
    def balance(self) -> int:
        return self.counts.wins_b - self.counts.wins_a


@dataclass(frozen=True)
class Report:
    """``tuned`` says which side has an adapter when one has. ``target`` is None without a study; ``looks`` counts how
    often somebody looked before it was reached. ``different`` holds what may be claimed, by domain ("" is overall)."""

    selection: Selection
    tuned: Side | None
    overall: Outcome
    domains: Mapping[str, Outcome]
    criteria: Mapping[str, Outcome]
    different: Mapping[str, bool]
    left: Rate
    length: LengthControlled | None
    ranks: tuple[Strength, ...]
    alpha: agreement.Alpha
    marks: Mapping[str, agreement.Alpha]
    consistency: agreement.Consistency
    noise: agreement.NoiseFloor
    moments: tuple[Moment, ...]
    prompts: tuple[PromptLine, ...]
    target: int | None = None
    looks: int = 0

    @property
    def filter(self) -> Filter:
        return self.selection.filter

    @property
    def collecting(self) -> bool:
        """Fewer votes than the study's target."""
        return self.target is not None and self.overall.tally.n < self.target


def report(
    votes: Votes,
    wanted: Filter,
    tuned: Side | None = None,
    target: int | None = None,
    looks: int = 0,
    best: Mapping[str, int] | None = None,
) -> Report:
    """All figures; about 0.3 s for 100,000 votes on one core. ``best`` marks by criterion, as a study asked them."""
    best = BEST if best is None else best
    chosen = select(votes, wanted)
    mine = chosen.votes
    overall, domains = rates.outcome(mine), rates.by_domain(mine)
    spoken = {"": overall} | (domains if len(domains) > 1 else {})
    claimed = rates.claims([found.rate for found in spoken.values()])
    everyone = votes if wanted.study_id is None else votes.where(votes.is_("study_id", wanted.study_id))
    seen = everyone.where(np.asarray(everyone.frame["blind"], dtype=bool)) if wanted.blind_only else everyone
    ranked = rank(seen) if len(seen.pairs()) > 1 else []
    return Report(
        selection=chosen,
        tuned=tuned,
        overall=overall,
        domains=domains,
        criteria=rates.by_criterion(mine, best),
        different=dict(zip(spoken, claimed, strict=True)),
        left=rates.left(mine),
        length=length_controlled(mine),
        ranks=tuple(ranked),
        alpha=agreement.vote_alpha(mine),
        marks={name: agreement.marks_alpha(mine, name) for name in mine.criteria if name in best},
        consistency=agreement.consistency(mine, chosen.repeats),
        noise=agreement.noise_floor(chosen.same),
        moments=moments(mine, overall.rate),
        prompts=by_prompt(mine),
        target=target,
        looks=looks,
    )


def moments(votes: Votes, overall: Rate) -> tuple[Moment, ...]:
    """The share as votes came in, at most _POINTS points; intervals as wide as the design effect of all votes makes them."""
    decided = votes.where(votes.decided)
    times = pd.to_datetime(decided.frame["created_at"].astype(str), format="ISO8601", utc=True, errors="coerce")
    known = times.notna().to_numpy()
    order = np.argsort(times.to_numpy("datetime64[ns]")[known], kind="stable")
    wins = np.cumsum(decided.wins("model_b")[known][order])
    stamps = times[known].iloc[order]
    quantile = t_quantile(overall.df)
    found = []
    for i in np.unique(np.linspace(0, len(wins) - 1, _POINTS).astype(int)) if len(wins) else ():
        n = int(i) + 1
        share = float(wins[i]) / n
        interval = rates.score_interval(share, n / overall.design_effect, quantile)
        found.append(Moment(stamps.iloc[i], n, share, interval))
    return tuple(found)


def by_prompt(votes: Votes) -> tuple[PromptLine, ...]:
    """Prompts, those where model_b did worst first; votes without a prompt_id are not here."""
    known = votes.where(~votes.is_("prompt_id", ""))
    if not len(known):
        return ()
    codes = known.prompts
    ids, domains, prompts = (np.asarray(known.frame[c], dtype=object) for c in ("rating_id", "domain", "prompt_id"))
    counts, first = [], []
    for winner in WINNERS:
        rows = np.flatnonzero(known.is_("winner", winner))
        counts.append(np.bincount(codes[rows], minlength=codes.max() + 1))
        place = np.full(codes.max() + 1, -1)
        place[codes[rows][::-1]] = rows[::-1]
        first.append(place)
    any_ = np.unique(codes, return_index=True)[1]
    lines = [
        PromptLine(
            str(prompts[any_[i]]),
            str(domains[any_[i]]),
            rates.Tally(*(int(found[i]) for found in counts)),
            won=str(ids[first[1][i]]) if first[1][i] >= 0 else "",
            lost=str(ids[first[0][i]]) if first[0][i] >= 0 else "",
            any=str(ids[any_[i]]),
        )
        for i in range(len(any_))
    ]
    return tuple(sorted(lines, key=lambda line: (line.balance, line.share if line.share is not None else 0.5)))


def sentences(found: Report, names: tuple[str, str]) -> list[Said]:
    """What may be said, the domains one by one when there are several; ``names`` of model_a and model_b."""
    if found.overall.tally.n == 0:
        return [Said("ratings.verdict.none", words={"where": where(found.filter.domain)})]
    if len(found.domains) < 2:
        domain = next(iter(found.domains), found.filter.domain)
        return [sentence(found.overall, domain, found.different[""], found.tuned, names)]
    said = [sentence(one, domain, found.different[domain], found.tuned, names) for domain, one in found.domains.items()]
    order = {"ratings.verdict.better": 0, "ratings.verdict.leaning": 1}
    said.sort(key=lambda one: order.get(one.key, 2))
    if found.different[""] and not any(found.different[domain] for domain in found.domains):
        return [sentence(found.overall, "", True, found.tuned, names), *said]
    return said


def sentence(found: Outcome, domain: str, different: bool, tuned: Side | None, names: tuple[str, str]) -> Said:
    """One figure in words. ``domain`` "" is overall; without ``tuned`` the models go by ``names``."""
    counts, place = found.tally, {"where": where(domain)}
    if counts.n == 0:
        return Said("ratings.verdict.none", words=place)
    if counts.decided == 0:
        return Said("ratings.verdict.undecided", {"n": counts.n}, place)
    values: dict[str, object] = {"decided": counts.decided}
    if counts.decided < rates.MINIMUM_DECIDED:
        return Said("ratings.verdict.few", values | {"minimum": rates.MINIMUM_DECIDED}, place)
    side: Side = "model_b" if counts.wins_b > counts.wins_a else "model_a"
    share = found.share(side)
    if different or share.excludes_half:
        low, high = share.interval or (0.0, 1.0)
        values |= {"percent": percent(share.rate or 0.0), "low": percent(low), "high": percent(high)}
        return Said(
            f"ratings.verdict.{'better' if different else 'leaning'}", values, place | {"who": who(side, tuned, names)}
        )
    more = found.needed
    easily = rates.decided_needed(share.rate or 0.5)
    if more is None or easily is None or easily > rates.MOST_NEEDED:
        return Said("ratings.verdict.even", values, place)
    return Said("ratings.verdict.open", values | {"more": about(min(max(more, 1), rates.MOST_NEEDED))}, place)


def notes(found: Report) -> list[Said]:
    """What a reader has to know before believing the sentence."""
    said = []
    if found.collecting:
        said.append(Said("stats.note.collecting", {"n": found.overall.tally.n, "target": found.target}))
    elif found.looks:
        said.append(Said("stats.note.looked", {"n": found.looks}))
    if found.overall.rate.raters == 1 and found.overall.rate.n > 1:
        said.append(Said("stats.note.one_rater"))
    elif 1 < found.overall.rate.raters < FEW_RATERS:
        said.append(Said("stats.note.few_raters", {"n": found.overall.rate.raters}))
    if found.left.n >= rates.MINIMUM_DECIDED and found.left.excludes_half and found.left.p < 0.05:
        said.append(Said("stats.note.sides", {"percent": percent(found.left.rate or 0.0)}))
    return said


def counted(found: Report) -> Said:
    """Which votes the win rate counts."""
    counts = found.overall.tally
    return Said(
        "stats.counted",
        {"n": counts.n, "decided": counts.decided, "ties": counts.ties, "both_bad": counts.both_bad},
    )


def method(found: Rate) -> Said:
    """How the interval was made."""
    values = {
        "prompts": found.prompts,
        "raters": found.raters,
        "effect": f"{found.design_effect:.1f}",
        "effective": round(found.n / found.design_effect) if found.n else 0,
    }
    return Said(f"stats.method.{found.method}", values)


def where(domain: str) -> tuple[str, Mapping[str, object]]:
    if domain in ("", *DOMAINS):
        return f"ratings.where.{domain or 'overall'}", {}
    return "ratings.where.other", {"domain": domain}


def who(side: Side, tuned: Side | None, names: tuple[str, str]) -> tuple[str, Mapping[str, object]]:
    if tuned is None:
        return "ratings.who.named", {"name": names[side == "model_b"]}
    return ("ratings.who.tuned" if side == tuned else "ratings.who.base"), {}


def percent(share: float) -> int:
    return math.floor(100 * share + 0.5)


def about(number: int) -> int:
    """Rounded up to two figures, for a number that is an estimate."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return max(1, math.ceil(number / step) * step)
