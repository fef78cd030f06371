"""From a run's repository into its folder here, whole files and whole folders only.

Covers: which of the files are new, adapters, models and checkpoints put in place as a whole, the order that lets a reader trust
what is there. Does not cover: when to ask (remote_jobs.py).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from assets.errors import UserError
from finetune.remote_folder import OUTCOMES, whole_checkpoint, whole_outcome
from finetune.remote_hub import Service

JOB, PLAN = "remote_job.json", "remote_plan.json"
RENAMED = {"job.json": JOB, "plan.json": PLAN}
FLAT = re.compile(r"(job|plan|run|error(\.\d+)?)\.json|(metrics|samples)\.jsonl|train\.log")
FOLDER = re.compile(r"(adapter|model|checkpoints/checkpoint-\d+)/([\w.-]+/)*[\w.-]+")
LAST = ("run.json", "job.json")  # they say that the rest is there


def pull(service: Service, repo: str, folder: Path, seen: Mapping[str, str]) -> dict[str, str]:
    """Bring what has changed since ``seen`` (path -> content's name); what has been seen now. UserErrors of the Hub; what
    came before one stays, and is asked for again."""
    commit, listed = service.files(repo)
    files = {path.removeprefix("out/"): content for path, content in listed.items() if path.startswith("out/")}
    inbox = folder.with_name(f".in-{folder.name}")  # beside it: pages look into the folder all the time
    shutil.rmtree(inbox, ignore_errors=True)
    now = {name: content for name, content in seen.items() if name in files}
    try:
        for group in _groups(files):
            names = [name for name in files if name.startswith(f"{group}/")]
            if any(seen.get(name) != files[name] for name in names):
                _bring_folder(service, repo, commit, names, group, folder, inbox)
                now |= {name: files[name] for name in names}
        flat = sorted((n for n in files if FLAT.fullmatch(n)), key=lambda n: (n in LAST, n == "job.json", n))
        for name in flat:
            if seen.get(name) != files[name] or not (folder / RENAMED.get(name, name)).exists():
                os.replace(service.fetch(repo, f"out/{name}", commit, inbox), folder / RENAMED.get(name, name))
                now[name] = files[name]
    finally:
        shutil.rmtree(inbox, ignore_errors=True)
    return now


def _groups(files: Mapping[str, str]) -> list[str]:
    """Folders that only make sense whole."""
    found = {match[1] for name in files if (match := FOLDER.fullmatch(name)) and ".." not in name}
    return sorted(found)


def _bring_folder(
    service: Service, repo: str, commit: str, names: list[str], group: str, folder: Path, inbox: Path
) -> None:
    for name in names:
        if FOLDER.fullmatch(name) and ".." not in name:
            service.fetch(repo, f"out/{name}", commit, inbox)
    here = inbox / "out" / group
    whole = whole_outcome(here) if group in OUTCOMES else whole_checkpoint(here)
    if not whole:
        raise UserError("elsewhere.half", missing=group)
    target = folder / group
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    here.rename(target)
