"""Taking over a run that was somewhere else: its folder, or a zip of it, becomes a run here with its page.

Covers: finding the run in what was given, refusing what is none, copying only what a run consists of, half copies told
as such and completed by taking the same folder again. Does not cover: fetching from the Hub (remote_jobs.py).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from assets.errors import UserError
from assets.files import lock, read_json, read_lines, write_json
from finetune.jobs import Job, Jobs
from finetune.remote_folder import MARK, OUTCOMES, SEAL, Told, carried, look, whole_outcome
from finetune.runner import facts
from finetune.spec import TrainSpec, from_yaml

OURS = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
MOST_FILES = 20_000
ROOM = 1 << 30  # bytes of disk that stay free
LINK = "remote.json"


def take_over(jobs: Jobs, given: Path) -> Job:
    """A folder or a zip as a run here; the same one again brings it up to date. UserError("elsewhere.…")."""
    if given.is_file():
        with unpacked(given, jobs.workspace.root) as folder:
            return _take(jobs, find(folder), given.stem)
    if not given.is_dir():
        raise UserError("elsewhere.no_folder", folder=str(given))
    root = find(given)
    if root.resolve().parent == jobs.workspace.jobs.resolve() and (root / "job.json").exists():
        return _refresh_own(jobs, root.name)
    return _take(jobs, root, root.name)


def find(folder: Path) -> Path:
    """The folder of the run in what was given: itself, or the one folder below it that holds a run."""
    if (folder / "spec.yaml").is_file():
        return folder
    below = [f.parent for pattern in ("*/spec.yaml", "*/*/spec.yaml", "*/*/*/spec.yaml") for f in folder.glob(pattern)]
    if len(below) == 1:
        return below[0]
    raise UserError("elsewhere.not_a_run" if not below else "elsewhere.many_runs", count=len(below))


@contextmanager
def unpacked(archive: Path, beside: Path) -> Iterator[Path]:
    """The content of a zip in a folder that is gone afterwards. Nothing is written outside of it; no links."""
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".take-", dir=beside))
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in _checked(opened, beside):
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        yield folder
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:  # cut, or with a password
        raise UserError("elsewhere.bad_zip", name=archive.name) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checked(opened: zipfile.ZipFile, beside: Path) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    if len(entries) > MOST_FILES or sum(e.file_size for e in entries) > shutil.disk_usage(beside).free - ROOM:
        raise UserError("elsewhere.zip_large")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError("elsewhere.bad_zip", name=entry.filename)
    return entries


def _take(jobs: Jobs, source: Path, name: str) -> Job:
    spec = read_spec(source)
    told = look(source)
    if told.state == "nothing":
        raise UserError("elsewhere.not_begun")
    with lock(jobs.workspace.jobs / "take"):
        job_id = _id(jobs, name, spec)
        folder = jobs.workspace.jobs / job_id
        folder.mkdir(parents=True, exist_ok=True)
        copy(source, folder)
        jobs.save(describe(jobs, job_id, spec, told, name, live=False))
    return jobs.get(job_id)


def _refresh_own(jobs: Jobs, job_id: str) -> Job:
    """A folder that is already among the runs: look at it again."""
    job = jobs.get(job_id)
    if job.elsewhere:
        jobs.save(describe(jobs, job_id, jobs.spec(job_id), look(jobs.folder(job_id))))
    return jobs.get(job_id)


def read_spec(folder: Path) -> TrainSpec:
    """UserError("elsewhere.bad_spec") for settings that are none."""
    try:
        return from_yaml((folder / "spec.yaml").read_text(encoding="utf-8"))
    except (UserError, UnicodeDecodeError) as error:
        raise UserError("elsewhere.bad_spec") from error


def _id(jobs: Jobs, name: str, spec: TrainSpec) -> str:
    """The run's own id if it was made for elsewhere here or is not taken; a new one otherwise."""
    if OURS.fullmatch(name):
        if not (jobs.workspace.jobs / name / "job.json").exists():
            return name
        if jobs.get(name).facts.get("where") == "cluster" and jobs.spec(name) == spec:
            return name
    for job in jobs.list():
        link = jobs.workspace.jobs / job.id / LINK
        if job.facts.get("taken") == name and link.exists() and read_json(link).get("spec") == spec.to_dict():
            return job.id
    return jobs.new_folder().name


def copy(source: Path, folder: Path) -> None:
    """What a run consists of, each file whole or not at all; an adapter or a model only if it is whole, and as a whole."""
    for path in carried(source):
        relative = path.relative_to(source)
        if relative.parts[0] not in OUTCOMES and path.name != MARK:
            put(path, folder / relative)
    for mark in (source / "checkpoints").glob(f"*/{MARK}"):  # last: it says that the others are there
        if (folder / "checkpoints" / mark.parent.name).exists():
            put(mark, folder / mark.relative_to(source))
    for name in OUTCOMES:
        if whole_outcome(source / name):
            swap(source / name, folder / name)
    if (source / SEAL).is_file():
        put(source / SEAL, folder / SEAL)


def put(source: Path, target: Path) -> None:
    """Copy one file so that readers see the old or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, new)
    os.replace(new, target)


def swap(source: Path, target: Path) -> None:
    """Copy a folder of plain files into the place of another."""
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new, ignore=lambda at, names: [n for n in names if (Path(at) / n).is_symlink()])
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)


def describe(jobs: Jobs, job_id: str, spec: TrainSpec, told: Told, name: str = "", live: bool = True) -> Job:
    """The run's job.json from its files. A copy (not ``live``) that is half here or was made while the run went on has
    stopped, and says so."""
    folder = jobs.workspace.jobs / job_id
    known = (folder / "job.json").exists()
    lines = read_lines(folder / "metrics.jsonl")
    first, last = (lines[0]["time"], lines[-1]["time"]) if lines else (time.time(), time.time())
    more = {"taken": name} if name else {}
    job = jobs.get(job_id) if known else Job(job_id, spec.name or job_id, "starting", time.time())
    values = _state(told, live)
    if not (folder / LINK).exists():
        write_json(folder / LINK, {"version": 1, "where": "cluster", "spec": spec.to_dict()})
    ended = None if values["state"] in ("starting", "running") else last
    where = facts(spec, "cluster", **{k: v for k, v in {**job.facts, **more}.items() if k == "taken"})
    return replace(job, started=first if lines else job.started, ended=ended, facts=where, **values)


def _state(told: Told, live: bool) -> dict[str, Any]:
    if told.state == "half" and not live:
        missing = ", ".join(told.missing[:5]) + (" …" if len(told.missing) > 5 else "")
        return {"state": "stopped", "error": {"key": "elsewhere.half", "values": {"missing": missing}}}
    if told.state == "running" and not live:
        return {"state": "stopped", "error": {"key": "elsewhere.unfinished", "values": {"step": told.step}}}
    if told.state == "nothing":
        return {"state": "starting", "error": None}
    return {"state": "running" if told.state == "half" else told.state, "error": told.error}
