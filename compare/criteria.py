"""What a rater is asked beside the choice: criteria per domain, as data.

Covers: scales, their best value, the keys of label, question and anchors in the strings. Does not cover: the choice
between the two answers (trial.py).

Empathy has "too much" at one end and its best value in the middle: Korean answers tend to over-empathise, and a scale
on which more is better would reward it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assets.errors import UserError

DOMAINS = ("emotion", "science", "general")


@dataclass(frozen=True)
class Criterion:
    """A whole-number scale from ``low`` to ``high``; ``best`` is where a perfect answer stands."""

    key: str
    low: int = 1
    high: int = 5
    best: int = 5

    @property
    def label(self) -> str:
        return f"ratings.criteria.{self.key}"

    @property
    def question(self) -> str:
        return f"ratings.criteria.{self.key}.question"

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(range(self.low, self.high + 1))

    def anchor(self, value: int) -> str:
        """The key of what ``value`` means."""
        return f"ratings.criteria.{self.key}.{value}"


CRITERIA: Mapping[str, tuple[Criterion, ...]] = {
    "emotion": (Criterion("empathy", low=-2, high=2, best=0), Criterion("naturalness"), Criterion("fluency")),
    "science": (Criterion("correctness"), Criterion("clarity")),
    "general": (Criterion("helpfulness"),),
}


def criteria_for(domain: str) -> tuple[Criterion, ...]:
    """The criteria of a domain; those of "general" for one that we do not know."""
    return CRITERIA.get(domain, CRITERIA["general"])


def check_marks(domain: str, marks: Mapping[str, float]) -> None:
    """UserError unless every mark belongs to the domain and is a whole number on its scale. None is required."""
    known = {criterion.key: criterion for criterion in criteria_for(domain)}
    for key, mark in marks.items():
        if key not in known:
            raise UserError("ratings.unknown_criterion", criterion=key, domain=domain)
        if type(mark) is not int or mark not in known[key].values:
            raise UserError("ratings.off_scale", value=mark, low=known[key].low, high=known[key].high)
