"""Runs on Hugging Face Jobs: started with the person's own token, brought back over a private repository of theirs.

Covers: starting, what the service and the repository tell, stopping, cancelling, finding runs again by their labels.
Does not cover: the job's inside (remote_job.py) or the requests (remote_hub.py). One repository per run: ``in/`` is
written here and ``out/`` there, so that several programs may look at one run; ``stop`` in it is the request to save.

remote.json in a run's folder says where it is and how far the copy here has come; there is no token in it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from assets.errors import UserError
from assets.files import lock, read_json, write_atomic, write_json
from finetune.jobs import ENDED, Job, Jobs
from finetune.progress import tail
from finetune.remote_fetch import JOB, pull
from finetune.remote_folder import look
from finetune.remote_hub import APP, Seen, Service
from finetune.remote_import import LINK, OURS
from finetune.remote_inputs import inputs, program, requirements
from finetune.runner import Order, facts
from finetune.spec import TrainSpec, from_yaml

NAME = "naranhi-run-{id}"
BOOT = """\
import os, sys, zipfile
from huggingface_hub import hf_hub_download
code = hf_hub_download(os.environ["NARANHI_REPO"], "in/code.zip", repo_type="dataset")
zipfile.ZipFile(code).extractall("naranhi")
os.chdir("naranhi")
os.execv(sys.executable, [sys.executable, "-m", "finetune.remote_job"])
"""
LOST = 1800.0  # a run of which the service knows nothing this long after the click never began


class HubRunner:
    """The protocol over Hugging Face Jobs."""

    def __init__(self, jobs: Jobs, service: Service) -> None:
        self._jobs, self._service = jobs, service

    def start(self, order: Order) -> Job:
        """A paid job. UserErrors: "elsewhere.no_token", "elsewhere.no_timeout", "elsewhere.local_model",
        "elsewhere.no_credit" and those of the Hub; the run is then told as failed with the reason."""
        if order.seconds < 60 or not order.flavor:
            raise UserError("elsewhere.no_timeout")
        files = inputs(self._jobs.workspace, order.spec)
        namespace = self._service.name(order.account)
        with lock(self._jobs.workspace.jobs / "take"):
            same = [job for job in self._jobs.list() if order.request and job.request == order.request]
            if same:
                return same[0]
            job = self._begin(order, namespace)
        link = read_json(self._jobs.folder(job.id) / LINK)
        try:
            self._bring(order.spec, files, link["repo"])
            self._attach(job.id, self._run(order, job.id, link))
        except UserError as error:
            told = {"key": error.key, "values": error.values}
            self._jobs.change(job.id, state="failed", ended=time.time(), error=told)
            raise
        return self._jobs.get(job.id)

    def _begin(self, order: Order, namespace: str) -> Job:
        """The folder here, before anything costs."""
        folder = self._jobs.new_folder()
        folder.mkdir(parents=True)
        write_atomic(folder / "spec.yaml", order.spec.to_yaml())
        repo = f"{namespace}/{NAME.format(id=folder.name)}"
        link = {"version": 1, "where": "hf", "namespace": namespace, "repo": repo, "flavor": order.flavor}
        write_json(folder / LINK, {**link, "seconds": order.seconds, "price": order.price, "job": "", "seen": {}})
        known = facts(order.spec, "hf")
        job = Job(folder.name, order.spec.name or folder.name, "starting", time.time(), order.request, facts=known)
        self._jobs.save(job)
        return job

    def _bring(self, spec: TrainSpec, files: Mapping[str, Path], repo: str) -> None:
        self._service.make(repo)
        content: dict[str, bytes | Path] = {f"in/home/{name}": path for name, path in files.items()}
        content |= {"in/spec.yaml": spec.to_yaml().encode(), "in/code.zip": program()}
        self._service.push(repo, content, "inputs")

    def _run(self, order: Order, job_id: str, link: Mapping[str, Any]) -> Seen:
        """Start it once: when the answer does not arrive, ask whether it began before giving up."""
        asked: dict[str, Any] = {
            "script": "python",
            "script_args": ["-c", "import os; exec(os.environ['NARANHI_BOOT'])"],
            "dependencies": requirements(),
            "python": "3.12",
            "env": environment(link["repo"], job_id, order.seconds),
            "flavor": order.flavor,
            "timeout": order.seconds,
            "name": f"{APP}-{job_id}",
            "labels": {"app": APP, "run": job_id},
        }
        try:
            return self._service.run(asked, link["namespace"])
        except UserError as error:
            if error.key not in ("elsewhere.away", "elsewhere.trouble"):
                raise
            found = self._service.listed(link["namespace"], job_id)
            if not found:
                raise
            return found[0]

    def _attach(self, job_id: str, seen: Seen) -> None:
        with self._link(job_id) as link:
            link |= {"job": seen.id, "namespace": seen.namespace, "url": seen.url}

    def state(self, job_id: str) -> Job:
        """Ask the service and the repository once and write down what they say. A Hub that does not answer changes
        nothing but ``trouble`` in remote.json."""
        job = self._jobs.get(job_id)
        try:
            with lock(self._jobs.folder(job_id) / LINK, timeout=0), self._link(job_id) as link:
                if job.active:
                    self._update(job, link)
        except Timeout:  # another app of this workspace is at it
            pass
        return self._jobs.get(job_id)

    def _update(self, job: Job, link: dict[str, Any]) -> None:
        folder = self._jobs.folder(job.id)
        try:
            seen = self._find(job, link)
            if seen is None:
                return
            self._pull(folder, link, seen)
            if (seen.over and not _ended(folder)) or (seen.stage == "RUNNING" and not (folder / "train.log").exists()):
                write_atomic(folder / "job.log", self._service.logs(link["namespace"], seen.id))
            self._settle(job, link, seen)
            link["trouble"] = None
        except UserError as error:
            link["trouble"] = {"key": error.key, "values": error.values}

    def _pull(self, folder: Path, link: dict[str, Any], seen: Seen) -> None:
        try:
            link["seen"] = pull(self._service, link["repo"], folder, link["seen"])
        except UserError as error:
            if error.key != "elsewhere.gone" or not seen.over:  # without its repository an ended run stays as it is
                raise

    def _find(self, job: Job, link: dict[str, Any]) -> Seen | None:
        """The job at the service; by its label when the app was ended before it could write down its name."""
        if link["job"]:
            return self._service.look(link["namespace"], link["job"])
        found = self._service.listed(link["namespace"], job.id)
        if found:
            link |= {"job": found[0].id, "url": found[0].url}
            return found[0]
        if time.time() - job.created > LOST:
            lost = {"key": "elsewhere.never_began", "values": {}}
            self._jobs.change(job.id, state="failed", ended=time.time(), error=lost)
        return None

    def _settle(self, job: Job, link: dict[str, Any], seen: Seen) -> None:
        """What job.json says now. The run's own word counts; without it, that the service has ended the job."""
        folder = self._jobs.folder(job.id)
        own = _own(folder)
        link["stage"], link["message"] = seen.stage, seen.message
        started = own.get("started") or seen.started
        if own.get("state") in ENDED:
            told = look(folder)
            if own["state"] == "finished" and told.state != "finished":
                raise UserError("elsewhere.half", missing=", ".join(told.missing) or "adapter")
            ended = {name: own.get(name) for name in ("state", "ended", "exit_code", "error")}
            self._jobs.change(job.id, started=started, **ended)
        elif seen.over:
            self._jobs.change(job.id, started=started, **_killed(look(folder).step, link, seen))
        else:
            state = "running" if seen.stage == "RUNNING" else "starting"
            if (state, started) != (job.state, job.started):
                self._jobs.change(job.id, state=state, started=started)

    def logs(self, job_id: str, size: int = 20_000) -> str:
        """The training log that has come back; before there is one, what the job printed."""
        folder = self._jobs.folder(job_id)
        return tail(folder / "train.log", size) or tail(folder / "job.log", size)

    def stop(self, job_id: str) -> None:
        """Leave the request where the job looks for it; before it runs there is nothing to save."""
        job = self._jobs.get(job_id)
        link = read_json(self._jobs.folder(job_id) / LINK)
        if not job.active:
            return
        if job.state == "starting" or not link["job"]:
            self.cancel(job_id)
            return
        self._service.push(link["repo"], {"stop": str(time.time()).encode()}, "stop")
        write_atomic(self._jobs.folder(job_id) / "stop", str(time.time()))

    def cancel(self, job_id: str) -> None:
        """End it at the service. What has come back stays."""
        link = read_json(self._jobs.folder(job_id) / LINK)
        seen = [link["job"]] if link["job"] else [s.id for s in self._service.listed(link["namespace"], job_id)]
        for one in seen:
            self._service.cancel(link["namespace"], one)
        if not seen:
            self._jobs.change(job_id, state="stopped", ended=time.time())
            return
        self.state(job_id)

    def listed(self) -> list[Job]:
        return [job for job in self._jobs.list() if job.facts.get("where") == "hf"]

    def reattach(self, account: str = "") -> list[str]:
        """Runs with this program's label that are not in the list here: after a restart that forgot the disk, or started
        by another Naranhi of the same account. UserErrors of the Hub."""
        namespace = self._service.name(account)
        known = {job.id for job in self._jobs.list()}
        found = []
        for seen in self._service.listed(namespace):
            if seen.run and seen.run not in known:
                with contextlib.suppress(_Gone):
                    found.append(self._adopt(seen))
                    known.add(seen.run)
        return found

    def _adopt(self, seen: Seen) -> str:
        """A folder here for a run that is there."""
        repo = f"{seen.namespace}/{NAME.format(id=seen.run)}"
        folder = self._jobs.workspace.jobs / seen.run
        if not OURS.fullmatch(seen.run) or folder.exists():
            raise _Gone
        spec = self._spec(repo, folder)
        link = {"version": 1, "where": "hf", "namespace": seen.namespace, "repo": repo, "flavor": seen.flavor}
        write_json(folder / LINK, {**link, "seconds": 0, "price": None, "job": seen.id, "url": seen.url, "seen": {}})
        job = Job(seen.run, spec.name or seen.run, "starting", seen.created or time.time(), facts=facts(spec, "hf"))
        self._jobs.save(job)
        self.state(job.id)
        return job.id

    def _spec(self, repo: str, folder: Path) -> TrainSpec:
        inbox = folder.with_name(f".{folder.name}")
        try:
            commit, files = self._service.files(repo)
            if "in/spec.yaml" not in files:
                raise _Gone
            text = self._service.fetch(repo, "in/spec.yaml", commit, inbox).read_text(encoding="utf-8")
            spec = from_yaml(text)
        except UserError as error:
            if error.key in ("elsewhere.gone",) or error.key.startswith("spec."):
                raise _Gone from error
            raise
        finally:
            shutil.rmtree(inbox, ignore_errors=True)
        write_atomic(folder / "spec.yaml", text)
        return spec

    @contextmanager
    def _link(self, job_id: str) -> Iterator[dict[str, Any]]:
        """remote.json, written back when something in it has changed."""
        file = self._jobs.folder(job_id) / LINK
        before = dict(read_json(file))
        link = {**before, "seen": dict(before.get("seen", {}))}
        yield link
        if link != before:
            write_json(file, link)


class _Gone(Exception):
    """What was asked for is not there, and that is an answer."""


def environment(repo: str, run: str, seconds: int) -> dict[str, str]:
    """What the job is told. It is readable for the account's owner at the service: no secret belongs here."""
    told = {"NARANHI_REPO": repo, "NARANHI_RUN": run, "NARANHI_SECONDS": str(seconds), "NARANHI_BOOT": BOOT}
    return {**told, "PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _own(folder: Path) -> dict[str, Any]:
    """The last job.json that came back, {} before the first."""
    try:
        return dict(read_json(folder / JOB))
    except (OSError, ValueError, TypeError):
        return {}


def _ended(folder: Path) -> bool:
    return _own(folder).get("state") in ENDED


def _killed(step: int, link: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """The end of a job that could not say its own: by time-out, on request, or for a reason that its log tells."""
    now = time.time()
    ran = (seen.ended or now) - seen.started if seen.started else 0.0
    timed = "timeout" in seen.message.lower().replace("-", "").replace(" ", "") or (
        link["seconds"] and ran >= link["seconds"] - 15
    )
    minutes, message = round(ran / 60), seen.message or seen.stage
    if timed:
        key = "elsewhere.timed_out.kept" if step else "elsewhere.timed_out.nothing"
    elif seen.stage == "CANCELED":
        key = "elsewhere.cancelled.kept" if step else "elsewhere.cancelled.nothing"
    else:
        key = "elsewhere.ended.kept" if step else "elsewhere.ended.nothing"
    told = {"key": key, "values": {"step": step, "minutes": minutes, "message": message}}
    return {
        "state": "stopped" if step or seen.stage == "CANCELED" else "failed",
        "ended": seen.ended or now,
        "error": told,
    }
