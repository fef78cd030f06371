"""What runs took on this machine: seconds per token, per evaluation, and for everything around them.

Covers: one run's files -> the figures that a forecast needs. Does not cover: forecasting (forecast.py).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import read_lines
from finetune.jobs import Job, Jobs
from finetune.progress import Progress, read
from finetune.spec import TrainSpec

FEWEST = 5  # steps, besides the first two, that tell how fast a run was
NOT_OURS = ("download", "quantise")  # phases that another run may not need
LOOKED_AT = 40


@dataclass(frozen=True)
class Ran:
    """One run. ``rate`` is in tokens a second of all processes, ``around`` the seconds of all but steps, evaluations,
    downloads and quantising, ``evaluation`` the seconds of one evaluation, each None where the run does not tell."""

    job: str
    spec: TrainSpec
    placement: str
    processes: int
    steps: int
    rate: float
    tokens: float
    length: float
    heldout: int
    evaluation: float | None
    around: float | None
    took: float | None


class History:
    """The figures of this workspace's runs. Thread-safe; a run is read again only when its files have moved."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._known: dict[str, tuple[object, Ran | None]] = {}

    def runs(self) -> list[Ran]:
        """Those of the newest jobs that tell how fast they were, newest first."""
        return [one for job in self._jobs.list()[:LOOKED_AT] if (one := self._one(job)) is not None]

    def _one(self, job: Job) -> Ran | None:
        if job.elsewhere or job.state == "queued":
            return None
        stamp = (job.state, job.attempt, _stamp(self._jobs.workspace.jobs / job.id / "metrics.jsonl"))
        with self._lock:
            if job.id in self._known and self._known[job.id][0] == stamp:
                return self._known[job.id][1]
        found = ran(self._jobs, job)
        with self._lock:
            self._known[job.id] = stamp, found
        return found


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def ran(jobs: Jobs, job: Job) -> Ran | None:
    """One job's figures; None for one too short, or whose files do not tell."""
    progress = read(jobs.workspace.jobs / job.id)
    rows = [row for row in timed(progress)[2:] if row.get("tokens_per_second") and row.get("seconds")]
    if len(rows) < FEWEST:
        return None
    try:
        folder = jobs.folder(job.id)
        spec, plan = jobs.spec(job.id), jobs.plan(job.id)
    except (OSError, UserError):
        return None
    seconds = sum(row["wall"] for row in rows)
    tokens = sum(row["seconds"] * row["tokens_per_second"] for row in rows)
    facts = progress.facts
    took = job.ended - job.started if job.ended and job.started and job.attempt == 1 else None
    return Ran(
        job=job.id,
        spec=spec,
        placement=plan.placement,
        processes=plan.processes,
        steps=len(progress.steps),
        rate=tokens / seconds,
        tokens=tokens / len(rows),
        length=facts["tokens"] / facts["rows"] if facts.get("rows") and facts.get("tokens") else 0.0,
        heldout=int(facts.get("heldout", 0)),
        evaluation=_mean([row["seconds"] for row in progress.evals]),
        around=_around(progress, took, seconds / len(rows), read_lines(folder / "metrics.jsonl")),
        took=took,
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def timed(progress: Progress) -> list[dict[str, Any]]:
    """The steps with ``wall``, the seconds from one to the next; a step's own where something else lay between."""
    ends = [row.get("time") for row in progress.evals]
    rows: list[dict[str, Any]] = []
    for before, row in zip([None, *progress.steps], progress.steps, strict=False):
        wall = row.get("seconds") or 0.0
        if before is not None and "time" in before and "time" in row:
            gap = row["time"] - before["time"]
            alone = not any(end is not None and before["time"] <= end <= row["time"] for end in ends)
            if alone and wall <= gap <= 2 * wall + 1.0:  # a longer gap is a stop, or a save
                wall = gap
        rows.append({**row, "wall": wall})
    return rows


def _around(progress: Progress, took: float | None, step: float, lines: list[dict[str, Any]]) -> float | None:
    if took is None:
        return None
    inside = step * len(progress.steps) + sum(row["seconds"] for row in progress.evals)
    return float(max(0.0, took - inside - fetching(lines)))


def fetching(lines: list[dict[str, Any]]) -> float:
    """Seconds from the begin of a download or a quantisation to the next phase."""
    phases = [(line["time"], line["phase"]) for line in lines if line["event"] == "phase"]
    ends = [when for when, _ in phases[1:]]
    return float(sum(end - begin for (begin, name), end in zip(phases, ends, strict=False) if name in NOT_OURS))
