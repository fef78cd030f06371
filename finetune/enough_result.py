"""What came of the runs of a group: figures of each, and whether LoRA was enough.

Covers: rows as plain data, the verdict and how large a difference may be chance. Does not cover: words (views_enough.py).

About chance: each run is done once. The bound is taken from changes that should not matter: around the best learning rate,
three times as much moved full fine-tuning by 0.14 %, twice as much QLoRA by 0.9 % (rates.MEASURED). NOISE is twice the
larger of these, for a held-out set of FULL_SET conversations or more, and grows with one over the root of a smaller one.
Two or three seeds of one setting lay 0.3 to 1.0 % apart (13 settings, 300 held out, tests/gpu/presets.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from assets.errors import UserError
from assets.files import read_json
from finetune.groups import Group
from finetune.jobs import Job, Jobs
from finetune.outcome import made
from finetune.progress import Progress, read

NOISE = 0.02
FULL_SET = 64
CHEAPEST = ("qlora", "small", "wide")
"""Adapters by what they take: a base in four bits comes before one in sixteen, a small adapter before a large one."""


@dataclass(frozen=True)
class Row:
    """One run; None where it has not told yet. ``state`` is the job's, or "gone" for a deleted one. ``loss`` is that of the
    weights it ended with, or the newest; ``forgot`` the change of the loss on each domain that was not trained, as a
    share; ``seconds`` those of steps and evaluations; ``memory`` the peak in bytes; ``steps`` are done."""

    role: str
    job: str
    state: str
    share: float = 0.0
    trained: int | None = None
    memory: float | None = None
    seconds: float | None = None
    loss: float | None = None
    heldout: int = 0
    steps: int = 0
    forgot: Mapping[str, float] = field(default_factory=dict)
    result: bool = False

    @property
    def active(self) -> bool:
        return self.state in ("queued", "starting", "running")


@dataclass(frozen=True)
class Verdict:
    """``kind``: "waiting" (``left`` runs), "few" to compare, or about ``role``: "ahead" of full fine-tuning, "close" to it,
    "behind" it; "lowest" and "near" (the lowest is ``than``) where full fine-tuning is not there. ``difference`` is a
    share of the loss."""

    kind: Literal["waiting", "few", "ahead", "close", "behind", "lowest", "near"]
    role: str = ""
    than: str = ""
    difference: float = 0.0
    left: int = 0


def rows(jobs: Jobs, group: Group) -> list[Row]:
    return [_row(jobs, member.role, member.job) for member in group.members]


def _row(jobs: Jobs, role: str, job_id: str) -> Row:
    try:
        job, folder = jobs.get(job_id), jobs.folder(job_id)
    except (UserError, FileNotFoundError):
        return Row(role, job_id, "gone")
    return row(role, job, folder, read(folder))


def row(role: str, job: Job, folder: Path, progress: Progress) -> Row:
    """The figures of one run from its files."""
    seconds = sum(r.get("seconds") or 0.0 for r in (*progress.steps, *progress.evals))
    changes = {domain: last / first - 1 for domain, (first, last) in progress.ends.items()}
    return Row(
        role,
        job.id,
        job.state,
        progress.share,
        progress.facts.get("trainable"),
        _peak(progress),
        seconds or None,
        _loss(progress, folder),
        int(progress.facts.get("heldout", 0)),
        progress.step,
        changes,
        not job.active and made(folder) is not None,
    )


def _peak(progress: Progress) -> float | None:
    """Bytes on the GPU, on the host for a run without one."""
    for name in ("gpu_memory", "host_memory"):
        if found := [float(step[name]) for step in progress.steps if step.get(name)]:
            return max(found)
    return None


def _loss(progress: Progress, folder: Path) -> float | None:
    """At the step whose weights were kept, else the newest."""
    losses = {r["step"]: float(r["loss"]) for r in progress.evals if r.get("loss") is not None and r["step"]}
    record: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):
        record = read_json(folder / "run.json")
    step = (record.get("kept") or {}).get("step")
    return losses.get(step, losses[max(losses)]) if losses else None


def noise(found: Sequence[Row]) -> float:
    """Differences of the loss up to this share may be chance."""
    heldout = min((r.heldout for r in found if r.heldout), default=FULL_SET)
    return NOISE * max(1.0, math.sqrt(FULL_SET / heldout))


def reference(found: Sequence[Row]) -> Row | None:
    """What losses are compared with: full fine-tuning where it is done, else the lowest."""
    done = _done(found)
    full = next((r for r in done if r.role == "full"), None)
    return full or min(done, key=lambda r: r.loss or 0.0, default=None)


def behind(one: Row, other: Row) -> float:
    """By which share of its loss ``one`` is above ``other``."""
    assert one.loss is not None and other.loss is not None
    return one.loss / other.loss - 1


def verdict(found: Sequence[Row]) -> Verdict:
    """The one sentence: the cheapest adapter whose loss cannot be told from full fine-tuning's, or from the lowest where
    that is lower by more than chance."""
    left = sum(r.active for r in found)
    if left:
        return Verdict("waiting", left=left)
    done, against = _done(found), reference(found)
    adapters = sorted((r for r in done if r.role != "full"), key=lambda r: r.loss or 0.0)
    if len(done) < 2 or against is None or not adapters:
        return Verdict("few")
    limit, best = noise(done), adapters[0]
    if behind(best, against) > limit:
        return Verdict("behind", best.role, "full", behind(best, against))
    ahead = behind(best, against) < -limit
    one = _cheapest(adapters, best if ahead else against, limit)
    difference = behind(one, against)
    if against.role == "full":
        return Verdict("ahead" if ahead else "close", one.role, "full", difference)
    return Verdict("lowest", one.role) if one is against else Verdict("near", one.role, against.role, difference)


def _cheapest(adapters: Sequence[Row], against: Row, limit: float) -> Row:
    """Of those whose loss is within ``limit`` of another's, which there is at least one of."""
    near = [r for r in adapters if abs(behind(r, against)) <= limit]
    return min(near, key=lambda r: CHEAPEST.index(r.role))


def pair(found: Sequence[Row]) -> list[str]:
    """The two runs that one would look at first, by id: what the verdict is about, or the first two that have a result."""
    told = verdict(found)
    ready = {r.role: r.job for r in found if r.result}
    wanted = [role for role in (told.role, told.than) if role in ready]
    wanted += [role for role in ("wide", "qlora", "full", "small") if role in ready and role not in wanted]
    return [ready[role] for role in wanted[:2]]


def _done(found: Sequence[Row]) -> list[Row]:
    return [r for r in found if r.state == "finished" and r.loss is not None]
