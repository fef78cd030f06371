from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compare.csv_store import to_line
from compare.rating import COLUMNS, Rating, to_cells
from compare.ratings import Mark, RatingsFile
from compare.ratings_index import RatingsIndex
from compare.ratings_table import LightVote, light
from tests.bench.bench_ratings import votes as many
from tests.compare.rating_files import vote, write

ANSWERS = [
    "",
    '"',
    '""',
    'a","b',
    "줄\n바꿈\r\n",
    '\n"1","x"\n',
    "=cmd",
    "👩‍👩‍👧",
    "\ud83d",
    "\\ud83d",
    "\0",
    "가" * 3000,
    ",",
    '",\n"',
    "\r",
]


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    return RatingsFile(tmp_path / "ratings" / "ratings.csv", app_version="1")


def same(file: RatingsFile) -> None:
    """The columns say what the exact reader says."""
    read, table = file.read(), RatingsFile(file.path).table()
    again = file.table()
    for found in (table, again):
        expected = [tuple(light(v, 0, 0, 0))[3:-1] for v in read.votes]
        assert [tuple(v)[3:-1] for v in found.votes()] == [tuple(map(_readable, row)) for row in expected]
        assert [str(v.seconds) for v in found.votes()] == [str(light(v, 0, 0, 0).seconds) for v in read.votes]
        for name in ("rows", "refused", "repeated", "undone", "withdrawn", "set_aside"):
            assert getattr(found, name) == getattr(read, name), name
    ids = [v.rating_id for v in read.votes if v.rating_id.isascii()]
    assert file.read_some(ids) == [v for v in read.votes if v.rating_id.isascii()]


def _readable(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fast path for small files too, in pieces of a few rows."""
    monkeypatch.setattr("compare.ratings_index.SMALL", 0)
    monkeypatch.setattr("compare.ratings_index.SAVE_BYTES", 0)
    monkeypatch.setattr("compare.ratings_scan.SEGMENT", 4096)


@pytest.fixture(params=["small", "fast"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fast":
        fast(monkeypatch)
    return str(request.param)


def test_all_kinds_of_rows(file: RatingsFile, path: str) -> None:
    for number, text in enumerate(ANSWERS):
        file.append(vote(f"r{number}", response_a=text, response_b=text * 2, comment=text, study_id="s", seed=-number))
    file.append(vote("r1", winner="tie"), vote("r2"))
    file.undo("r0", "kim")
    file.undo("r3", "lee")
    file.withdraw("r4", "kim")
    file.undo("r4", "kim")
    file.undo("gone", "kim")
    file.append(vote("last", criteria={"model_a": {"empathy": -2}}, timing={"seconds_to_vote": 3.5}, blind=True))
    same(file)
    assert file.table().column("seconds")[-1] == 3.5


def test_many_rows_and_the_index_beside_them(file: RatingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    many(file.path, 300)
    same(file)
    index = file.path.with_suffix(".index")
    assert index.exists()
    before = file.table().votes()
    kept = index.read_bytes()
    for damaged in (b"", kept[:100], kept[:-100], kept.replace(b"model_a", b"model_x", 3), b"\x80\x04K."):
        index.write_bytes(damaged)
        assert RatingsFile(file.path).table().votes() == before
    index.unlink()
    assert RatingsFile(file.path).table().votes() == before
    assert index.exists()


def test_the_index_is_used(file: RatingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    many(file.path, 100)
    before = file.table().votes()

    def no(*_: object) -> None:
        raise AssertionError("the file was parsed again")

    monkeypatch.setattr(RatingsIndex, "_read_fast", no)
    monkeypatch.setattr("compare.ratings_index.parse", no)
    assert RatingsFile(file.path).table().votes() == before


@pytest.mark.parametrize("how", ["edited", "same length", "shorter", "replaced", "empty", "other table", "gone"])
def test_a_file_that_was_changed_is_noticed(file: RatingsFile, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    fast(monkeypatch)
    monkeypatch.setattr("compare.ratings_index.EVERY", 0)
    many(file.path, 60)
    other = RatingsFile(file.path)
    assert len(file.table()) == len(other.table()) == 60
    data = file.path.read_bytes()
    lines = data.splitlines(keepends=True)
    changed = {
        "edited": data.replace(b'"tie"', b'"model_a"'),
        "same length": data.replace(b'"model_a","{""model_a""', b'"model_b","{""model_a""', 5),
        "shorter": b"".join(lines[:1]) + data[len(lines[0]) :][: data.rfind(b'\n"1"') + 1 - len(lines[0])],
        "replaced": b"".join(lines[:1]) + to_line(to_cells(vote("new"))[c] for c in COLUMNS),
        "empty": b"",
        "other table": b"hello\n",
        "gone": None,
    }[how]
    if changed is None:
        file.path.unlink()
    else:
        assert changed != data
        file.path.write_bytes(changed)
    same(file)
    same(other)


def test_votes_appended_by_another_process(file: RatingsFile, path: str) -> None:
    other = RatingsFile(file.path)
    for number in range(30):
        (file, other)[number % 2].append(vote(f"r{number}", study_id="s", rater=f"k{number % 3}"))
        if number % 7 == 0:
            same(file)
            same(other)
    same(other)


def test_following_a_study(file: RatingsFile, path: str) -> None:
    file.append(vote("a", study_id="s"), vote("b", study_id="t"), vote("c", study_id="s"))
    mark, anew, rows = file.since(Mark(), "s")
    assert anew and [row.rating_id for row in rows] == ["a", "c"]
    assert file.since(mark, "s") == (mark, False, [])
    file.undo("a", "kim", "s")
    file.append(vote("d", study_id="s"))
    mark, anew, rows = file.since(mark, "s")
    assert not anew and [row.rating_id for row in rows] == ["undo-a", "d"]
    assert all(isinstance(row, LightVote) for row in rows)
    file.table()
    assert file.since(mark, "s")[1:] == (False, [])
    write(file, file.path.read_bytes().replace(b'"d"', b'"e"'))
    _, anew, rows = file.since(mark, "s")
    assert anew and [row.rating_id for row in rows] == ["a", "c", "undo-a", "e"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from('\\ud8"\n\r,'), max_size=30),
            st.sampled_from(["r1", "r2", "r3"]),
            st.sampled_from(["vote", "undo", "withdraw"]),
            st.sampled_from(["kim", "lee"]),
        ),
        max_size=8,
    ),
    st.integers(0, 60),
)
def test_any_file_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], cut: int
) -> None:
    file = RatingsFile(tmp_path_factory.mktemp("any") / "ratings.csv")
    made = [
        vote(name, response_a=text, comment=text[::-1], rater=rater)
        if action == "vote"
        else Rating(rating_id=f"{action}-{name}", action=action, target_rating_id=name, rater=rater)
        for text, name, action, rater in rows
    ]
    data = to_line(COLUMNS) + b"".join(to_line(to_cells(row)[c] for c in COLUMNS) for row in made)
    write(file, data[: len(data) - cut])
    with pytest.MonkeyPatch.context() as patch:
        fast(patch)
        same(file)


def edited(rows: list[dict[str, str]], columns: list[str], end: str = "\n", encoding: str = "utf-8") -> bytes:
    lines = [",".join(columns)]
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        lines.append(",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' if set(c) & set('",\n') else c for c in cells))
    return (end.join(lines) + end).encode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_that_a_spreadsheet_saved(file: RatingsFile, path: str, encoding: str, end: str) -> None:
    good = to_cells(vote("r0", comment="한글, 쉼표", blind=True)) | {"blind": "TRUE", "메모": "적음"}
    bad = [good | {"winner": "left"}, good | {"rating_id": ""}, good | {"seed": "x"}, good | {"timing": '{"a": NaN}'}]
    data = edited([good, *bad, good | {"rating_id": "r9"}], ["메모", *reversed(COLUMNS)], end, encoding)
    write(file, data + b'1,"half a row"\n')
    same(file)
    file.append(vote("later"))
    same(file)
    assert file.path.read_bytes().startswith(data)


def test_a_torn_end_and_one_in_the_middle(file: RatingsFile, path: str) -> None:
    file.append(vote("r0"), vote("r1"))
    whole = file.path.read_bytes()
    row = whole.splitlines(keepends=True)[1]
    for tail in (b'"1","r2","2026', b'"1","r2","torn\ninside', row[:-1], b'"1","r2"\n', b"\n", row + b'"1'):
        write(file, whole + tail)
        same(file)
        write(file, whole + tail + row.replace(b"r0", b"r5"))
        same(file)
        write(file, whole)
        same(file)


def test_the_table_in_other_forms(file: RatingsFile) -> None:
    file.append(*(vote(f"r{n}", study_id="s" if n % 2 else "", domain="emotion") for n in range(6)))
    table = file.table()
    assert len(table.where(study_id="s")) == 3 and len(table.where(study_id=("s", ""), rating_id=["r1", "r2"])) == 2
    frame = table.frame()
    assert list(frame["rating_id"]) == [f"r{n}" for n in range(6)] and str(frame["model_a"].dtype) == "category"
    assert file.read_some(["r4", "nothing", "r2", "r4"]) == [
        vote("r4", study_id="", domain="emotion"),
        vote("r2", study_id="", domain="emotion"),
    ]
    assert len(RatingsFile(file.path.with_name("none.csv")).table()) == 0


def test_no_index_where_none_can_be_written(file: RatingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    many(file.path, 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(file.table()) == 20
    assert not file.path.with_suffix(".index").exists()


def test_a_vote_with_a_name_that_utf8_cannot_carry(file: RatingsFile, path: str) -> None:
    file.append(replace(vote("r1"), model_b="모델\ud800", rater="\udc00"))
    [found] = file.table().votes()
    assert found.model_b == "모델\\ud800" and len(file.read_some(["r1"])) == 1
