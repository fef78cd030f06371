"""A work with models that goes on behind the pages: begun by any page, seen and stopped by all.

Covers: one at a time and its thread, how far it is, stopping it whether it loads or answers, how it ended, the pair it
needs. Does not cover: what it does (study_maker.py, changes_measure.py), loading itself (desk.py).
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from assets.errors import UserError
from compare.desk import Candidate, Desk, Loading, Pair, Ticket
from compare.study_store import Studies

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What is going on in one study. ``loading`` while models are read; ``error`` is what ended it."""

    study_id: str
    running: bool = True
    stopping: bool = False
    loading: Loading | None = None
    error: Exception | None = None


W = TypeVar("W", bound=Work)


@dataclass
class DeskWork(Generic[W]):
    """Thread-safe; one of each kind for the process."""

    studies: Studies
    desk: Desk
    _work: W | None = None
    _ticket: Ticket = field(default_factory=Ticket)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> bool:
        """Whether any of it is going on."""
        return self._work is not None and self._work.running

    def stop(self, study_id: str) -> None:
        """End this study's now; what is on disk by now stays."""
        with self._guard:
            if self._work is None or self._work.study_id != study_id or not self._work.running:
                return
            self._work = replace(self._work, stopping=True)
            loading = self._work.loading
        self.desk.cancel(self._ticket)
        if loading is not None and not loading.ended:
            self.desk.cancel_loading()

    def _begin(self, work: W, run: Callable[[Ticket], None]) -> None:
        """``run`` in a thread, as ``work``; the caller holds the guard and has seen that nothing runs."""
        self._work, self._ticket = work, Ticket()
        name = type(self).__name__.lower()
        whole = partial(contextvars.copy_context().run, self._whole, run, self._ticket)  # in the name of who asked
        threading.Thread(target=whole, name=name, daemon=True).start()

    def _whole(self, run: Callable[[Ticket], None], ticket: Ticket) -> None:
        error: Exception | None = None
        try:
            run(ticket)
        except UserError as known:
            error = None if ticket.cancelled and known.key == "engine.load_cancelled" else known
        except Exception as unexpected:
            log.exception("%s failed", type(self).__name__)
            error = unexpected
        self._put(running=False, loading=None, error=error)

    def _put(self, **changes: Any) -> None:
        with self._guard:
            if self._work is not None:
                self._work = replace(self._work, **changes)

    def _pair(self, wanted: tuple[Candidate, Candidate], together: Callable[[], bool]) -> Pair:
        """The loaded pair if it is of these two, else ``wanted``, loaded; ``together`` says whether both fit at once.

        What ended the loading is raised; UserError("compare.pair_changed") when another took its place.
        """
        loaded = self.desk.pair
        models = {candidate.model for candidate in wanted}
        if loaded is not None and models == {candidate.model for candidate in loaded.candidates}:
            return loaded
        self.desk.load(*wanted, together())
        for loading in self.desk.follow():
            self._put(loading=loading)
            if loading.ended and loading.error is not None:
                raise loading.error
        pair = self.desk.pair
        if pair is None:
            raise UserError("compare.pair_changed")
        return pair
