"""Looking after runs elsewhere while the app is open, whoever has the page open.

Covers: one thread that asks each active run's place from time to time, and ends when there is none. Does not cover: what
is asked (remote_jobs.py, remote_cluster.py). Nothing depends on it: after a restart it goes on from what is on disk.
"""

from __future__ import annotations

import logging
import threading

from assets.errors import UserError
from finetune.runner import Runners

EVERY = 15.0
log = logging.getLogger(__name__)


class Attendant:
    """``wake`` after a start and when the app begins; safe to call at any time."""

    def __init__(self, runners: Runners, every: float = EVERY) -> None:
        self._runners, self._every = runners, every
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def wake(self) -> None:
        with self._guard:
            if (self._thread and self._thread.is_alive()) or self._over.is_set() or not self._active():
                return
            self._thread = threading.Thread(target=self._attend, name="runs elsewhere", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Stop asking; what runs elsewhere runs on."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def _active(self) -> list[str]:
        return [job.id for job in self._runners.jobs.list() if job.elsewhere and job.active]

    def _attend(self) -> None:
        while not self._over.is_set() and (active := self._active()):
            for job_id in active:
                self.look(job_id)
            self._over.wait(self._every)

    def look(self, job_id: str) -> None:
        """Ask about one run; what goes wrong with it must not keep the others from being asked about."""
        try:
            self._runners.of(job_id).state(job_id)
        except UserError as error:  # deleted in this moment
            log.info("%s: %s", job_id, error)
        except Exception:
            log.exception("asking about %s failed", job_id)
