"""After a run that ran out of memory: what was underestimated, the next smaller plan, and going on with it.

Covers: the examination that job.json keeps, a person's click and the run's own tries. Does not cover: the settings that
are tried (shrink.py) or reading the records (shortfall.py). Neither torch nor gradio: the supervisor calls it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import write_atomic, write_json
from finetune import gpu, shortfall
from finetune import plan as planning
from finetune.jobs import Job, Jobs
from finetune.shapes import shape_of
from finetune.shortfall import GROUPS, Shortfall
from finetune.shrink import shrink
from finetune.spec import TrainSpec

HOST = "train.host_memory"
OUT_OF_MEMORY = ("train.out_of_memory", HOST)
BOUND = frozenset({"method", "rank", "alpha"})  # what a checkpoint's weights are made for
SPARE = 0.97
BLIND = 0.4  # of activations and loss, when nobody could say how much was missing
ITSELF, PERSON = "itself", "person"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remedy:
    """``changed`` holds form fields and their new values, ``before`` what they were. Bytes per device: the estimate for
    the smaller plan, and what there is. It goes on from ``step``, 0 being the beginning."""

    changed: dict[str, Any]
    before: dict[str, Any]
    total: int
    available: int
    step: int


def is_out_of_memory(error: dict[str, Any] | None) -> bool:
    return error is not None and error["key"] in OUT_OF_MEMORY


def examine(jobs: Jobs, job_id: str) -> dict[str, Any]:
    """For job.json: {"shortfall": …, "remedy": … or None}."""
    folder = jobs.folder(job_id)
    found = shortfall.judge(jobs.plan(job_id), shortfall.read(folder))
    try:
        remedy = propose(jobs, job_id, found)
    except (UserError, OSError) as error:  # a model that nobody can describe any more, a GPU that is gone
        log.warning("no smaller plan for %s: %s", job_id, error)
        remedy = None
    return {"shortfall": found.to_dict(), "remedy": asdict(remedy) if remedy else None}


def propose(jobs: Jobs, job_id: str, found: Shortfall) -> Remedy | None:
    """The first change after which the estimate is lower by what was missing, else the one that saves most; None when
    nothing saves anything. UserError from planning."""
    spec, step = jobs.spec(job_id), last_step(jobs.folder(job_id))
    before = remade(jobs, job_id, spec)
    goal = _missing(before, found)
    best: tuple[int, TrainSpec] = (0, spec)

    def enough(candidate: TrainSpec) -> bool:
        nonlocal best
        saved = before.total - remade(jobs, job_id, candidate).total
        best = max(best, (saved, candidate), key=lambda one: one[0])
        return saved >= goal

    shrink(spec, enough, BOUND if step else frozenset())
    saved, smaller = best
    if not saved:
        return None
    made, was, now = remade(jobs, job_id, smaller), _settings(spec), _settings(smaller)
    changed = {name: value for name, value in now.items() if value != was[name]}
    return Remedy(changed, {name: was[name] for name in changed}, made.total, made.available, step)


def _missing(plan: planning.LaunchPlan, found: Shortfall) -> int:
    """Bytes that the estimate has to come down by. What was underestimated shrinks by more than its estimate does."""
    working = [g for g in ("activations", "loss", "training") if g in found.parts]
    guess, had = (sum(found.parts[g][i] for g in working) for i in (0, 1))
    if not found.need or not found.allowed or not guess:
        return int(BLIND * sum(plan.parts.get(p, 0) for g in ("activations", "loss") for p in GROUPS[g]))
    missing = max(found.need - found.allowed, (1 - SPARE) * found.need) + (1 - SPARE) * found.allowed
    return int(missing * guess / max(guess, had))


def _settings(spec: TrainSpec) -> dict[str, Any]:
    return {**asdict(spec.schedule), **asdict(spec.lora), **asdict(spec.hardware), "method": spec.method}


def changed_by(spec: TrainSpec, changed: dict[str, Any]) -> TrainSpec:
    """The spec with those fields, whichever part they are of."""
    parts: dict[str, Any] = {
        name: replace(part, **{k: v for k, v in changed.items() if k in asdict(part)})
        for name, part in (("schedule", spec.schedule), ("lora", spec.lora), ("hardware", spec.hardware))
    }
    return replace(spec, **parts, method=changed.get("method", spec.method))


def remade(jobs: Jobs, job_id: str, spec: TrainSpec) -> planning.LaunchPlan:
    """The plan for ``spec`` on the devices that the job had, with the variables that its plan had."""
    folder, old = jobs.folder(job_id), jobs.plan(job_id)
    gpus = ",".join(map(str, old.gpus)) or "cpu"
    here = replace(spec, hardware=replace(spec.hardware, gpus=gpus))
    made = planning.make(here, gpu.read(jobs.workspace.root), shape_of(jobs.workspace, spec.model), folder)
    return replace(made, env={**old.env, **made.env})


def last_step(folder: Path) -> int:
    """The step of the newest whole checkpoint, 0 without one."""
    marks = folder.glob("checkpoints/checkpoint-*/complete.json")
    return max((int(mark.parent.name.rsplit("-", 1)[-1]) for mark in marks), default=0)


def allowed(job: Job, spec: TrainSpec) -> bool:
    """Whether the run may try again by itself."""
    own = sum(entry["by"] == ITSELF for entry in job.tries)
    return spec.rescue.smaller and own < spec.rescue.tries


def after_the_end(jobs: Jobs, job_id: str, ended: dict[str, Any]) -> dict[str, Any]:
    """The fields of an ended job, and with them why memory ran out; those of a queued one when it goes on by itself."""
    if ended["state"] != "failed" or not is_out_of_memory(ended["error"]):
        return ended
    if ended["error"]["key"] == HOST and jobs.plan(job_id).placement != "cpu":
        return ended  # the host's memory: the figures are the GPU's, and a smaller batch would not help
    memory = examine(jobs, job_id)
    job = replace(jobs.get(job_id), memory=memory, error=ended["error"])
    if memory["remedy"] is None or jobs.stopping(job_id) or not allowed(job, jobs.spec(job_id)):
        return ended | {"memory": memory}
    return _taken(jobs, job, ITSELF)


def go_on(jobs: Jobs, job_id: str) -> Job:
    """A person's click: queue the run with the smaller plan. UserError("remedy.none") when there is none (any more)."""
    with jobs.lock():
        job = jobs.get(job_id)
        if job.active:
            raise UserError("jobs.still_active")
        if not job.memory or not job.memory["remedy"]:
            raise UserError("remedy.none")
        jobs.save(replace(job, **_taken(jobs, job, PERSON)))
        (jobs.folder(job_id) / "stop").unlink(missing_ok=True)
    jobs.start_next()
    return jobs.get(job_id)


def _taken(jobs: Jobs, job: Job, by: str) -> dict[str, Any]:
    """Write the smaller spec and plan; the fields of the queued job. A deadline counts on when it goes on by itself."""
    assert job.memory is not None
    remedy = job.memory["remedy"]
    spec = changed_by(jobs.spec(job.id), remedy["changed"])
    plan = remade(jobs, job.id, spec)
    folder = jobs.folder(job.id)
    for name, text in plan.files.items():
        write_atomic(folder / name, text)
    write_json(folder / "plan.json", plan.to_dict())
    write_atomic(folder / "spec.yaml", spec.to_yaml())
    entry = {"time": time.time(), "attempt": job.attempt, "by": by, "error": job.error, **job.memory}
    fresh: dict[str, Any] = {"ended": None, "error": None, "exit_code": None, "supervisor": None, "memory": None}
    if by == PERSON:
        fresh |= {"deadline": None, "asked": time.time()}
    return {"state": "queued", "attempt": job.attempt + 1, "tries": (*job.tries, entry), **fresh}
