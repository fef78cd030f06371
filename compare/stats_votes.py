"""Votes as columns, and which of them a figure may count.

Covers: the table that every statistic reads, one pair turned so that model_a and model_b are the pair's, why the other
votes are left out. Does not cover: the figures (stats_rates.py and its neighbours), the file (ratings.py).

Columns (text unless noted): rating_id, study_id, item_id, kind, rater, domain, prompt_id, model_a, model_b, left_is,
winner, blind (bool), criteria (the JSON cell), length_a, length_b (characters, int), created_at (ISO 8601).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compare.rating import Rating, Side

COLUMNS = (
    "rating_id", "study_id", "item_id", "kind", "rater", "domain", "prompt_id", "model_a", "model_b", "left_is",
    "winner", "blind", "criteria", "length_a", "length_b", "created_at",
)  # fmt: skip
# In the order in which a reason is given to a vote that several apply to.
REASONS = ("practice", "aa", "repeat", "other_models", "other_study", "not_blind", "other_domain")

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Votes:
    """A table with COLUMNS, undo and withdrawal already applied. ValueError when a column is missing."""

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = set(COLUMNS) - set(self.frame.columns)
        if missing:
            raise ValueError(f"columns missing: {', '.join(sorted(missing))}")

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, mask: Mask) -> Votes:
        return Votes(self.frame[mask])

    def is_(self, column: str, *values: str) -> Mask:
        """Which rows hold one of ``values``."""
        found = self.frame[column] == values[0] if len(values) == 1 else self.frame[column].isin(values)
        return np.asarray(found, dtype=bool)

    def codes(self, column: str) -> Codes:
        """0, 1, … by order of first appearance."""
        return np.asarray(pd.factorize(self.frame[column])[0], dtype=np.int64)

    @cached_property
    def prompts(self) -> Codes:
        """Which votes are on one prompt; a vote without a prompt_id stands alone."""
        codes, alone = self.codes("prompt_id"), self.is_("prompt_id", "")
        codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
        return codes

    @cached_property
    def raters(self) -> Codes:
        return self.codes("rater")

    @cached_property
    def decided(self) -> Mask:
        return self.is_("winner", "model_a", "model_b")

    def wins(self, side: Side) -> Floats:
        """1 where ``side`` won, 0 elsewhere, for every vote."""
        return self.is_("winner", side).astype(float)

    def marks(self, criterion: str, side: Side) -> Floats:
        """The marks of one criterion, NaN where none was given."""
        texts = self.frame["criteria"]
        parsed = {text: _mark(text, criterion, side) for text in texts.unique()}
        return np.asarray(texts.map(parsed), dtype=float)

    @cached_property
    def criteria(self) -> tuple[str, ...]:
        """The criteria that anybody marked, by name."""
        found = {key for text in self.frame["criteria"].unique() for side in _criteria(text).values() for key in side}
        return tuple(sorted(found))

    def domains(self) -> tuple[str, ...]:
        """Most votes first."""
        return tuple(str(name) for name in self.frame["domain"].value_counts(sort=True).index)

    def pairs(self) -> list[tuple[str, str, int]]:
        """The pairs of different models with their number, most votes first; (x, y) and (y, x) are one pair."""
        counts: dict[tuple[str, str], int] = {}
        sizes = self.frame.groupby(["model_a", "model_b"], sort=False, observed=True).size()
        for (a, b), n in cast("Iterable[tuple[tuple[str, str], int]]", sizes.items()):
            if a != b:
                key = (b, a) if (b, a) in counts else (a, b)
                counts[key] = counts.get(key, 0) + int(n)
        return sorted(((a, b, n) for (a, b), n in counts.items()), key=lambda found: -found[2])


def from_frame(frame: pd.DataFrame) -> Votes:
    """The columns of a table that may hold more, text columns as categories or not (``RatingsTable.frame``)."""
    frame = frame[list(COLUMNS)].copy(deep=False)
    models = frame["model_a"], frame["model_b"]
    if any(isinstance(column.dtype, pd.CategoricalDtype) for column in models):
        names = pd.Index(pd.unique(pd.concat([pd.Series(column.unique(), dtype=object) for column in models])))
        for column in models:
            frame[column.name] = column.astype(pd.CategoricalDtype(names))
    return Votes(frame)


def from_ratings(ratings: Iterable[Rating]) -> Votes:
    """The columns of full rows; rows that are no votes are passed over."""
    rows = [_row(rating) for rating in ratings if rating.action == "vote"]
    return Votes(pd.DataFrame(rows, columns=pd.Index(COLUMNS)))


def _row(rating: Rating) -> tuple[Any, ...]:
    given: dict[str, Any] = {
        "criteria": json.dumps(rating.criteria, sort_keys=True) if rating.criteria else "",
        "length_a": len(rating.response_a),
        "length_b": len(rating.response_b),
    }
    return tuple(given[name] if name in given else getattr(rating, name) for name in COLUMNS)


def _criteria(text: str) -> Mapping[str, Mapping[str, float]]:
    return json.loads(text) if text else {}


def _mark(text: str, criterion: str, side: Side) -> float:
    return float(_criteria(text).get(side, {}).get(criterion, np.nan))


@dataclass(frozen=True)
class Filter:
    """Which votes to look at. ``study_id`` None is all studies, "" votes outside of any; "" as ``domain`` is all."""

    pair: tuple[str, str]
    study_id: str | None = None
    domain: str = ""
    blind_only: bool = True


@dataclass(frozen=True)
class Selection:
    """``votes`` count; ``repeats`` and ``same`` tell how far to trust them; ``left_out`` counts the rest by reason."""

    filter: Filter
    votes: Votes
    repeats: Votes
    same: Votes
    left_out: Mapping[str, int] = field(default_factory=dict)


def select(votes: Votes, wanted: Filter) -> Selection:
    """The votes on a pair that a win rate may count, each with model_a and model_b as in ``wanted.pair``.

    Left out, with their number: practice, aa (a model against itself), repeat (a second look at an item is no new
    vote), other_models, other_study, not_blind, other_domain.
    """
    first, second = wanted.pair
    same = votes.is_("kind", "aa") | np.asarray(votes.frame["model_a"] == votes.frame["model_b"], dtype=bool)
    turned = votes.is_("model_a", second) & votes.is_("model_b", first)
    ours = turned | (votes.is_("model_a", first) & votes.is_("model_b", second))
    elsewhere = np.zeros(len(votes), bool) if wanted.study_id is None else ~votes.is_("study_id", wanted.study_id)
    seen = ~np.asarray(votes.frame["blind"], dtype=bool) if wanted.blind_only else np.zeros(len(votes), bool)
    other = ~votes.is_("domain", wanted.domain) if wanted.domain else np.zeros(len(votes), bool)
    repeat = votes.is_("kind", "repeat")
    why = (votes.is_("kind", "practice"), same, repeat, ~ours, elsewhere, seen, other)
    reason = np.select(why, list(range(1, len(why) + 1)), 0)
    counts = np.bincount(reason, minlength=len(why) + 1)[1:]
    near = ~(elsewhere | seen | other)
    mine = same & near & votes.is_("model_a", first, second)
    return Selection(
        wanted,
        _straight(votes, turned, reason == 0),
        _straight(votes, turned, repeat & ours & near),
        votes.where(mine),
        {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n},
    )


_TURNING = ("model_a", "model_b", "left_is", "winner", "criteria")


def _straight(votes: Votes, turned: Mask, kept: Mask) -> Votes:
    """The kept votes, the turned ones among them turned back."""
    frame = votes.frame[kept]
    back = turned[kept]
    if not back.any():
        return Votes(frame)
    frame = frame.astype({name: object for name in _TURNING})
    swap = {"model_a": "model_b", "model_b": "model_a"}
    part = frame[back]
    for one, other in (("model_a", "model_b"), ("length_a", "length_b")):
        frame[one] = frame[one].where(~back, part[other].reindex(frame.index))
        frame[other] = frame[other].where(~back, part[one].reindex(frame.index))
    for column in ("left_is", "winner"):
        frame[column] = frame[column].where(~back, part[column].map(lambda side: swap.get(side, side)))
    frame["criteria"] = frame["criteria"].where(~back, part["criteria"].map(_exchanged))
    return Votes(frame)


def _exchanged(text: str) -> str:
    given = _criteria(text)
    swapped = {"model_a": given.get("model_b"), "model_b": given.get("model_a")}
    return json.dumps({side: marks for side, marks in swapped.items() if marks}, sort_keys=True) if given else ""
