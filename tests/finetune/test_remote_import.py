"""Taking over runs from folders and zips."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from finetune.jobs import Jobs
from finetune.progress import read
from finetune.remote_folder import seal
from finetune.remote_import import take_over
from finetune.runner import Runners
from tests.finetune import far_run
from tests.finetune.far_run import write


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Workspace(tmp_path / "home").prepare())


def zipped(folder: Path, archive: Path, below: str = "run/") -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                out.write(path, below + path.relative_to(folder).as_posix())
    return archive


def refusal(jobs: Jobs, given: Path) -> str:
    with pytest.raises(UserError) as caught:
        take_over(jobs, given)
    assert jobs.list() == [] and not list(jobs.workspace.root.glob(".take-*"))
    return caught.value.key


def test_a_folder_and_a_zip_become_runs(jobs: Jobs, tmp_path: Path) -> None:
    folder = write(tmp_path / "there", far_run.finished())
    for given in (folder, zipped(folder, tmp_path / "there2.zip")):
        job = take_over(jobs, given)
        assert (job.state, job.error, job.facts["where"], job.name) == ("finished", None, "cluster", "멀리서")
        here = jobs.folder(job.id)
        assert read(here).step == 4 and read(here).samples and jobs.spec(job.id) == far_run.SPEC
        assert (here / "adapter" / "adapter_model.safetensors").read_bytes() == far_run.safetensors()
        assert (job.started, job.ended) == (100.0, 105.0)
    assert len(jobs.list()) == 2 and not list(jobs.workspace.root.glob(".take-*"))


def test_half_a_run_is_told_and_completed_by_taking_it_again(jobs: Jobs, tmp_path: Path) -> None:
    folder = write(tmp_path / "there", far_run.finished())
    seal(folder)
    whole = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(whole[:-5])
    job = take_over(jobs, folder)
    assert job.state == "stopped" and job.error is not None and job.error["key"] == "elsewhere.half"
    assert "adapter_model.safetensors" in job.error["values"]["missing"]
    assert not (jobs.folder(job.id) / "adapter").exists()  # half an adapter is offered to nobody
    assert read(jobs.folder(job.id)).step == 4
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(whole)
    again = take_over(jobs, folder)
    assert (again.id, again.state, again.error) == (job.id, "finished", None)
    assert len(jobs.list()) == 1 and (jobs.folder(job.id) / "adapter").exists()


def test_a_copy_of_a_run_that_goes_on_can_be_resumed(jobs: Jobs, tmp_path: Path) -> None:
    files = {"spec.yaml": far_run.SPEC.to_yaml().encode(), **far_run.curves(3), **far_run.checkpoint(2)}
    job = take_over(jobs, write(tmp_path / "there", files))
    assert job.state == "stopped" and job.error == {"key": "elsewhere.unfinished", "values": {"step": 2}}
    assert (jobs.folder(job.id) / "checkpoints" / "checkpoint-2" / "complete.json").exists()


def test_what_is_no_run_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    assert refusal(jobs, tmp_path / "nowhere") == "elsewhere.no_folder"
    assert refusal(jobs, write(tmp_path / "a", {"x": b""})) == "elsewhere.not_a_run"
    two = write(tmp_path / "b", {"1/spec.yaml": b"", "2/spec.yaml": b""})
    assert refusal(jobs, two) == "elsewhere.many_runs"
    assert refusal(jobs, write(tmp_path / "c", {"spec.yaml": b"\xff"})) == "elsewhere.bad_spec"
    assert refusal(jobs, write(tmp_path / "d", {"spec.yaml": far_run.SPEC.to_yaml().encode()})) == "elsewhere.not_begun"
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert refusal(jobs, tmp_path / "cut.zip") == "elsewhere.bad_zip"


@pytest.mark.parametrize("name", ["../../evil.txt", "/evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_a_zip_that_leads_outside_is_refused(jobs: Jobs, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as out:
        out.writestr("run/spec.yaml", far_run.SPEC.to_yaml())
        out.writestr(name, "evil")
    assert refusal(jobs, tmp_path / "evil.zip") == "elsewhere.bad_zip"
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_zip_with_links_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("run/train.log")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as out:
        out.writestr("run/spec.yaml", far_run.SPEC.to_yaml())
        out.writestr(link, "/etc/passwd")
    assert refusal(jobs, tmp_path / "link.zip") == "elsewhere.bad_zip"


def test_only_what_a_run_consists_of_is_taken(jobs: Jobs, tmp_path: Path) -> None:
    folder = write(tmp_path / "there", {**far_run.finished(), "secret.txt": b"x", ".env": b"x", "job.json": b"{}"})
    (folder / "adapter" / "link.json").symlink_to("/etc/passwd")
    here = jobs.folder(take_over(jobs, folder).id)
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert "secret.txt" not in names and ".env" not in names and "adapter/link.json" not in names
    assert "job.json" in names and (here / "job.json").read_text() != "{}"


def test_a_run_made_here_is_not_written_over(jobs: Jobs, tmp_path: Path) -> None:
    first = take_over(jobs, write(tmp_path / "20260101-000000-abcd", far_run.finished()))
    assert first.id == "20260101-000000-abcd"
    jobs.change(first.id, facts={})  # as one of this machine
    second = take_over(jobs, tmp_path / "20260101-000000-abcd")
    assert second.id != first.id and len(jobs.list()) == 2


def test_a_run_that_was_taken_over_is_resumed_here(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.runner.shape_of", lambda *_: SHAPE)
    monkeypatch.setattr(Jobs, "start_next", lambda self: None)
    files = {"spec.yaml": far_run.SPEC.to_yaml().encode(), **far_run.curves(3), **far_run.checkpoint(2)}
    job = take_over(jobs, write(tmp_path / "there", files))
    resumed = Runners(jobs, {}).resume(job.id)
    assert (resumed.state, resumed.elsewhere, resumed.error) == ("queued", False, None)
    assert str(jobs.folder(job.id) / "spec.yaml") in jobs.plan(job.id).argv


def _shape() -> object:
    from finetune.memory import Shape

    return Shape(64, 2, 128, 2, 1, 64, 512, True)


SHAPE = _shape()
