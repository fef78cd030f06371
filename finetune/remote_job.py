"""What runs inside a Hugging Face Job: bring the inputs, train under the same supervisor as anywhere, send back what is
written.

Covers: the way in and out over a private repository, requests to stop, saving before the time-out, a token that is no
longer taken. Does not cover: starting the job (remote_jobs.py). The token is this process's secret environment; it is
struck out of everything that is sent or printed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from assets.errors import UserError
from assets.files import Workspace, write_json
from finetune.jobs import Job, Jobs
from finetune.progress import tail
from finetune.remote_folder import FLAT, OUTCOMES, newest, whole_outcome
from finetune.remote_hub import Service
from finetune.runner import plan_here
from finetune.spec import TrainSpec, from_yaml

POLL = 1.0
CHECKPOINT = 600.0  # seconds between checkpoints that are sent; the last one always is
LAST = 900.0  # how long the result is tried to be delivered
REFUSED = 900.0  # a token that is refused this long does not come back, and nothing of a run can get out without it
LOG = 300_000  # bytes of the log that are sent
STOP = "stop"


@dataclass(frozen=True)
class Task:
    """What the job was told in its environment. ``seconds`` is the service's time-out."""

    repo: str
    run: str
    seconds: float
    every: float = 60.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def from_environment(cls) -> Task:
        told = os.environ
        every = float(told.get("NARANHI_EVERY") or 60.0)
        return cls(told["NARANHI_REPO"], told["NARANHI_RUN"], float(told["NARANHI_SECONDS"]), every)

    @property
    def save_at(self) -> float:
        """When to save and stop, on the monotonic clock: installing came before, and sending comes after."""
        return self.began + self.seconds - min(self.seconds / 2, max(60.0, min(900.0, 0.15 * self.seconds)))


class Courier:
    """Sends what has changed in a run's folder, as one commit a time."""

    def __init__(self, service: Service, task: Task, folder: Path, secret: str) -> None:
        self._service, self._task, self._folder, self._secret = service, task, folder, secret
        self._sent: dict[str, tuple[int, int]] = {}
        self._checkpoint: tuple[str, float] = ("", -CHECKPOINT)
        self._printed = 0
        self.refused_since: float | None = None

    def send(self, last: bool = False) -> bool:
        """Whether everything is there now."""
        files = self._files(last)
        marks = {name: _stamp(path) for name, path in files.items()}
        new = {name: path for name, path in files.items() if self._sent.get(name) != marks[name]}
        checkpoint = next((n.split("/")[2] for n in new if n.startswith("out/checkpoints/")), "")
        gone = [f"out/checkpoints/{self._checkpoint[0]}"] if checkpoint and self._checkpoint[0] else []
        if not new:
            return True
        try:
            content = {name: self._content(path) for name, path in new.items()}
            self._service.push(self._task.repo, content, f"{self._task.run}", gone, tries=2)
        except FileNotFoundError:  # rotated away or written anew in this moment
            return False
        except UserError as error:
            self._refused(error)
            print(f"not sent: {error}", flush=True)
            return False
        self.refused_since = None
        self._sent |= {name: marks[name] for name in new}
        if checkpoint:
            self._checkpoint = (checkpoint, time.monotonic())
        return True

    def _refused(self, error: UserError) -> None:
        if error.key != "elsewhere.refused":
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = time.monotonic()

    @property
    def hopeless(self) -> bool:
        return self.refused_since is not None and time.monotonic() - self.refused_since > REFUSED

    def asked_to_stop(self) -> bool:
        """Whether somebody left the request in the repository; an answer that does not come is no."""
        try:
            return STOP in self._service.files(self._task.repo)[1]
        except UserError as error:
            print(f"not asked: {error}", flush=True)
            return False

    def show(self) -> None:
        """The training log's new lines go to the job's own log."""
        log = self._folder / "train.log"
        if log.exists():
            with log.open("rb") as file:
                file.seek(self._printed)
                data = file.read()
            self._printed += len(data)
            sys.stdout.write(self.clean(data.decode("utf-8", errors="replace")))
            sys.stdout.flush()

    def clean(self, text: str) -> str:
        return text.replace(self._secret, "hf_***") if self._secret else text

    def _files(self, last: bool) -> dict[str, Path]:
        names = ("job.json", "plan.json", *(name for name in FLAT if name != "spec.yaml"))
        found = [self._folder / name for name in names] + list(self._folder.glob("error*.json"))
        checkpoint = newest(self._folder)
        due = last or time.monotonic() - self._checkpoint[1] >= CHECKPOINT
        if checkpoint and due and checkpoint.name != self._checkpoint[0]:
            found += checkpoint.rglob("*")
        for made in (self._folder / name for name in OUTCOMES if last):
            if whole_outcome(made):
                found += made.rglob("*")
        return {f"out/{p.relative_to(self._folder).as_posix()}": p for p in found if p.is_file()}

    def _content(self, path: Path) -> bytes | Path:
        if path.name == "train.log":
            return self.clean(tail(path, LOG)).encode()
        if path.suffix in (".json", ".jsonl"):
            return self.clean(path.read_text(encoding="utf-8", errors="replace")).encode()
        return path


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def bring(service: Service, task: Task, workspace: Workspace) -> TrainSpec:
    """The inputs into the workspace; the settings. UserErrors of the Hub."""
    commit, files = service.files(task.repo)
    inbox = workspace.root / "inbox"
    for name in files:
        if name.startswith("in/") and name != "in/code.zip":
            service.fetch(task.repo, name, commit, inbox)
    for path in (inbox / "in" / "home").rglob("*"):
        if path.is_file():
            target = workspace.root / path.relative_to(inbox / "in" / "home")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    return from_yaml((inbox / "in" / "spec.yaml").read_text(encoding="utf-8"))


def begin(service: Service, task: Task, jobs: Jobs) -> Job:
    """The run under its supervisor, or told as failed with the reason."""
    folder = jobs.workspace.jobs / task.run
    try:
        spec = bring(service, task, jobs.workspace)
        return jobs.create(spec, plan_here(jobs, spec, folder), folder, "")
    except UserError as error:
        folder.mkdir(parents=True, exist_ok=True)
        told = {"key": error.key, "values": {k: str(v) for k, v in error.values.items()}}
        jobs.save(Job(task.run, task.run, "failed", time.time(), ended=time.time(), error=told))
        write_json(folder / "error.json", {**told, "time": time.time()})
        return jobs.get(task.run)


def attend(courier: Courier, task: Task, jobs: Jobs) -> None:
    """Until the run has ended: pass requests on, send what is new."""
    due = time.monotonic()
    while jobs.get(task.run).active:
        time.sleep(POLL)
        courier.show()
        now = time.monotonic()
        if now >= due:
            asked = courier.asked_to_stop()
            courier.send()
            due = time.monotonic() + task.every
            if (asked or courier.hopeless) and not jobs.stopping(task.run):
                jobs.stop(task.run)
        if now >= task.save_at and not jobs.stopping(task.run):
            print("the time-out is near: saving", flush=True)
            jobs.stop(task.run)
        if courier.hopeless:
            return


def deliver(courier: Courier, task: Task) -> bool:
    """The last commit: the result. Tried for a quarter of an hour."""
    deadline = time.monotonic() + LAST
    while not courier.send(last=True):
        if courier.hopeless or time.monotonic() > deadline:
            return False
        time.sleep(min(15.0, task.every))
    return True


def main() -> int:
    task = Task.from_environment()
    home = Path("home").resolve()
    os.environ["NARANHI_HOME"] = str(home)
    jobs = Jobs(Workspace(home).prepare())
    service = Service()
    job = begin(service, task, jobs)
    courier = Courier(service, task, jobs.folder(job.id), os.environ.get("HF_TOKEN", ""))
    signal.signal(signal.SIGTERM, lambda *_: jobs.stop(task.run))
    attend(courier, task, jobs)
    courier.show()
    sent = deliver(courier, task)
    state = jobs.get(task.run).state
    print(f"{state}, {'sent' if sent else 'NOT SENT'}", flush=True)
    return 0 if sent and state in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main())
