"""Making a study's answers behind the pages: it goes on when the page is closed, and can be stopped from any.

Covers: one study at a time, loading the pairs it needs one after the other, how far it is, stopping. Does not cover:
asking for answers (study_make.py), the line in front of the engine (desk.py). What has been made is on disk, so that
after a restart of the app the same button goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from assets.errors import UserError
from compare.desk import Candidate, Ticket
from compare.desk_work import DeskWork, Work
from compare.study import Study
from compare.study_items import missing
from compare.study_make import Making, generate, next_candidates

Together = Callable[[Candidate, Candidate], bool]


@dataclass(frozen=True)
class MakingWork(Work):
    """``making`` is how far the answers are."""

    making: Making | None = None


@dataclass
class Maker(DeskWork[MakingWork]):
    """Makes what is missing of one study's answers."""

    def work(self, study_id: str) -> MakingWork | None:
        """The last or present work on this study in this process."""
        found = self._work
        return found if found is not None and found.study_id == study_id else None

    def start(self, study_id: str, together: Together = lambda first, second: True) -> None:
        """Begin or go on. ``together`` says whether two fit into memory at once; else they answer in turn.

        UserError("studies.making_other") while another study is being made here.
        """
        study = self.studies.get(study_id)
        with self._guard:
            if self.running and self._work is not None:
                if self._work.study_id == study_id:
                    return
                raise UserError("studies.making_other", name=self.studies.get(self._work.study_id).name)
            self._begin(MakingWork(study_id), lambda ticket: self._all(study, ticket, together))

    def _all(self, study: Study, ticket: Ticket, together: Together) -> None:
        items = self.studies.items(study.id)
        left = -1
        while (wanted := next_candidates(study, items.read())) and not ticket.cancelled:
            before, left = left, len(missing(study, items.read()))
            if left == before:
                return  # some prompts get no answer; the last Making tells which
            pair = self._pair(wanted, partial(together, *wanted))
            for making in generate(self.studies, study.id, self.desk, pair, ticket):
                self._put(loading=None, making=making)
