"""Runs out of a place that forgets, and into the next one, so that they can go on there.

Covers: run folders with their checkpoints as one tar file, packed while nothing of them runs, unpacked into a workspace.
Does not cover: sharing an adapter with others (share.py). A run goes on only under the same workspace path, which its
plan names; sessions of Kaggle and Colab have one.

By hand: python -m finetune.carry out runs.tar [ID…]        python -m finetune.carry in runs.tar
"""

from __future__ import annotations

import argparse
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from assets.errors import UserError
from assets.files import Workspace
from assets.words import Words
from finetune.jobs import Jobs

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_LARGEST = 200 * 2**30


def pack(jobs: Jobs, target: Path, ids: Sequence[str] = ()) -> list[str]:
    """Write the folders of these runs, or of all, to ``target``; the ids that are in it.

    UserError("carry.running") while one of them runs: half a checkpoint helps nobody.
    """
    chosen = [jobs.get(job_id) for job_id in ids] if ids else jobs.list()
    for job in chosen:
        if job.active and job.state != "queued":
            raise UserError("carry.running", name=job.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(target.name + ".half")
    with tarfile.open(half, "w") as archive:
        for job in chosen:
            archive.add(jobs.folder(job.id), arcname=job.id)
    half.replace(target)
    return [job.id for job in chosen]


def unpack(jobs: Jobs, file: Path) -> list[str]:
    """Put the runs of ``file`` into the workspace; the ids that are new. One that is there already stays as it is.

    UserError("carry.bad") for what is no such file, or leads out of a run's folder. Nothing is written then.
    """
    try:
        with tarfile.open(file) as archive:
            members = archive.getmembers()
            found = sorted({_owner(member) for member in members})
            if sum(member.size for member in members) > _LARGEST:
                raise UserError("carry.bad", name=file.name)
            new = [job_id for job_id in found if not (jobs.workspace.jobs / job_id).exists()]
            wanted = [member for member in members if _owner(member) in new]
            archive.extractall(jobs.workspace.jobs, members=wanted, filter="data")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError("carry.bad", name=file.name) from error
    return new


def _owner(member: tarfile.TarInfo) -> str:
    """The run that a member belongs to. ValueError for anything but plain files and folders inside a run's folder."""
    parts = PurePosixPath(member.name).parts
    plain = member.isfile() or member.isdir()
    if not parts or not plain or ".." in parts or not _ID.fullmatch(parts[0]):
        raise ValueError(member.name)
    return parts[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack runs with their checkpoints, or unpack them.")
    parser.add_argument("way", choices=["out", "in"])
    parser.add_argument("file", type=Path)
    parser.add_argument("ids", nargs="*")
    given = parser.parse_args()
    jobs = Jobs(Workspace.from_environment().prepare())
    try:
        ids = pack(jobs, given.file, given.ids) if given.way == "out" else unpack(jobs, given.file)
    except UserError as error:
        raise SystemExit(Words("ko").error(error) + "\n" + Words("en").error(error)) from error
    print(*ids, sep="\n")


if __name__ == "__main__":
    main()
