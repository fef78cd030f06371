"""Measuring what tuning changed over a study's prompts, behind the pages: it goes on when the page is closed.

Covers: one study at a time, loading its two models where they are not, a prompt at a time in the line with everybody
else, how far it is, stopping within one piece of an answer. What was measured is on disk, so that the same button goes
on. Does not cover: the figures (local_engine_group.py), the records (changes_set.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from assets.errors import UserError
from compare import changes_set
from compare.changes_set import Measured, Sides
from compare.desk import KEYS, Pair, Ticket
from compare.desk_work import DeskWork, Work
from compare.study import Study, StudyPrompt

FAILURES = 3  # so many prompts in a row that cannot be measured mean that something is wrong with the models


@dataclass(frozen=True)
class Measuring(Work):
    """``seconds_left`` is None until one prompt was measured; ``failed`` are prompts that could not be measured."""

    sides: Sides = Sides("", "")
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    failed: tuple[str, ...] = ()


@dataclass
class Measurer(DeskWork[Measuring]):
    """``busy`` says whether answers are being made, which comes first."""

    busy: Callable[[], bool] = lambda: False

    def work(self, study_id: str, sides: Sides) -> Measuring | None:
        """The last or present work on these two models in this process."""
        found = self._work
        return found if found is not None and (found.study_id, found.sides) == (study_id, sides) else None

    def start(self, study_id: str, sides: Sides) -> None:
        """Begin or go on. UserErrors: "changes.busy" while another work needs the models, "changes.no_answers"."""
        study = self.studies.get(study_id)
        if sides not in changes_set.sides_of(study):
            raise UserError("changes.no_answers")
        answers = self.studies.items(study_id).read()
        prompts = changes_set.ready(study, answers, sides)
        if not prompts:
            raise UserError("changes.no_answers")
        with self._guard:
            if self.running and self.work(study_id, sides) is not None:
                return
            if self.running or self.busy():
                raise UserError("changes.busy")
            work = Measuring(study_id, sides=sides, total=len(prompts))
            self._begin(work, lambda ticket: self._all(study, sides, ticket))

    def _all(self, study: Study, sides: Sides, ticket: Ticket) -> None:
        folder, answers = self.studies.folder(study.id), self.studies.items(study.id).read()
        prompts = changes_set.ready(study, answers, sides)
        known = changes_set.read(folder, study, answers, sides)
        left = [prompt for prompt in prompts if prompt.id not in known]
        self._put(done=len(known), total=len(prompts))
        wanted = study.arm(sides.base).candidate(), study.arm(sides.tuned).candidate()
        paces: list[float] = []
        failed: list[str] = []
        in_a_row = 0
        for number, prompt in enumerate(left):
            pair = self._pair(wanted, lambda: True)
            self._put(loading=None)
            began = time.monotonic()
            try:
                found = self._measure(study, sides, prompt, pair, ticket)
            except UserError as error:
                failed, in_a_row = [*failed, prompt.id], in_a_row + 1
                self._put(failed=tuple(failed))
                if in_a_row == FAILURES:
                    raise error
                continue
            if found is None or ticket.cancelled:
                return
            in_a_row = 0
            changes_set.append(folder, found)
            paces.append(time.monotonic() - began)
            done = len(known) + len(paces)
            self._put(done=done, seconds_left=median(paces) * (len(left) - number - 1))

    def _measure(self, study: Study, sides: Sides, prompt: StudyPrompt, pair: Pair, ticket: Ticket) -> Measured | None:
        answers = self.studies.items(study.id).read()
        models = {candidate.model: key for key, candidate in zip(KEYS, pair.candidates, strict=True)}
        keys = {key: models[study.arm(key).model] for key in (sides.base, sides.tuned)}
        found = self.desk.changes(pair, ticket, changes_set.ask(study, answers, sides, prompt, keys))
        if found is None:
            return None
        return Measured(prompt.id, sides, changes_set.sign(study, answers, sides, prompt), found)
