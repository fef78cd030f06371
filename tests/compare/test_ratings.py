from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.errors import UserError
from assets.words import Words
from compare.csv_store import escape, records, to_json, to_line, unescape
from compare.ratings import COLUMNS, RatingsFile, from_cells, to_cells
from tests.compare.rating_files import reasons, vote, write

HARD = [
    "",
    "=cmd|' /C calc'!A0",
    '따옴표 " 하나, ""둘""',
    "줄\n바꿈\r\n그리고\r또",
    "\0 NUL 가운데\0",
    "이모지 👩‍👩‍👧 · ᄒ\u1161\u11ab",
    "\ud83d 홀로 남은 것 \udc00",
    "\ud83d\ude00",
    "글자 그대로 \\ud83d와 \\\\udc00",
    "\\\ud800\\\\\udfff\\ud800",
    "가" * 100_000,
    '\n"1","model_a"\n',
    " 앞뒤 공백 \t",
]


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    return RatingsFile(tmp_path / "ratings" / "ratings.csv", app_version="1")


def test_a_rating_comes_back_as_it_was(file: RatingsFile) -> None:
    rating = vote(
        conversation=[{"role": "user", "content": "안녕"}],
        criteria={"model_a": {"empathy": -2}, "model_b": {"empathy": 1}},
        sampling={"temperature": 0.7},
        seed=-3,
        blind=True,
        provenance={"base_revision": None, "이름": ["값"]},
        timing={"model_a": {"tokens_per_second": 34.5}},
    )
    file.append(rating)
    assert file.read().votes == [rating]
    assert file.path.read_bytes().startswith(b'"schema_version","rating_id"')
    assert b"\r" not in file.path.read_bytes()


@pytest.mark.parametrize("text", HARD)
def test_text_is_stored_exactly(file: RatingsFile, text: str) -> None:
    rating = vote(response_a=text, response_b=text[::-1], comment=text, conversation=[{"role": "user", "content": "x"}])
    file.append(rating)
    file.append(vote("r2"))
    assert file.read().votes == [rating, vote("r2")]
    file.path.read_bytes().decode("utf-8")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from('\\ud8"\n\r,'), max_size=40))
def test_any_text_survives(text: str) -> None:
    assert unescape(escape(text)) == text
    rating = vote(response_a=text, comment=text)
    line = to_line(to_cells(rating)[name] for name in COLUMNS)
    [record] = records(_lines(line))
    assert record.whole
    assert from_cells(dict(zip(COLUMNS, record.cells(), strict=True))) == rating


def _lines(data: bytes) -> list[bytes]:
    return [part + b"\n" for part in data.split(b"\n")[:-1]]


def test_a_plain_csv_reader_sees_the_same_text(file: RatingsFile) -> None:
    file.append(vote(response_a='=1+1, "둘"\n셋', comment="NA"))
    with file.path.open(encoding="utf-8", newline="") as handle:
        [row] = csv.DictReader(handle)
    assert row["response_a"] == '=1+1, "둘"\n셋'
    assert (row["comment"], row["blind"]) == ("NA", "false")


def test_lone_surrogates_in_json_cells(file: RatingsFile) -> None:
    rating = vote(conversation=[{"role": "user", "content": "\ud800 \\ud800"}])
    file.append(rating)
    assert file.read().votes == [rating]


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": float("nan")})


@pytest.mark.parametrize(
    ("column", "value"), [("winner", "model_c"), ("winner", ""), ("left_is", "left"), ("kind", "x"), ("action", "edit")]
)
def test_values_outside_the_vocabulary(column: str, value: str) -> None:
    with pytest.raises(UserError, match=r"ratings\.bad_value"):
        vote(**{column: value})


def test_the_same_id_is_one_vote_and_the_first_counts(file: RatingsFile) -> None:
    for winner in ("model_a", "model_b", "model_a"):
        file.append(vote(winner=winner))
    found = file.read()
    assert [v.winner for v in found.votes] == ["model_a"]
    assert (found.rows, found.repeated) == (3, 2)


def test_undo_and_withdrawal_are_rows(file: RatingsFile) -> None:
    for number in range(4):
        file.append(vote(f"r{number}"))
    before = file.path.read_bytes()
    file.undo("r0", "kim")
    file.undo("r0", "kim")
    file.withdraw("r1", "kim")
    file.undo("r2", "lee")
    file.undo("gone", "kim")
    found = file.read()
    assert [v.rating_id for v in found.votes] == ["r2", "r3"]
    assert (found.rows, found.undone, found.withdrawn) == (9, 1, 1)
    assert [row.reason_key for row in found.refused] == ["ratings.not_own", "ratings.no_such_vote"]
    assert file.path.read_bytes().startswith(before)


def test_nothing_there_yet(file: RatingsFile) -> None:
    assert file.recover() is None
    assert file.read().votes == []
    assert not file.path.exists()


def edited(*columns: str, rows: list[dict[str, str]], end: str = "\n", encoding: str = "utf-8") -> bytes:
    """A table as a spreadsheet saves it: quotes only where needed."""
    lines = [",".join(columns)]
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        lines.append(",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' if set(c) & set('",\n') else c for c in cells))
    return (end.join(lines) + end).encode(encoding)


def test_a_table_saved_by_a_spreadsheet_is_read_and_appended_to(file: RatingsFile) -> None:
    cells = to_cells(vote("r0", comment="한글 메모, 쉼표", blind=True))
    columns = ["note", *reversed(COLUMNS)]
    data = edited(*columns, rows=[cells | {"note": "제가 적음", "blind": "TRUE"}], end="\r\n", encoding="cp949")
    write(file, data)
    assert [v.comment for v in file.read().votes] == ["한글 메모, 쉼표"]
    file.append(vote("r1", comment="새로 쓴 줄"))
    found = file.read()
    assert [(v.rating_id, v.comment) for v in found.votes] == [("r0", "한글 메모, 쉼표"), ("r1", "새로 쓴 줄")]
    assert found.refused == []
    assert file.path.read_bytes().startswith(data)
    assert file.path.read_bytes().splitlines()[2].startswith(b'"","{}","{}","0"')
    assert file.recover() is None


def test_a_bom_and_a_missing_last_line_end(file: RatingsFile) -> None:
    data = b"\xef\xbb\xbf" + edited(*COLUMNS, rows=[to_cells(vote("r0"))]).rstrip(b"\n")
    write(file, data)
    assert file.recover() is None
    file.append(vote("r1"))
    assert [v.rating_id for v in file.read().votes] == ["r0", "r1"]
    assert file.path.read_bytes().startswith(data + b"\n")


def test_rows_are_refused_one_by_one(file: RatingsFile) -> None:
    good = to_cells(vote("r0"))
    rows = [
        good,
        good | {"winner": "left"},
        good | {"rating_id": ""},
        good | {"conversation": '[{"role": "user"'},
        good | {"conversation": '[{"role": "user"}]'},
        good | {"criteria": '{"model_a": {"empathy": "5"}}'},
        good | {"timing": '{"a": NaN}'},
        good | {"seed": "x"},
        good | {"blind": "maybe"},
        good | {"schema_version": "9"},
        good | {"model_b": ""},
    ]
    half = b'1,"half a row"\n'
    write(file, edited(*COLUMNS, rows=rows) + half)
    before = file.path.read_bytes()
    found = file.read()
    assert [v.rating_id for v in found.votes] == ["r0"]
    assert [(row.line, row.reason_key) for row in found.refused] == [
        (3, "ratings.bad_value"),
        (4, "ratings.empty_value"),
        (5, "ratings.bad_json"),
        (6, "ratings.bad_json"),
        (7, "ratings.bad_json"),
        (8, "ratings.bad_json"),
        (9, "ratings.bad_value"),
        (10, "ratings.bad_value"),
        (11, "ratings.newer"),
        (12, "ratings.empty_value"),
        (13, "ratings.half_row"),
    ]
    assert file.path.read_bytes() == before
    for language in ("ko", "en"):
        words = Words(language)
        assert all(words(row.reason_key, **row.values) for row in found.refused)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello\nworld\n", "ratings.not_a_table"),
        ("안녕".encode("utf-16"), "ratings.not_a_table"),
        (b"model_a,model_b,winner,winner\n", "ratings.columns_twice"),
        (b"rating_id,model_a\n", "ratings.columns_needed"),
    ],
)
def test_other_files_are_left_alone(file: RatingsFile, data: bytes, reason: str) -> None:
    write(file, data)
    assert reasons(file) == [(1, reason)]
    with pytest.raises(UserError):
        file.append(vote())
    assert file.recover() is None
    assert file.path.read_bytes() == data


def test_a_file_that_cannot_hold_a_whole_vote_is_not_appended_to(file: RatingsFile) -> None:
    write(file, b"model_a,model_b,winner,prompt\nbase,tuned,tie,hello\n")
    with pytest.raises(UserError, match=r"ratings\.columns_missing"):
        file.append(vote())


def test_rows_of_version_0_are_brought_up_to_date(file: RatingsFile) -> None:
    write(file, "prompt,model_a,model_b,winner\n안녕,base,tuned,tie (bothbad)\n안녕,base,tuned,tie (bothbad)\n")
    found = file.read()
    assert [(v.winner, v.schema_version, v.blind) for v in found.votes] == [("both_bad", 1, False)] * 2
    assert found.votes[0].conversation == [{"role": "user", "content": "안녕"}]
