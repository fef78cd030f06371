"""A training script without training, the plan that runs it, and how to wait for what it does.

The script behaves like the real one towards its supervisor: it writes metrics.jsonl, obeys the stop file with exit
code 3, goes on from its checkpoint, and ends with its parent.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from assets.files import Workspace
from finetune.jobs import Job, Jobs
from finetune.plan import LaunchPlan
from finetune.spec import DataSpec, ModelSpec, TrainSpec

SPEC = TrainSpec(ModelSpec("some/model"), DataSpec("naranhi/emotion-ko"), name="연습")
PATIENCE = 90.0  # the machine may be busy

SCRIPT = r"""
import json, os, sys, threading, time
from pathlib import Path

folder, mode = Path(sys.argv[1]), sys.argv[2]
parent = os.getppid()

def look():
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(70)

def say(event, **values):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")

def adapter():
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "run.json").write_text("{}")

def child(seconds, own_session):
    if os.fork() == 0:
        if own_session:
            os.setsid()
        (folder / "child").write_text(str(os.getpid()))
        time.sleep(seconds)
        os._exit(0)
    while not (folder / "child").exists() or not (folder / "child").read_text():
        time.sleep(0.01)

def until_stopped():
    done = int((folder / "checkpoint").read_text()) if (folder / "checkpoint").exists() else 0
    for step in range(done + 1, 100_000):
        say("step", step=step, loss=1.0, seconds=0.05)
        (folder / "checkpoint").write_text(str(step))
        time.sleep(0.05)
        if (folder / "stop").exists():
            sys.exit(3)
        if (folder / "enough").exists():
            return

threading.Thread(target=look, daemon=True).start()
with open(folder / "runs", "a") as file:
    file.write(f"{time.time()}\n")
(folder / "pid").write_text(str(os.getpid()))
print("hello from", mode, os.environ["NARANHI_JOB"], os.environ["NARANHI_HOME"], flush=True)
print("until", os.environ.get("NARANHI_DEADLINE"), flush=True)
say("phase", phase="start")
if mode == "load":
    say("phase", phase="load")
    time.sleep(600)
say("facts", total_steps=3, eval_every=3)
say("phase", phase="train")
if mode == "crash":
    raise ZeroDivisionError("no reason")
if mode == "error":
    (folder / "error.json").write_text(json.dumps({"key": "train.not_a_number", "values": {"step": 7}}))
    sys.exit(1)
if mode == "wait":
    until_stopped()
if mode == "fork":
    child(600, own_session=False)
if mode == "orphan":
    child(3, own_session=True)
if mode != "empty":
    adapter()
(folder / "done").write_text(str(time.time()))
"""


def script(tmp_path: Path) -> Path:
    file = tmp_path / "fake_train.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return file


class Runs:
    """Jobs of a temporary workspace that run the script."""

    def __init__(self, tmp_path: Path) -> None:
        self.workspace = Workspace(tmp_path / "작업 공간").prepare()
        self.jobs = Jobs(self.workspace)
        self._script = script(tmp_path)

    def plan(self, folder: Path, mode: str, device: str = "cpu") -> LaunchPlan:
        argv = (sys.executable, "-S", str(self._script), str(folder), mode)
        return LaunchPlan("cpu", 1, (), (device,), "float32", False, argv, {"FAKE": "1"}, {}, "fits")

    def create(self, mode: str, device: str = "cpu", request: str = "") -> Job:
        folder = self.jobs.new_folder()
        return self.jobs.create(SPEC, self.plan(folder, mode, device), folder, request)

    def wait(self, job: Job, *states: str) -> Job:
        until(lambda: self.jobs.get(job.id).state in states)
        return self.jobs.get(job.id)

    def ended(self, job: Job) -> Job:
        return self.wait(job, "stopped", "finished", "failed")

    def path(self, job: Job, name: str) -> Path:
        return self.workspace.jobs / job.id / name

    def read(self, job: Job, name: str) -> str:
        return self.path(job, name).read_text(encoding="utf-8") if self.path(job, name).exists() else ""

    def steps(self, job: Job, count: int = 1) -> None:
        """Wait until the script is in its training loop."""
        until(lambda: int(self.read(job, "checkpoint") or 0) >= count)

    def pid(self, job: Job, name: str = "pid") -> int:
        return int(self.read(job, name))

    def clean(self) -> None:
        """End what this test started, by its pid."""
        for job in self.jobs.list():
            if job.active and job.supervisor:
                end(job.supervisor[0])
            for name in ("pid", "child"):
                if text := self.read(job, name):
                    end(int(text), only="fake_train.py")


def end(pid: int, only: str = "finetune.supervise") -> None:
    try:
        process = psutil.Process(pid)
        if any(only in part for part in process.cmdline()):
            os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        pass


def until(holds: Callable[[], Any], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody reaps yet has ended too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
