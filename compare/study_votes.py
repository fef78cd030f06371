"""The votes of a study as they stand now, followed row by row in ratings.csv.

Covers: each rater's votes in order, undo and withdrawal, what was appended since the last look. Does not cover: what the
votes say (the results), lists (study_plan.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from compare.ratings import LightVote, Mark, RatingsFile


@dataclass
class RaterVotes:
    """One rater's rows: the first of each id in ``votes``, what was taken back in ``taken`` (id -> action)."""

    votes: dict[str, LightVote] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)

    def live(self) -> list[LightVote]:
        """Votes that stand, in the order they were given."""
        return [vote for rating_id, vote in list(self.votes.items()) if rating_id not in self.taken]

    def stands(self, rating_id: str) -> bool:
        return rating_id in self.votes and rating_id not in self.taken

    def count(self, action: str) -> int:
        """How many votes were taken back by ``action``."""
        return sum(self.taken.get(rating_id) == action for rating_id in list(self.votes))


class StudyVotes:
    """A study's rows by rater, up to date after ``refresh``. Thread-safe."""

    def __init__(self, ratings: RatingsFile, study_id: str) -> None:
        self._ratings = ratings
        self._study_id = study_id
        self._mark = Mark()
        self._raters: dict[str, RaterVotes] = {}
        self._guard = threading.Lock()

    def refresh(self) -> StudyVotes:
        with self._guard:
            self._mark, anew, rows = self._ratings.since(self._mark, self._study_id)
            if anew:
                self._raters = {}
            for row in rows:
                mine = self._raters.setdefault(row.rater, RaterVotes())
                if row.action == "vote":
                    mine.votes.setdefault(row.rating_id, row)
                elif mine.taken.get(row.target_rating_id) != "withdraw":
                    mine.taken[row.target_rating_id] = row.action
        return self

    def of(self, rater: str) -> RaterVotes:
        return self._raters.get(rater) or RaterVotes()

    def all(self) -> Iterator[tuple[str, RaterVotes]]:
        """(rater, votes) of everyone who voted in this study."""
        return ((rater, votes) for rater, votes in list(self._raters.items()) if votes.votes)
