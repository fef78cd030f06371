from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from finetune.carry import pack, unpack
from finetune.jobs import Job, Jobs, identity


def jobs_in(folder: Path, *states: str) -> Jobs:
    jobs = Jobs(Workspace(folder).prepare())
    for number, state in enumerate(states):
        place = jobs.workspace.jobs / f"20260101-00000{number}-abcd" / "checkpoints" / "step-20"
        place.mkdir(parents=True)
        (place / "state.safetensors").write_bytes(bytes(number + 1))
        alive = identity(os.getpid()) if state == "running" else None
        jobs.save(Job(place.parents[1].name, f"run {number}", state, float(number), supervisor=alive))
    return jobs


def test_a_run_goes_out_and_comes_in_whole(tmp_path: Path) -> None:
    here, there = jobs_in(tmp_path / "here", "stopped", "finished"), jobs_in(tmp_path / "there")
    ids = pack(here, tmp_path / "out" / "runs.tar")
    assert len(ids) == 2 and sorted(unpack(there, tmp_path / "out" / "runs.tar")) == sorted(ids)
    for job_id in ids:
        assert there.get(job_id) == here.get(job_id)
        files = {
            p.relative_to(here.folder(job_id)): p.read_bytes() for p in here.folder(job_id).rglob("*") if p.is_file()
        }
        assert files == {name: (there.folder(job_id) / name).read_bytes() for name in files} and len(files) == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["runs.tar"]


def test_one_that_is_there_already_stays(tmp_path: Path) -> None:
    here, there = jobs_in(tmp_path / "here", "stopped", "stopped"), jobs_in(tmp_path / "there", "finished")
    pack(here, tmp_path / "runs.tar")
    assert unpack(there, tmp_path / "runs.tar") == ["20260101-000001-abcd"]
    assert there.get("20260101-000000-abcd").state == "finished"


def test_only_those_asked_for_and_none_that_runs(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, "stopped", "running")
    assert pack(jobs, tmp_path / "runs.tar", ["20260101-000000-abcd"]) == ["20260101-000000-abcd"]
    for ids in ([], ["20260101-000001-abcd"]):
        with pytest.raises(UserError, match=r"carry\.running"):
            pack(jobs, tmp_path / "runs.tar", ids)


def evil(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return found


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/etc/outside"),
        member("a/../../outside"),
        member("a b/x"),
        member(".hidden/x"),
        member("run/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("run/link", tarfile.LNKTYPE, "../../x"),
        member("run/device", tarfile.CHRTYPE),
    ],
    ids=lambda m: m.name,
)
def test_nothing_leads_out_of_a_runs_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    jobs = jobs_in(tmp_path / "work")
    with pytest.raises(UserError, match=r"carry\.bad"):
        unpack(jobs, evil(tmp_path / "evil.tar", member("good/file"), bad))
    assert list(jobs.workspace.jobs.iterdir()) == []


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "runs.tar").write_bytes(b"no archive")
    for name in ("runs.tar", "missing.tar"):
        with pytest.raises(UserError, match=r"carry\.bad"):
            unpack(jobs_in(tmp_path / "work"), tmp_path / name)
