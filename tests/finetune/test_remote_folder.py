"""What a run's folder tells, whole and half."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.remote_folder import ADAPTER, MODEL, SEAL, look, newest, seal, whole_outcome, whole_safetensors
from tests.finetune import far_run
from tests.finetune.far_run import write


def cut(path: Path, left: int = -1) -> None:
    path.write_bytes(path.read_bytes()[:left])


def test_a_finished_run(tmp_path: Path) -> None:
    told = look(write(tmp_path, far_run.finished()))
    assert (told.state, told.missing, told.step) == ("finished", (), 4)


def test_stopped_failed_running_nothing(tmp_path: Path) -> None:
    stopped = write(tmp_path / "a", {**far_run.curves(2), **far_run.checkpoint(2), **far_run.record(stopped=True)})
    assert (look(stopped).state, look(stopped).step) == ("stopped", 2)
    lost = b'{"key": "train.rank_lost", "values": {}, "time": 1}'
    why = b'{"key": "train.out_of_memory", "values": {}, "time": 2}'
    failed = write(tmp_path / "b", {**far_run.curves(1), "error.0.json": lost, "error.1.json": why})
    assert look(failed).state == "failed" and look(failed).error == {"key": "train.out_of_memory", "values": {}}
    assert look(write(tmp_path / "c", far_run.curves(1))).state == "running"
    assert look(write(tmp_path / "d", {"spec.yaml": b""})).state == "nothing"
    back = {"error.json": b'{"key": "train.back.loss", "values": {"step": 3}}', **far_run.record(stopped=True)}
    told = look(write(tmp_path / "e", back))
    assert told.state == "stopped" and told.error is not None and told.error["key"] == "train.back.loss"


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("adapter/adapter_model.safetensors", -1),
        ("adapter/adapter_model.safetensors", 4),
        ("adapter/adapter_config.json", 3),
        ("run.json", 10),
    ],
)
def test_a_file_that_is_cut_makes_it_half(tmp_path: Path, name: str, left: int) -> None:
    folder = write(tmp_path, far_run.finished())
    cut(folder / name, left)
    told = look(folder)
    assert told.state == "half" and told.missing in (("adapter",), ("run.json",))


def test_an_adapter_that_has_not_come_makes_it_half(tmp_path: Path) -> None:
    files = {name: data for name, data in far_run.finished().items() if not name.startswith("adapter/")}
    assert look(write(tmp_path, files)).missing == ("adapter",)


def test_a_seal_tells_every_missing_and_changed_file(tmp_path: Path) -> None:
    folder = write(tmp_path, far_run.finished())
    subprocess.run([sys.executable, "-m", "finetune.remote_folder", str(folder)], check=True, capture_output=True)
    assert look(folder).state == "finished" and (folder / SEAL).exists()
    (folder / "samples.jsonl").unlink()
    (folder / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes().replace(b"1.9", b"9.1"))
    told = look(folder)
    assert told.state == "half" and set(told.missing) == {"samples.jsonl", "metrics.jsonl"}
    cut(folder / SEAL, 20)
    assert look(folder).missing == (SEAL,)


def test_a_seal_is_made_again_after_going_on(tmp_path: Path) -> None:
    folder = write(tmp_path, far_run.finished())
    seal(folder)
    write(folder, far_run.checkpoint(9))
    seal(folder)
    assert (look(folder).state, look(folder).step) == ("finished", 9)


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    folder = write(tmp_path, {**far_run.checkpoint(2), **far_run.checkpoint(10)})
    assert newest(folder) == folder / "checkpoints" / "checkpoint-10"
    cut(folder / "checkpoints" / "checkpoint-10" / "optimizer.pt")
    assert newest(folder) == folder / "checkpoints" / "checkpoint-2"
    (folder / "checkpoints" / "checkpoint-2" / "complete.json").write_text("[]")
    assert newest(folder) is None


def test_whole_models(tmp_path: Path) -> None:
    model = write(tmp_path / MODEL, {"config.json": b"{}", "model.safetensors": far_run.safetensors()})
    assert whole_outcome(model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}')
    assert not whole_outcome(model)  # a shard that the index names has not come
    assert not whole_outcome(tmp_path / ADAPTER)


def test_the_length_that_a_header_promises(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(far_run.safetensors())
    assert whole_safetensors(file)
    file.write_bytes(far_run.safetensors() + b"x")
    assert not whole_safetensors(file)
    file.write_bytes(b"\xff" * 8)
    assert not whole_safetensors(file)
