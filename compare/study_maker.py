"""Making a study's answers behind the pages: it goes on when the page is closed, and can be stopped from any.

Covers: one study at a time, loading the pairs it needs one after the other, how far it is, stopping. Does not cover:
asking for answers (study_make.py), the line in front of the engine (desk.py). What has been made is on disk, so that
after a restart of the app the same button goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from assets.errors import UserError
from compare.desk import Candidate, Desk, Loading, Pair, Ticket
from compare.pair_loading import loaded_pair
from compare.study import Study
from compare.study_items import missing
from compare.study_make import Making, generate, next_candidates
from compare.study_store import Studies

log = logging.getLogger(__name__)
Together = Callable[[Candidate, Candidate], bool]


@dataclass(frozen=True)
class Work:
    """What is going on. ``loading`` while models are read, then ``making``; ``error`` is what ended it."""

    study_id: str
    running: bool = True
    stopping: bool = False
    loading: Loading | None = None
    making: Making | None = None
    error: Exception | None = None


@dataclass
class Maker:
    """Thread-safe; one for the process."""

    studies: Studies
    desk: Desk
    _work: Work | None = None
    _ticket: Ticket = field(default_factory=Ticket)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> bool:
        """Whether answers of any study are being made."""
        return self._work is not None and self._work.running

    def work(self, study_id: str) -> Work | None:
        """The last or present work on this study in this process."""
        found = self._work
        return found if found is not None and found.study_id == study_id else None

    def start(self, study_id: str, together: Together = lambda first, second: True) -> None:
        """Begin or go on. ``together`` says whether two fit into memory at once; else they answer in turn.

        UserError("studies.making_other") while another study is being made here.
        """
        study = self.studies.get(study_id)
        with self._guard:
            if self._work is not None and self._work.running:
                if self._work.study_id == study_id:
                    return
                raise UserError("studies.making_other", name=self.studies.get(self._work.study_id).name)
            self._work, self._ticket = Work(study_id), Ticket()
        threading.Thread(target=self._run, args=(study, self._ticket, together), name="make-study", daemon=True).start()

    def stop(self, study_id: str) -> None:
        """End after the answers that are whole by now; those stay."""
        with self._guard:
            if self._work is None or self._work.study_id != study_id or not self._work.running:
                return
            self._work = replace(self._work, stopping=True)
            loading = self._work.loading
        self.desk.cancel(self._ticket)
        if loading is not None and not loading.ended:
            self.desk.cancel_loading()

    def _run(self, study: Study, ticket: Ticket, together: Together) -> None:
        error: Exception | None = None
        try:
            self._all(study, ticket, together)
        except UserError as known:
            error = None if ticket.cancelled and known.key == "engine.load_cancelled" else known
        except Exception as unexpected:
            log.exception("making the answers of a study failed")
            error = unexpected
        self._put(running=False, loading=None, error=error)

    def _all(self, study: Study, ticket: Ticket, together: Together) -> None:
        items = self.studies.items(study.id)
        left = -1
        while (wanted := next_candidates(study, items.read())) and not ticket.cancelled:
            before, left = left, len(missing(study, items.read()))
            if left == before:
                return  # some prompts get no answer; the last Making tells which
            pair = self._pair(wanted, together)
            for making in generate(self.studies, study.id, self.desk, pair, ticket):
                self._put(loading=None, making=making)

    def _pair(self, wanted: tuple[Candidate, Candidate], together: Together) -> Pair:
        """The loaded pair if it can give what is missing, else ``wanted``, loaded."""
        return loaded_pair(self.desk, wanted, lambda: together(*wanted), lambda loading: self._put(loading=loading))

    def _put(self, **changes: object) -> None:
        with self._guard:
            if self._work is not None:
                self._work = replace(self._work, **changes)  # type: ignore[arg-type]
