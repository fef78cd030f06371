"""What the comparison wants to know of the machine and of the training jobs that share it.

Covers: whether a GPU is free or until when it is not, which job waits for the comparison's, free memory. Does not cover:
reading GPUs or jobs: that is the other room's, and app.py passes it in. Leases are read here, never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from assets.files import Workspace
from assets.leases import holder


@dataclass(frozen=True)
class Card:
    """A GPU. ``device`` is its lease's name; bytes as the driver reports them."""

    device: str
    total: int
    free: int


@dataclass(frozen=True)
class Taken:
    """All GPUs are held. ``name`` is the job that ends first, ``left`` its remaining seconds, None if unknown."""

    name: str
    left: float | None = None


@dataclass(frozen=True)
class Queued:
    """A job that waits. ``devices`` are the leases it needs."""

    name: str
    devices: tuple[str, ...]


def _no_cards() -> Sequence[Card]:
    return ()


def _unknown(job: str) -> float | None:
    return None


def _no_jobs() -> Sequence[Queued]:
    return ()


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Machine:
    """``cards`` are the GPUs now, ``left(job id)`` seconds to a job's end, ``queued`` the jobs that wait, oldest first,
    ``freed`` is called when the comparison has given its memory back."""

    workspace: Workspace
    cards: Callable[[], Sequence[Card]] = _no_cards
    left: Callable[[str], float | None] = _unknown
    queued: Callable[[], Sequence[Queued]] = _no_jobs
    freed: Callable[[], None] = _nothing

    def taken(self, devices: Sequence[str] | None = None, wanted: int = 1) -> Taken | None:
        """Which job to wait for; None while ``wanted`` GPUs are free, without a GPU, or when comparisons hold them.

        ``devices``: lease names to look at, for callers that ask often; all GPUs by default.
        """
        names = [card.device for card in self.cards()] if devices is None else devices
        held = [h for name in names if (h := holder(self.workspace, name)) is not None and h.get("kind") != "engine"]
        if not held or len(names) - len(held) >= wanted:
            return None
        jobs = [Taken(str(h.get("name") or "?"), self.left(str(h.get("id", "")))) for h in held]
        return min(jobs, key=lambda job: (job.left is None, job.left or 0.0))

    def wanted(self) -> str | None:
        """The name of a job that would start if the comparison gave its GPU back."""
        for job in self.queued():
            held = [h for name in job.devices if (h := holder(self.workspace, name)) is not None]
            if held and all(h.get("kind") == "engine" for h in held):
                return job.name
        return None

    def room(self, held: Mapping[str, int], later: bool = False) -> list[tuple[int, int]]:
        """Number and free bytes of every GPU that no job holds; ``held`` by lease name counts as free.

        ``later``: of those that jobs hold too, as if these were over.
        """
        found = []
        for number, card in enumerate(self.cards()):
            by = holder(self.workspace, card.device)
            job = by is not None and by.get("kind") != "engine"
            if later or not job:
                found.append((number, card.total if job else card.free + held.get(card.device, 0)))
        return found

    def free(self) -> int:
        """Bytes for one more model: of the emptiest GPU, or the host's where there is none."""
        cards = self.cards()
        return max(card.free for card in cards) if cards else int(psutil.virtual_memory().available)
