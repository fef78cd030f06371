"""Where a run can be: one protocol over this machine, Hugging Face Jobs, and any machine or cluster.

Covers: the protocol, the runner that is the local supervisor, choosing the runner of a run, a run that comes home. Does
not cover: the other runners (remote_jobs.py, remote_cluster.py). ``job.facts["where"]`` names the runner; "" is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from assets.errors import UserError
from assets.files import write_json
from finetune import gpu
from finetune import plan as planning
from finetune.jobs import Job, Jobs, facts_of
from finetune.progress import tail
from finetune.shapes import shape_of
from finetune.spec import ClusterSpec, HardwareSpec, TrainSpec

Where = Literal["", "hf", "cluster"]


@dataclass(frozen=True)
class Order:
    """What to run. ``request`` names the click, so that two of them in one moment make one run.

    ``account``, ``flavor`` and ``seconds`` are for paid hardware; ``nodes``, ``gpus``, ``memory`` (bytes per GPU) and
    ``hours`` for a cluster.
    """

    spec: TrainSpec
    request: str = ""
    account: str = ""
    flavor: str = ""
    seconds: int = 0
    price: float | None = None
    nodes: int = 1
    gpus: int = 1
    memory: int = 0
    hours: int = 24


class Runner(Protocol):
    """One place where runs are. UserErrors say what a person can do; none of these waits for a run to end."""

    def start(self, order: Order) -> Job: ...

    def state(self, job_id: str) -> Job:
        """The run as its place tells it now, written to its folder."""

    def logs(self, job_id: str, size: int = 20_000) -> str: ...

    def stop(self, job_id: str) -> None:
        """Ask it to save and end."""

    def cancel(self, job_id: str) -> None:
        """End it now, whatever is lost."""

    def listed(self) -> list[Job]: ...

    def reattach(self, account: str = "") -> list[str]:
        """Ids of runs that are there and unknown here, taken into the list of runs."""


class LocalRunner:
    """This machine: jobs.py and the supervisor behind the protocol."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def start(self, order: Order) -> Job:
        folder = self._jobs.new_folder()
        return self._jobs.create(order.spec, plan_here(self._jobs, order.spec, folder), folder, order.request)

    def state(self, job_id: str) -> Job:
        return self._jobs.get(job_id)

    def logs(self, job_id: str, size: int = 20_000) -> str:
        return tail(self._jobs.folder(job_id) / "train.log", size)

    def stop(self, job_id: str) -> None:
        self._jobs.stop(job_id)

    def cancel(self, job_id: str) -> None:
        self._jobs.stop(job_id)  # before the first step the supervisor ends it at once; after it the save is wanted

    def listed(self) -> list[Job]:
        return [job for job in self._jobs.list() if not job.elsewhere]

    def reattach(self, account: str = "") -> list[str]:
        """Nothing to do: a supervisor outlives the app and its folder is read anew each time."""
        self._jobs.start_next()
        return []


class Runners:
    """The runner of each run."""

    def __init__(self, jobs: Jobs, others: Mapping[str, Runner]) -> None:
        self.jobs = jobs
        self._by_place: dict[str, Runner] = {"": LocalRunner(jobs), **others}

    def at(self, where: str) -> Runner:
        if where not in self._by_place:
            raise UserError("elsewhere.unknown_place", where=where)
        return self._by_place[where]

    def of(self, job_id: str) -> Runner:
        return self.at(str(self.jobs.get(job_id).facts.get("where") or ""))

    def stop(self, job_id: str) -> None:
        self.of(job_id).stop(job_id)

    def resume(self, job_id: str) -> Job:
        """Go on here, from the last whole checkpoint that has come back."""
        come_home(self.jobs, job_id)
        return self.jobs.resume(job_id)

    def again(self, job_id: str, request: str = "") -> Job:
        """A new run here with the settings of an ended one."""
        if not (self.jobs.folder(job_id) / "plan.json").exists():
            self._plan(job_id)
        return self.jobs.again(job_id, request)

    def _plan(self, job_id: str) -> None:
        folder = self.jobs.folder(job_id)
        write_plan(folder, plan_here(self.jobs, self.jobs.spec(job_id), folder))


def come_home(jobs: Jobs, job_id: str) -> None:
    """Make an ended run elsewhere one of this machine. UserError when it cannot be planned here."""
    job = jobs.get(job_id)
    if not job.elsewhere:
        return
    if job.active:
        raise UserError("jobs.still_active")
    folder = jobs.folder(job_id)
    write_plan(folder, plan_here(jobs, jobs.spec(job_id), folder))
    jobs.change(job_id, facts={k: v for k, v in job.facts.items() if k != "where"})


def plan_here(jobs: Jobs, spec: TrainSpec, folder: Path) -> planning.LaunchPlan:
    """The plan for this machine; wishes that were meant for other hardware are dropped when they cannot be met."""
    machine = gpu.read(jobs.workspace.root)
    shape = shape_of(jobs.workspace, spec.model)
    try:
        return planning.make(replace(spec, cluster=ClusterSpec()), machine, shape, folder)
    except UserError:
        return planning.make(replace(spec, cluster=ClusterSpec(), hardware=HardwareSpec()), machine, shape, folder)


def write_plan(folder: Path, plan: planning.LaunchPlan) -> None:
    """plan.json and the files that the plan needs."""
    write_json(folder / "plan.json", plan.to_dict())
    for name, text in plan.files.items():
        (folder / name).write_text(text, encoding="utf-8")


def facts(spec: TrainSpec, where: Where, **more: Any) -> dict[str, Any]:
    """What a list of runs shows of one that is elsewhere."""
    return {**facts_of(spec), "where": where, **more}
