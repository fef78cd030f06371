"""Training jobs: one folder each, their state on disk, a queue that needs no app to move on.

Covers: creating, listing, starting the next, asking to stop, resuming, running again, deleting. Does not cover: watching
a running job (supervise.py) or reading its curves (progress.py). Any number of apps may look at one workspace at the
same time; every change of state happens under one OS lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from assets.errors import UserError
from assets.files import Workspace, lock, read_json, write_atomic, write_json
from assets.leases import holder
from finetune import plan as planning
from finetune import sources
from finetune import spec as specs

VERSION = 1
ACTIVE = ("queued", "starting", "running")
ENDED = ("stopped", "finished", "failed")
NEWLY_ASKED = ("ended", "error", "exit_code", "supervisor", "deadline", "memory")  # of a run that somebody lets go on
ROOT = Path(__file__).resolve().parent.parent
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Job:
    """What job.json says. Times are seconds since 1970; ``supervisor`` is (pid, process start in seconds since boot).

    ``group`` is what it belongs to with other runs that go one after the other (groups.py), "" for a run of its own.
    ``asked`` is when somebody last asked for it to go on, None for when it was created; ``deadline`` by when it ends.
    ``memory`` says what was missing when memory ran out and what is proposed, ``tries`` what was taken (remedy.py).
    """

    id: str
    name: str
    state: str
    created: float
    request: str = ""
    started: float | None = None
    ended: float | None = None
    attempt: int = 1
    supervisor: tuple[int, float] | None = None
    exit_code: int | None = None
    error: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    asked: float | None = None
    deadline: float | None = None
    memory: dict[str, Any] | None = None
    tries: tuple[dict[str, Any], ...] = ()
    group: str = ""
    version: int = VERSION

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def elsewhere(self) -> bool:
        """Whether it runs on another machine: nothing here supervises it or waits for its devices (runner.py)."""
        return bool(self.facts.get("where"))


def identity(pid: int) -> tuple[int, float] | None:
    """A process's pid with its start time, which together name it; None when there is none."""
    try:
        return pid, _start(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return None


def _start(process: psutil.Process) -> float:
    """Seconds since boot: the time of day that psutil gives moves when somebody sets the clock."""
    return round(process.create_time() - psutil.boot_time(), 2)


def alive(who: tuple[int, float] | None) -> bool:
    if who is None:
        return False
    try:
        process = psutil.Process(who[0])
        return _start(process) == who[1] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def from_dict(values: dict[str, Any]) -> Job:
    """A job.json of this version or an older one. UserError("jobs.version") for a newer one, ("jobs.unreadable") for
    what is no record."""
    try:
        version = values.get("version", 1)
        if version > VERSION:
            raise UserError("jobs.version", version=version)
        known = {k: v for k, v in values.items() if k in Job.__dataclass_fields__}
        if known.get("supervisor"):
            known["supervisor"] = tuple(known["supervisor"])
        known["tries"] = tuple(known.get("tries", ()))
        return Job(**{**known, "version": VERSION})
    except (AttributeError, TypeError) as error:
        raise UserError("jobs.unreadable") from error


class Jobs:
    """The jobs of a workspace."""

    def __init__(self, workspace: Workspace, closed: str = "") -> None:
        """``closed``: the key of the sentence why no run may start on this machine, where none may."""
        self.closed = closed
        self.workspace = workspace

    def folder(self, job_id: str) -> Path:
        """A job's folder. UserError("jobs.unknown") for an id that is none of ours."""
        path = self.workspace.jobs / job_id
        if path.parent != self.workspace.jobs or not (path / "job.json").exists():
            raise UserError("jobs.unknown", id=job_id)
        return path

    def get(self, job_id: str) -> Job:
        """A job as it is now. One whose supervisor is gone has failed."""
        return _read(self.folder(job_id) / "job.json")

    def list(self) -> list[Job]:
        """All jobs, newest first; one whose record cannot be read is told as failed, with the reason."""
        found = []
        for path in self.workspace.jobs.glob("*/job.json"):
            with contextlib.suppress(FileNotFoundError):  # deleted by somebody else in this moment
                try:
                    found.append(_read(path))
                except UserError as error:
                    found.append(_unread(path, error))
        return sorted(found, key=lambda j: j.created, reverse=True)

    def spec(self, job_id: str) -> specs.TrainSpec:
        return specs.from_yaml((self.folder(job_id) / "spec.yaml").read_text(encoding="utf-8"))

    def plan(self, job_id: str) -> planning.LaunchPlan:
        return planning.from_dict(read_json(self.folder(job_id) / "plan.json"))

    def save(self, job: Job) -> None:
        write_json(self.workspace.jobs / job.id / "job.json", asdict(job))

    def change(self, job_id: str, **values: Any) -> Job:
        """Set fields of a job, after whoever is changing it now."""
        with self.lock():
            job = replace(from_dict(read_json(self.folder(job_id) / "job.json")), **values)
            self.save(job)
        return job

    def new_folder(self) -> Path:
        """A place for a job that is not there yet."""
        return self.workspace.jobs / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def create(
        self, spec: specs.TrainSpec, plan: planning.LaunchPlan, folder: Path, request: str, group: str = ""
    ) -> Job:
        """Queue a run and start it if its devices are free. A ``request`` seen before gives the job it made then."""
        with self.lock():
            same = [job for job in self.list() if request and job.request == request]
            if same:
                return same[0]
            if self.closed:
                raise UserError(self.closed)
            name, facts = spec.name or folder.name, facts_of(spec)
            job = Job(folder.name, name, "queued", time.time(), request, facts=facts, group=group)
            try:
                self._write(job, spec, plan, folder)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                if error.errno == errno.ENOSPC:
                    raise UserError("train.disk_full") from error
                raise
        self.start_next()
        return self.get(job.id)

    def _write(self, job: Job, spec: specs.TrainSpec, plan: planning.LaunchPlan, folder: Path) -> None:
        """job.json comes last: a folder without it is no job."""
        folder.mkdir(parents=True)
        write_atomic(folder / "spec.yaml", spec.to_yaml())
        write_json(folder / "plan.json", plan.to_dict())
        for name, text in plan.files.items():
            write_atomic(folder / name, text)
        self.save(job)

    def stop(self, job_id: str) -> None:
        """Ask a run to save and stop; one that is still queued is simply taken out."""
        with self.lock():
            job = self.get(job_id)
            if job.state == "queued":
                self.save(replace(job, state="stopped", ended=time.time()))
            elif job.active:
                write_atomic(self.folder(job_id) / "stop", str(time.time()))
        if job.state == "queued":  # younger runs may have waited for its devices
            self.start_next()

    def stopping(self, job_id: str) -> bool:
        return (self.folder(job_id) / "stop").exists()

    def resume(self, job_id: str) -> Job:
        """Queue an ended run again; it goes on from its last checkpoint, slower if it had to go back there."""
        if self.closed:
            raise UserError(self.closed)
        with self.lock():
            job = self.get(job_id)
            if job.state in ("stopped", "failed"):
                if job.error and "rate" in job.error.get("values", {}):  # the loss ran away; older records have none
                    self._slow_down(job_id, job.error["values"]["rate"])
                (self.folder(job_id) / "stop").unlink(missing_ok=True)
                fresh: dict[str, Any] = dict.fromkeys(NEWLY_ASKED) | {"asked": time.time()}
                self.save(replace(job, state="queued", attempt=job.attempt + 1, **fresh))
        self.start_next()
        return self.get(job_id)

    def _slow_down(self, job_id: str, rate: float) -> None:
        spec = self.spec(job_id)
        slower = replace(spec, schedule=replace(spec.schedule, learning_rate=rate))
        write_atomic(self.folder(job_id) / "spec.yaml", slower.to_yaml())

    def again(self, job_id: str, request: str = "") -> Job:
        """A new run with the settings, seeds, model revision and placement of an ended one.

        UserError("jobs.data_changed") when the data is no longer what that run learnt from.
        """
        folder, new = self.folder(job_id), self.new_folder()
        spec, plan = self.spec(job_id), self.plan(job_id)
        if (folder / "run.json").exists():
            record = read_json(folder / "run.json")
            if sources.load(self.workspace, spec.data).sha256 != record["dataset"]["sha256"]:
                raise UserError("jobs.data_changed", name=spec.data.id)
            if COMMIT.fullmatch(record["base"]["revision"] or ""):
                spec = replace(spec, model=replace(spec.model, revision=record["base"]["revision"]))
        argv = tuple(word.replace(str(folder), str(new)) for word in plan.argv)
        return self.create(spec, replace(plan, argv=argv), new, request)

    def delete(self, job_id: str) -> None:
        """Remove an ended run with everything it wrote."""
        with self.lock():
            if self.get(job_id).active:
                raise UserError("jobs.still_active")
            shutil.rmtree(self.folder(job_id))

    def start_next(self) -> None:
        """Start every queued job whose devices are free and not wanted by an older one, of a group one at a time."""
        if self.closed:
            return
        with self.lock():
            wanted: set[str] = set()
            listed = self.list()
            busy = {job.group for job in listed if job.group and job.state in ("starting", "running")}
            for job in reversed(listed):
                if job.elsewhere:
                    continue
                if job.state == "starting":
                    wanted |= set(self.plan(job.id).devices)
                if job.state != "queued":
                    continue
                devices = set(self.plan(job.id).devices)
                free = not devices & wanted and not any(holder(self.workspace, d) is not None for d in devices)
                if free and job.group not in busy:
                    self._launch(job)
                busy |= {job.group} - {""}
                wanted |= devices

    def _launch(self, job: Job) -> None:
        argv = [sys.executable, "-m", "finetune.supervise", str(self.workspace.root), job.id]
        with (self.folder(job.id) / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        self.save(replace(job, state="starting", supervisor=identity(process.pid)))

    def lock(self) -> Any:
        """The one lock under which jobs change state."""
        return lock(self.workspace.jobs / "queue")


def _read(file: Path) -> Job:
    """A job that lost its supervisor is told as failed and not written: a full disk must not hide it."""
    for _ in range(2):  # the supervisor may have written the end just before it left
        job = from_dict(_content(file))
        if job.state not in ("starting", "running") or job.elsewhere or alive(job.supervisor):
            return job
    return replace(job, state="failed", ended=file.stat().st_mtime, error={"key": "jobs.killed", "values": {}})


def _content(file: Path) -> Any:
    try:
        return read_json(file)
    except ValueError as error:
        raise UserError("jobs.unreadable") from error


def _unread(file: Path, error: UserError) -> Job:
    when = file.stat().st_mtime
    told = {"key": error.key, "values": error.values}
    return Job(file.parent.name, file.parent.name, "failed", when, ended=when, error=told)


def _environment() -> dict[str, str]:
    """Without what a browser session or gradio put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GRADIO_")}


def facts_of(spec: specs.TrainSpec) -> dict[str, Any]:
    """What a list of runs shows without opening the spec."""
    facts = {"model": spec.model.id, "data": spec.data.id, "method": spec.method, "rank": spec.lora.rank}
    more = {"objective": spec.objective if spec.objective != "sft" else "", "start": spec.start}
    return facts | {name: value for name, value in more.items() if value}
