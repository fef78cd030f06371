"""How far people agree with each other and with themselves, and how much they choose between equals.

Covers: Krippendorff's alpha for the vote (nominal) and for a criterion's marks (ordinal) with a bootstrap interval, how
many answers pairs of raters share, each rater's self-consistency on repeats with the sides swapped, the noise floor
from pairs of answers by one model. Does not cover: what to do about it; low agreement on empathy is a finding.

Alpha after Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": 1 - D_o / D_e from the coincidences of
values within units; units with one value take no part. When everybody always gives the same value, D_e is 0 and alpha
is 0 / 0: undefined, None here. The interval resamples units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compare.rating import WINNERS
from compare.stats_rates import Interval, Rate, left, tally, wilson
from compare.stats_votes import Codes, Floats, Votes

Level = Literal["nominal", "ordinal"]
RESAMPLES = 1000
_SIDES: tuple[Literal["model_a", "model_b"], ...] = ("model_a", "model_b")


@dataclass(frozen=True)
class Alpha:
    """``alpha`` and ``interval`` are None where undefined; ``units`` seen by two or more raters, ``values`` in them."""

    level: Level
    units: int
    values: int
    raters: int
    alpha: float | None = None
    interval: Interval | None = None

    @property
    def unanimous(self) -> bool:
        """There were units to compare, and one value in all of them."""
        return self.units > 0 and self.alpha is None


@dataclass(frozen=True)
class Consistency:
    """Repeats with the sides swapped: of ``n``, how many got the same answer chosen again; by rater, (same, n)."""

    same: int
    n: int
    interval: Interval | None
    raters: Mapping[str, tuple[int, int]]

    @property
    def rate(self) -> float | None:
        return self.same / self.n if self.n else None


@dataclass(frozen=True)
class NoiseFloor:
    """Pairs of answers by one model. ``decided`` of ``n`` votes preferred one all the same; ``left`` where it stood."""

    n: int
    decided: int
    interval: Interval | None
    left: Rate

    @property
    def rate(self) -> float | None:
        return self.decided / self.n if self.n else None


def units(votes: Votes) -> Codes:
    """Which votes looked at the same answers: the item, or study, prompt and pair; a vote without any stands alone."""
    shown = np.where(votes.is_("item_id", ""), votes.codes("prompt_id"), -1 - votes.codes("item_id"))
    table = pd.DataFrame({name: votes.codes(name) for name in ("study_id", "model_a", "model_b")} | {"shown": shown})
    codes = np.array(table.groupby(list(table)).ngroup(), dtype=np.int64)
    alone = votes.is_("item_id", "") & (votes.is_("study_id", "") | votes.is_("prompt_id", ""))
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes


def vote_alpha(votes: Votes, seed: int = 0) -> Alpha:
    """Agreement on the choice among the four; each rater's first vote on a unit."""
    values = np.full(len(votes), -1, np.int64)
    for code, winner in enumerate(WINNERS):
        values[votes.is_("winner", winner)] = code
    return alpha(units(votes), votes.raters, values, "nominal", seed)


def marks_alpha(votes: Votes, criterion: str, seed: int = 0) -> Alpha:
    """Agreement on one criterion's marks; each answer of a pair is a unit."""
    both = np.concatenate([votes.marks(criterion, side) for side in _SIDES])
    seen, raters = units(votes), votes.raters
    given = ~np.isnan(both)
    codes = np.full(len(both), -1, np.int64)
    codes[given] = np.unique(both[given], return_inverse=True)[1]
    count = int(seen.max(initial=-1)) + 1
    return alpha(np.concatenate([seen, seen + count]), np.tile(raters, 2), codes, "ordinal", seed)


def alpha(unit: Codes, rater: Codes, value: Codes, level: Level, seed: int = 0) -> Alpha:
    """Alpha of values 0, 1, … in ascending order, -1 for none; a rater's second value for a unit is not used."""
    table = pd.DataFrame({"unit": unit, "rater": rater, "value": value})
    table = table[table["value"] >= 0].drop_duplicates(["unit", "rater"])
    table = table[table.groupby("unit")["unit"].transform("size") >= 2]
    if table.empty:
        return Alpha(level, 0, 0, 0)
    rows = np.unique(table["unit"], return_inverse=True)[1]
    columns = np.unique(table["value"], return_inverse=True)[1]
    counts = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(counts, (rows, columns), 1)
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    pairs = _coincidences(kinds).reshape(len(kinds), -1)
    known = len(rows), int(table["rater"].nunique())
    point = _alphas((times[None, :].astype(float) @ pairs), level)[0]
    if np.isnan(point):
        return Alpha(level, len(counts), *known)
    drawn = np.random.default_rng(seed).multinomial(len(counts), times / times.sum(), RESAMPLES)
    found = _alphas(drawn.astype(float) @ pairs, level)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Alpha(level, len(counts), *known, float(point), (float(low), float(high)))


def _coincidences(counts: Floats) -> NDArray[np.float64]:
    """(units, k) numbers of values -> (units, k, k) coincidences, each unit's pairs weighted by 1 / (m - 1)."""
    pairs = counts[:, :, None] * counts[:, None, :]
    k = counts.shape[1]
    pairs[:, np.arange(k), np.arange(k)] -= counts
    weighted: Floats = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    return weighted


def _alphas(coincidences: Floats, level: Level) -> Floats:
    """(resamples, k * k) -> (resamples,), NaN where the expected disagreement is 0."""
    k = round(coincidences.shape[1] ** 0.5)
    observed = coincidences.reshape(-1, k, k)
    totals = observed.sum(axis=2)
    n = totals.sum(axis=1)
    distance = _ordinal(totals) if level == "ordinal" else np.broadcast_to(1 - np.eye(k), observed.shape)
    did = (observed * distance).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(1, 2)) / (n - 1)
    found: Floats = 1 - np.divide(did, expected, out=np.full(len(did), np.nan), where=expected > 0)
    return found


def _ordinal(totals: Floats) -> NDArray[np.float64]:
    """Squared number of values from one rank to the other, half of each end's."""
    upto = np.cumsum(totals, axis=1) - totals / 2
    return np.asarray((upto[:, :, None] - upto[:, None, :]) ** 2)


def consistency(votes: Votes, repeats: Votes) -> Consistency:
    """Each repeat against the same rater's own vote on the same answers."""
    near = votes.where(np.asarray(votes.frame["prompt_id"].isin(repeats.frame["prompt_id"].unique()), dtype=bool))
    both = Votes(pd.concat([part.frame.astype(object) for part in (near, repeats)], ignore_index=True))
    frame = both.frame.assign(unit=units(both))
    first = frame[: len(near)].drop_duplicates(["unit", "rater"])
    again = frame[len(near) :].drop_duplicates(["unit", "rater"])
    met = again.merge(first, on=["unit", "rater"], suffixes=("", "_first"))
    agreed = met["winner"].astype(str) == met["winner_first"].astype(str)
    by = agreed.groupby(met["rater"].astype(str)).agg(["sum", "size"])
    raters = {str(rater): (int(same), int(n)) for rater, same, n in by.itertuples()}
    return Consistency(int(agreed.sum()), len(met), wilson(int(agreed.sum()), len(met)), raters)


def noise_floor(same: Votes) -> NoiseFloor:
    """How often one of two answers by the same model is preferred."""
    counts = tally(same)
    return NoiseFloor(counts.n, counts.decided, wilson(counts.decided, counts.n), left(same))
