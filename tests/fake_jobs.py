"""A Hub that also runs jobs: the paths of the Jobs API that huggingface_hub 2.4 calls, over real HTTP.

A job that is started really runs: the command after ``uv run …`` as a process of this machine with this Python, in an
empty folder, with the environment and secrets it was given and this Hub as its Hub. Time-outs and cancelling kill it, as
the service does. Faults as in tests/fake_hub.py, with the kinds "run", "inspect", "list", "logs", "cancel", "hardware".
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psutil

from tests import fake_hub, http_server
from tests.fake_hub import FakeHub, Repo, _blob, _json, _Refused, _Server

ROOT = Path(__file__).resolve().parent.parent
HARDWARE: list[dict[str, Any]] = [
    {
        "name": "cpu-basic",
        "prettyName": "CPU Basic",
        "cpu": "2 vCPU",
        "ram": "16 GB",
        "ephemeralStorage": "50 GB",
        "accelerator": None,
        "unitCostMicroUSD": 167,
        "unitCostUSD": 0.000167,
        "unitLabel": "minute",
    },
    {
        "name": "l4x4",
        "prettyName": "4x Nvidia L4",
        "cpu": "48 vCPU",
        "ram": "186 GB",
        "ephemeralStorage": "3200 GB",
        "accelerator": {"type": "gpu", "model": "L4", "quantity": "4", "vram": "96 GB", "manufacturer": "Nvidia"},
        "unitCostMicroUSD": 63333,
        "unitCostUSD": 0.063333,
        "unitLabel": "minute",
    },
]


@dataclass
class Job:
    """One job and its process. ``spec`` is what was posted."""

    id: str
    owner: str
    spec: dict[str, Any]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def told(self) -> dict[str, Any]:
        """As the service answers; secrets are never part of it."""
        return {
            "id": self.id,
            "createdAt": _when(self.created),
            "startedAt": _when(self.started),
            "finishedAt": _when(self.ended),
            "dockerImage": self.spec.get("dockerImage"),
            "command": self.spec["command"],
            "arguments": self.spec["arguments"],
            "environment": self.spec["environment"],
            "flavor": self.spec["flavor"],
            "labels": self.spec.get("labels"),
            "status": {"stage": self.stage, "message": self.message},
            "owner": {"id": "1", "name": self.owner, "type": "user"},
        }


@dataclass
class FakeJobs(FakeHub):
    """``hold`` keeps jobs scheduled; ``credit`` False answers 402; ``extra`` is put into every job's environment."""

    jobs: dict[str, Job] = field(default_factory=dict)
    hardware: list[dict[str, Any]] = field(default_factory=lambda: list(HARDWARE))
    credit: bool = True
    hold: bool = False
    extra: dict[str, str] = field(default_factory=dict)
    user: str = "me"

    def begin(self, owner: str, spec: dict[str, Any]) -> Job:
        job = Job(f"job{len(self.jobs)}", owner, spec, Path(tempfile.mkdtemp(prefix="fake-job-")))
        self.jobs[job.id] = job
        if not self.hold:
            self._start(job)
        return job

    def _start(self, job: Job) -> None:
        command = job.spec["command"]
        argv = [sys.executable, *command[command.index("python", command.index("--python") + 2) + 1 :]]
        secrets = job.spec.get("secrets", {})
        env = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ},
            **job.spec["environment"],
            **secrets,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(job.folder / "hf"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "CUDA_VISIBLE_DEVICES": "",
            **self.extra,
        }
        work = job.folder / "work"
        work.mkdir()
        with job.log.open("wb") as log:
            job.process = subprocess.Popen(
                argv, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        job.stage, job.started = "RUNNING", time.time()
        threading.Thread(target=self._watch, args=(job,), daemon=True).start()

    def _watch(self, job: Job) -> None:
        assert job.process is not None
        try:
            code = job.process.wait(job.spec.get("timeoutSeconds", 1800))
        except subprocess.TimeoutExpired:
            self.end(job, "ERROR", "Job timeout")
            return
        if job.stage == "RUNNING":
            self.end(job, "COMPLETED" if code == 0 else "ERROR", None if code == 0 else f"exit code {code}")

    def end(self, job: Job, stage: str, message: str | None) -> None:
        """The container is gone with everything in it."""
        job.stage, job.message, job.ended = stage, message, time.time()
        _kill_all(job)

    def close(self) -> None:
        for job in self.jobs.values():
            _kill_all(job)
            shutil.rmtree(job.folder, ignore_errors=True)


def _kill_all(job: Job) -> None:
    """Its whole process tree: supervisors and ranks are in sessions of their own, and know their folder."""
    if job.process is None:
        return
    mark = str(job.folder)
    for process in psutil.process_iter(["environ", "pid"]):
        if process.pid != os.getpid() and mark in str((process.info["environ"] or {}).get("HF_HOME", "")):
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    job.process.wait()


class _Handler(fake_hub._Handler):
    def _serve(self) -> None:
        self._query = parse_qsl(urlsplit(self.path).query)
        super()._serve()

    def _answer(self, kind: str, path: str, body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        hub = self.server.hub
        assert isinstance(hub, FakeJobs)
        parts = path.removeprefix("/api").strip("/").split("/")
        if path == "/api/jobs/hardware":
            return _json(hub.hardware), ()
        if self.command != "POST" and self._public(hub, path):
            del self.headers["authorization"]
            self.headers["authorization"] = f"Bearer {next(iter(hub.tokens))}"
        if self.headers.get("authorization", "").removeprefix("Bearer ") not in hub.tokens:
            raise _Refused(401)
        if path == "/api/whoami-v2":
            return _json({"name": hub.user, "type": "user"}), ()
        if parts[0] == "jobs":
            return self._jobs(hub, parts[1:], body)
        if "tree" in parts:
            return _json(_tree(self._repo(hub, parts))), ()
        if "/resolve/" in path and not path.startswith("/datasets/"):
            path = f"/models{path}"  # files of models have no word before their owner
        return super()._answer(kind, path, body)

    def _kind_of(self, path: str) -> str:
        return kind_of(self.command, path)

    def _public(self, hub: FakeJobs, path: str) -> bool:
        """Whether everybody may read it, with or without a token."""
        parts = [part for part in path.split("/") if part not in ("", "api", "models", "datasets")]
        repo = hub.repos.get("/".join(parts[:2]))
        return repo is not None and not repo.private

    def _repo(self, hub: FakeJobs, parts: list[str]) -> Repo:
        repo = hub.repos.get("/".join(parts[1:3]))
        if repo is None:
            raise _Refused(404, "RepoNotFound")
        return repo

    def _jobs(self, hub: FakeJobs, parts: list[str], body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        owner = parts[0]
        if owner != hub.user:
            raise _Refused(403)
        if len(parts) == 1 and self.command == "POST":
            if not hub.credit:
                raise _Refused(402)
            return _json(hub.begin(owner, json.loads(body)).told()), ()
        if len(parts) == 1:
            wanted = [tuple(value.split("=", 1)) for name, value in self._query if name == "label"]
            found = [j for j in hub.jobs.values() if set(wanted) <= set((j.spec.get("labels") or {}).items())]
            return _json([job.told() for job in reversed(found)]), ()
        job = hub.jobs.get(parts[1])
        if job is None:
            raise _Refused(404)
        if parts[2:] == ["cancel"]:
            hub.end(job, "CANCELED", None)
        if parts[2:] == ["logs"]:
            return _events(job, dict(self._query)), ()
        return _json(job.told()), ()

    def _commit(self, repo: Repo, name: str, body: bytes) -> bytes:
        """Also removes folders, as a courier does with older checkpoints."""
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "deletedFolder":
                place = line["value"]["path"].rstrip("/") + "/"
                for file in [file for file in repo.files if file.startswith(place)]:
                    del repo.files[file]
        kept = [line for line in lines if line["key"] != "deletedFolder"]
        return super()._commit(repo, name, b"\n".join(_json(line) for line in kept))


def _events(job: Job, query: dict[str, str]) -> bytes:
    """Server-sent events, one per line of the log."""
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.exists() else []
    lines = lines[-int(query["tail"]) :] if "tail" in query else lines
    now = _when(job.started or job.created)
    return "".join(f"data: {json.dumps({'data': line, 'timestamp': now})}\n\n" for line in lines).encode()


def _tree(repo: Repo) -> list[dict[str, Any]]:
    return [{"type": "file", "path": n, "size": len(d), "oid": _blob(d)} for n, d in sorted(repo.files.items())]


def _when(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else None


def kind_of(command: str, path: str) -> str:
    """What a fault may be asked for, by request."""
    parts = path.removeprefix("/api/").split("/")
    if parts[0] == "jobs" and parts[1:] == ["hardware"]:
        return "hardware"
    if parts[0] == "jobs" and len(parts) == 2:
        return "run" if command == "POST" else "list"
    if parts[0] == "jobs":
        return parts[3] if len(parts) > 3 else "inspect"
    return "whoami" if path == "/api/whoami-v2" else fake_hub._kind(command, path)


@contextmanager
def jobs_serving() -> Iterator[FakeJobs]:
    """The Hub with jobs while inside; what still runs is ended."""
    hub = FakeJobs()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub
    with http_server.serving(server, hub.closing) as url:
        hub.url = url
        try:
            yield hub
        finally:
            hub.close()
