"""What pages get of a study: values for raters that hold no name, and values for its owner.

Covers: the values. Does not cover: filling them (study_serve.py, study_progress.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compare.rating import Message
from compare.study import StudyQuestion

# What a rater may do next.
STAGES = ("not_open", "consent", "practice", "rating", "done", "withdrawn", "closed")


@dataclass(frozen=True)
class Seat:
    """Someone with a link."""

    study_id: str
    rater: str
    number: int
    language: str


@dataclass(frozen=True)
class Welcome:
    """The first page. ``total`` items come after ``practice`` ones; ``done`` of them have a vote."""

    title: str
    consent: str
    rubric: str
    minutes: float
    total: int
    practice: int
    done: int
    language: str
    stage: str


@dataclass(frozen=True)
class Served:
    """One comparison: all that a page may show of it. ``token`` is opaque; ``number`` of ``total`` counts practice
    items by themselves while ``practice`` is set. ``turns`` end with the question."""

    token: str
    number: int
    total: int
    practice: bool
    domain: str
    turns: tuple[Message, ...]
    left: str
    right: str
    reference: str | None
    questions: tuple[StudyQuestion, ...]
    can_undo: bool


@dataclass(frozen=True)
class Finished:
    """The end of a list. ``code`` is the completion code; ``may_reveal`` when the owner shows names now."""

    code: str
    votes: int
    may_reveal: bool


@dataclass(frozen=True)
class Revealed:
    """Who stood where in a vote; ``choice`` is "left", "right", "tie" or "both_bad", ``kind`` as in ratings.csv."""

    number: int
    kind: str
    left: str
    right: str
    choice: str


@dataclass(frozen=True)
class RaterProgress:
    """One rater, for the owner. ``same_choice_share`` is the share of the choice most often made on the screen,
    ``longest_run`` how many times in a row one choice was made; ``flags`` are keys of sentences; ``code`` is the
    completion code once the list is done."""

    number: int
    rater: str
    stage: str
    done: int
    total: int
    median_seconds: float | None
    minutes_left: float | None
    same_choice_share: float | None
    longest_run: int
    undone: int
    last_at: str
    flags: tuple[str, ...]
    code: str = ""


@dataclass(frozen=True)
class Progress:
    """A study, for the owner: the count against the target and no result. ``choices`` counts by place on the screen;
    ``elsewhere`` are votes that came from other instances (they are in ``votes`` too)."""

    votes: int
    target: int
    raters: tuple[RaterProgress, ...]
    undone: int
    withdrawn: int
    elsewhere: int
    choices: Mapping[str, int]
    looks: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Estimate:
    """Before starting. ``votes_per_rater`` count towards the target, ``items_per_rater`` are all on a list;
    ``detectable`` is the smallest true win rate that ``decided`` votes tell from one half."""

    minutes_per_rater: float
    items_per_rater: int
    votes_per_rater: int
    raters_needed: int
    decided: int
    detectable: float | None
