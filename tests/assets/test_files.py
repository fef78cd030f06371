"""Nobody ever reads half a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout

from assets.files import (
    Workspace,
    append_line,
    end_line,
    for_download,
    lock,
    read_json,
    read_lines,
    write_atomic,
    write_json,
)


def test_the_workspace_is_a_folder_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "나의 공간"))
    space = Workspace.from_environment()
    assert space.prepare() is space and space.prepare().root == tmp_path / "나의 공간"
    made = {path.name for path in space.root.iterdir()}
    assert made == {"models", "jobs", "uploads", "ratings", "leases"}


def test_without_a_setting_it_lies_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        monkeypatch.delenv("NARANHI_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("NARANHI_HOME", value)
        assert Workspace.from_environment().root == tmp_path / "workspace"
    monkeypatch.setenv("NARANHI_HOME", "~/elsewhere")
    assert Workspace.from_environment().root == Path.home() / "elsewhere"


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "파일.txt"
    for text in ("가나다\r\n\ttabs\u2028🧑‍🚀", ""):
        write_atomic(path, text)
        assert path.read_bytes().decode() == text
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == [path.name]


def test_a_write_that_fails_leaves_the_old_text_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomic(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_json_stays_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"이름": [1, None, "값"]})
    assert "이름" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"이름": [1, None, "값"]}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


def test_readers_see_the_old_or_the_new_text(tmp_path: Path) -> None:
    path, wrong = tmp_path / "a", []
    texts = {"x" * 50_000, "y" * 90_000}
    write_atomic(path, "x" * 50_000)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            if path.read_text() not in texts:
                wrong.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(20):
        for text in texts:
            write_atomic(path, text)
    done.set()
    reader.join()
    assert not wrong


def test_lines_are_appended_and_a_torn_last_one_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == []
    append_line(path, json.dumps({"step": 1}))
    with path.open("a") as file:
        file.write('{"step": 2')
    assert read_lines(path) == [{"step": 1}]
    with path.open("a") as file:
        file.write("}\n\n")
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes('{"a": "가나'.encode()[:-1])
    assert read_lines(path) == []


def test_a_line_torn_for_good_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    end_line(path)
    assert not path.exists()
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    end_line(path)
    end_line(path)
    append_line(path, '{"step": 3}')
    assert read_lines(path) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_what_only_looks_like_a_line_end_is_text(tmp_path: Path, mark: str) -> None:
    append_line(tmp_path / "a", json.dumps({"answer": f"one{mark}two"}, ensure_ascii=False))
    assert read_lines(tmp_path / "a") == [{"answer": f"one{mark}two"}]


def test_the_lock_holds_across_processes_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "ratings.csv"
    code = (
        "import sys, time; from pathlib import Path; from assets.files import lock\n"
        "with lock(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(Timeout), lock(path, timeout=0.1):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with lock(path, timeout=30):
        assert (path.parent / "ratings.csv.lock").exists()


def test_what_was_handed_out_long_ago_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = for_download("ratings.csv"), for_download("ratings.csv")
    for path in (first, second):
        path.write_text("1")
    (tmp_path / "of-others").mkdir()
    for path in (first.parent, tmp_path / "of-others"):
        os.utime(path, times=(time.time() - 4000,) * 2)
    third = for_download("adapter.zip")
    assert not first.parent.exists() and second.read_text() == "1" and third.parent.is_dir()
    assert (tmp_path / "of-others").is_dir()
