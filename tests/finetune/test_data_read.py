"""Reading: what each kind of file gives, and what each kind of bad file says."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import date
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.errors import UserError
from finetune import data_binary, data_read
from finetune.data import SUFFIXES, read_file
from tests.finetune.data_samples import PAIRS, csv_text, file_of, read, refused, said, told, write

TALK = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "반가워요"}]


# separated text


@pytest.mark.parametrize(("separator", "name"), [(",", "a.csv"), ("\t", "a.csv"), (";", "a.csv"), ("|", "a.tsv")])
def test_separator_is_found_in_spite_of_commas_and_line_breaks(tmp_path: Path, separator: str, name: str) -> None:
    table = read(tmp_path, name, csv_text(PAIRS * 5, separator))
    assert table.rows == PAIRS * 5
    assert ("data.separator" in " ".join(told(table.notes))) == (separator != "," or name != "a.csv")


def test_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "Q,A\r\n안녕,네\r\n\r\n,\r\n잘 가,응\r\n")
    assert table.rows == [{"Q": "안녕", "A": "네"}, {"Q": "잘 가", "A": "응"}]


def test_one_column_with_commas_in_its_text(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", '문장\n안녕, 오늘 뭐 해, 응?\n"쉼표, 따옴표"\n그래\n')
    assert table.rows == [{"문장": "안녕, 오늘 뭐 해, 응?"}, {"문장": "쉼표, 따옴표"}, {"문장": "그래"}]


def test_ragged_rows_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "Q,A\n하나,둘\n셋,넷,다섯\n여섯\n일곱,여덟,,\n")
    assert table.rows == [{"Q": "하나", "A": "둘"}, {"Q": "일곱", "A": "여덟"}]
    assert table.notes[0].values == {"count": 2, "columns": 2, "line": 3}
    assert refused(read_file, file_of(tmp_path, "b.csv", "Q,A\n하나\n둘\n")).key == "data.all_ragged"


def test_same_headers_are_numbered(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "답,답,답 (2),,\n1,2,3,,\n")
    assert table.rows == [{"답": "1", "답 (2)": "2", "답 (2) (2)": "3"}]
    assert told(table.notes) == ["data.same_header"]


def test_column_without_a_name_keeps_its_cells(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", ",Q\n0,안녕\n").columns == ["column 1", "Q"]


def test_broken_quotes_cost_their_lines_only(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", 'Q,A\n"하나",둘\n"안녕"이라고,응\n셋,"넷, 다섯"\n')
    assert [row["Q"] for row in table.rows] == ["하나", "셋"]
    assert table.notes[0].values == {"count": 1, "line": 3}


def test_quotes_stay_where_quoting_is_not_in_use(tmp_path: Path) -> None:
    table = read(tmp_path, "a.tsv", 'Q\tA\n"안녕"이라고 했어\t응\n그냥\t"뭐"라고?\n')
    assert table.rows[0]["Q"] == '"안녕"이라고 했어' and table.rows[1]["A"] == '"뭐"라고?'
    assert told(table.notes) == ["data.quotes_kept"]


def test_a_quote_never_closed_is_named(tmp_path: Path) -> None:
    body = "".join(f'"{number}","답"\n' for number in range(3))
    error = refused(read_file, file_of(tmp_path, "a.csv", f'Q,A\n{body}"열림,답\n하나,둘\n셋,넷\n'))
    assert (error.key, error.values) == ("data.unclosed_quote", {"line": 5})


def test_long_cells(tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.csv", "Q,A\n" + "가" * 200_000 + ",응\n").rows[0]["Q"]) == 200_000


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(text, text), min_size=1, max_size=8))
def test_csv_gives_back_every_character(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    rows = [{"질문": question, "답변": answer} for question, answer in cells]
    lines = (rows[0], *(row.values() for row in rows))
    quoted = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines)
    kept = [row for row in rows if any(cell.strip() for cell in row.values())]
    path = file_of(tmp_path, "a.csv", quoted)
    if kept:
        assert read_file(path).rows == kept
    else:
        assert refused(read_file, path).key == "data.no_rows"


# JSON


@pytest.mark.parametrize(
    "value",
    [
        PAIRS,
        {"data": PAIRS},
        {"version": 1, "result": {"items": PAIRS, "tags": []}},
        {"train": PAIRS, "test": PAIRS[:1]},
        {name: [row[name] for row in PAIRS] for name in PAIRS[0]},
        {name: {str(number): row[name] for number, row in enumerate(PAIRS)} for name in PAIRS[0]},
        {f"id-{number}": row for number, row in enumerate(PAIRS)},
    ],
)
def test_lists_are_found_in_json(tmp_path: Path, value: object) -> None:
    assert read(tmp_path, "a.json", json.dumps(value)).rows == PAIRS
    assert read(tmp_path, "b.jsonl", json.dumps(value, indent=1)).rows == PAIRS


def test_conversations_and_texts_without_an_object(tmp_path: Path) -> None:
    assert read(tmp_path, "a.json", json.dumps([TALK, TALK])).rows == [{"messages": TALK}] * 2
    assert read(tmp_path, "b.json", json.dumps(TALK)).rows == [{"messages": TALK}]
    assert read(tmp_path, "c.json", json.dumps({"messages": TALK})).rows == [{"messages": TALK}]
    assert read(tmp_path, "d.jsonl", json.dumps(TALK) + "\n" + json.dumps(TALK)).rows == [{"messages": TALK}] * 2
    table = read(tmp_path, "e.json", '["하나", "둘", 3]')
    assert table.rows == [{"text": "하나"}, {"text": "둘"}]
    assert told(table.notes) == ["data.not_object"]


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    table = read(tmp_path, "a.json", '{"Q": "가"}\n{"Q": "나"}\n')
    assert table.rows == [{"Q": "가"}, {"Q": "나"}] and told(table.notes) == ["data.json_is_lines"]


def test_a_torn_line_is_left_out_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, "a.jsonl", '{"Q": "가\u2028나"}\n\n{"Q": NaN}\n{"Q": "다"')
    assert table.rows == [{"Q": "가\u2028나"}, {"Q": None}]
    assert table.notes[0].values == {"count": 1, "line": 4}


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.json", '{"a": ', "data.bad_json"),
        ("a.jsonl", "안녕\n하세요\n", "data.bad_json"),
        ("a.json", "[" * 100_000, "data.bad_json"),
        ("a.json", '"안녕"', "data.json_no_list"),
        ("a.json", '{"a": 1, "b": "c"}', "data.json_no_list"),
        ("a.json", '{"one": [{"a": 1}], "two": [{"a": 1}, {"a": 2}]}', "data.json_lists"),
        ("a.json", "[]", "data.no_rows"),
        ("a.json", "{}", "data.no_rows"),
        ("a.json", "[1, 2]", "data.no_rows"),
    ],
)
def test_json_that_is_none(tmp_path: Path, name: str, content: str, key: str) -> None:
    assert refused(read_file, file_of(tmp_path, name, content)).key == key


# Excel and Parquet


def test_excel_cells_read_as_a_person_sees_them(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["질문", "답변", "번호", "날짜", "점수", "예"])
    sheet.append(["가", None, 7, date(2024, 3, 1), 2.0, True])
    sheet["C2"].number_format = "000"
    sheet.append([None] * 6)
    sheet.append(["나", "두 줄_x000D_\n이에요", "NA", None, 0.5, False])
    book.save(tmp_path / "a.xlsx")
    rows = read_file(tmp_path / "a.xlsx").rows
    assert list(rows[0].values()) == ["가", "", "007", "2024-03-01 00:00:00", "2", "TRUE"]
    assert list(rows[1].values()) == ["나", "두 줄\r\n이에요", "NA", "", "0.5", "FALSE"]


def test_the_first_sheet_with_rows_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(["표지"])
    book.create_sheet("데이터").append(["Q", "A"])
    book["데이터"].append(["가", "나", "덧붙임"])
    book.save(tmp_path / "a.xlsx")
    table = read_file(tmp_path / "a.xlsx")
    assert table.rows == [{"Q": "가", "A": "나", "column 3": "덧붙임"}]
    assert table.notes[0].values == {"name": "데이터", "count": 2} and told(table.notes)


def test_parquet_keeps_nested_values_and_honours_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"messages": TALK, "n": number} for number in range(5)])
    assert read_file(path, limit=2).rows == [{"messages": TALK, "n": 0}, {"messages": TALK, "n": 1}]
    assert len(read_file(write(tmp_path / "b.csv", PAIRS), limit=2).rows) == 2


def test_parquet_with_a_column_twice(tmp_path: Path) -> None:
    columns = pyarrow.table([["가"], ["나"]], names=["답", "답"])
    pyarrow.parquet.write_table(columns, tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").rows == [{"답": "가", "답 (2)": "나"}]


def test_parquet_without_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"Q": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    assert refused(read_file, tmp_path / "a.parquet").key == "data.no_rows"


def test_what_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / name, PAIRS) for name in ("a.xlsx", "a.parquet")]
    monkeypatch.setattr(data_binary, "MAX_UNPACKED", 10)
    for path in paths:
        assert refused(read_file, path).key == "data.unpacks_too_large"


# files that are not what they should be


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("Q.txt", "안녕")
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.txt", "안녕", "data.unknown_type"),
        ("데이터", "안녕", "data.unknown_type"),
        ("a.xls", b"\xd0\xcf\x11\xe0", "data.old_excel"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(600), "data.locked_excel"),
        ("a.xlsx", "<html><table></table></html>", "data.pretend"),
        ("a.xlsx", "Q,A\n1,2\n", "data.pretend_text"),
        ("a.xlsx", zipped(), "data.broken"),
        ("a.xlsx", b"PK\x03\x04 no workbook", "data.broken"),
        ("a.csv", zipped(), "data.pretend"),
        ("a.csv", b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "data.pretend"),
        ("a.jsonl", gzip.compress(b"{}"), "data.pretend"),
        ("a.json", b"%PDF-1.7", "data.pretend"),
        ("a.parquet", "Q,A\n1,2\n", "data.pretend_text"),
        ("a.parquet", b"PAR1 and no more", "data.broken"),
        ("a.csv", "", "data.empty"),
        ("a.csv", " \n\n", "data.empty"),
        ("a.csv", "Q,A\n", "data.no_rows"),
        ("a.jsonl", "\ufeff\n", "data.empty"),
        ("a.csv", "Q,A\n가,나\n다,\0라\n", "data.nul"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str, content: str | bytes, key: str) -> None:
    assert refused(read_file, file_of(tmp_path, name, content)).key == key


def test_an_empty_workbook_has_no_rows(tmp_path: Path) -> None:
    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    assert refused(read_file, tmp_path / "a.xlsx").key == "data.no_rows"


def test_folders_and_missing_files(tmp_path: Path) -> None:
    folder = tmp_path / "내 자료.csv"
    folder.mkdir()
    assert refused(read_file, folder).key == "data.folder"
    assert refused(read_file, folder / ".." / "없음.csv").key == "data.missing"


def test_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "큰 파일.csv"
    with path.open("wb") as file:
        file.truncate(data_read.MAX_BYTES + 1)
    error = refused(read_file, path)
    assert error.key == "data.too_large" and error.values["size"] == 201


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    head=st.sampled_from(
        [b"", b"PK\x03\x04", b"PAR1", b"Q,A\n", b"[", b'{"a":', b'"', b"\xff\xfe", "가,나\n".encode("cp949")]
    ),
    body=st.binary(max_size=200) | st.text('"[]{}:,\n\\가a1', max_size=60).map(str.encode),
)
def test_any_bytes_give_rows_or_a_sentence(tmp_path: Path, suffix: str, head: bytes, body: bytes) -> None:
    path = file_of(tmp_path, f"a{suffix}", head + body)
    try:
        table = read_file(path)
    except UserError as error:
        said(error)
    else:
        assert table.rows and all(isinstance(row, dict) for row in table.rows)
        told(table.notes)
