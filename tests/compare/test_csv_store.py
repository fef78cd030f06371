from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assets.errors import UserError
from compare.csv_store import to_line
from compare.ratings import COLUMNS, RatingsFile
from tests.compare.rating_files import reasons, vote, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    return RatingsFile(tmp_path / "ratings" / "ratings.csv", app_version="1")


def test_every_way_a_last_row_can_be_cut(file: RatingsFile) -> None:
    answer = '하나 ""둘"" \n"셋"\n넷'
    file.append(vote("r0"))
    whole = file.path.stat().st_size
    file.append(vote("r1", response_a=answer, timing={"a": 1}))
    data = file.path.read_bytes()
    for cut in range(whole + 1, len(data)):
        write(file, data[:cut])
        file.append(vote("r2"))
        votes = {v.rating_id: v for v in file.read().votes}
        assert set(votes) - {"r1"} == {"r0", "r2"}, cut
        assert votes.get("r1", vote("r1", response_a=answer)).response_a == answer
        kept = b"".join(path.read_bytes() for path in file.read().set_aside)
        assert data[whole:cut] in kept + file.path.read_bytes(), cut
        for path in file.read().set_aside:
            path.unlink()


def test_every_way_the_header_can_be_cut(file: RatingsFile) -> None:
    header = to_line(COLUMNS)
    for cut in (*range(0, len(header), 9), len(header) - 1, len(header)):
        write(file, header[:cut])
        file.append(vote())
        assert file.read().votes == [vote()], cut
        assert file.read().refused == [], cut


def test_recovery_sets_a_torn_row_aside_and_says_so(file: RatingsFile) -> None:
    file.append(vote("r0"))
    whole = file.path.read_bytes()
    write(file, whole + b'"1","r1","2026-11-23T10:00')
    assert reasons(file) == [(3, "ratings.torn")]
    aside = file.recover()
    assert aside is not None and aside.name.startswith("ratings.torn-")
    assert aside.read_bytes() == b'"1","r1","2026-11-23T10:00'
    assert file.path.read_bytes() == whole
    assert file.read().set_aside == [aside]
    assert file.recover() is None


def test_a_torn_row_in_the_middle_takes_no_vote_with_it(file: RatingsFile) -> None:
    file.append(vote("r0"))
    whole = file.path.read_bytes()
    row = whole.splitlines(keepends=True)[1]
    write(file, whole + b'"1","r1","torn inside\nan answer\n' + row.replace(b"r0", b"r2"))
    assert [v.rating_id for v in file.read().votes] == ["r0", "r2"]
    assert reasons(file) == [(3, "ratings.torn")]


def test_a_full_disk_leaves_the_file_as_it_was(file: RatingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.append(vote("r0"))
    before = file.path.read_bytes()
    real = os.write

    def half(handle: int, data: memoryview) -> int:
        if len(data) > 20:
            return real(handle, bytes(data[:20]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(UserError, match="No space left"):
            file.append(vote("r1"))
    assert file.path.read_bytes() == before


VOTER = """
import sys
from pathlib import Path
from compare.ratings import Rating, RatingsFile
assert "torch" not in sys.modules and "gradio" not in sys.modules
file = RatingsFile(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}-{number}"
    file.append(Rating(rating_id=name, model_a="a", model_b="b", left_is="model_a", winner="tie", rater=sys.argv[2],
                       response_a="줄\\n바꿈 \\"따옴표\\" " * 100))
    print(name, flush=True)
"""


def voter(file: RatingsFile, name: str, votes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", VOTER, str(file.path), name, str(votes)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_eight_processes_lose_and_double_nothing(file: RatingsFile) -> None:
    processes = [voter(file, f"p{number}", 50) for number in range(8)]
    confirmed = {line for process in processes for line in process.communicate()[0].split()}
    assert [process.returncode for process in processes] == [0] * 8
    found = file.read()
    assert (found.rows, found.refused, found.repeated) == (400, [], 0)
    assert {v.rating_id for v in found.votes} == confirmed
    assert file.path.read_bytes().count(b"schema_version") == 1


def test_every_confirmed_vote_survives_kill_9(file: RatingsFile) -> None:
    confirmed: set[str] = set()
    for number in range(3):
        process = voter(file, f"p{number}", 100_000)
        assert process.stdout is not None
        confirmed.add(process.stdout.readline().strip())
        time.sleep(0.1 + 0.05 * number)
        process.send_signal(signal.SIGKILL)
        confirmed |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.stdout.close()
        process.wait()
        file.recover()
    file.append(vote("last"))
    found = file.read()
    ids = [v.rating_id for v in found.votes]
    assert confirmed | {"last"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert found.refused == []
