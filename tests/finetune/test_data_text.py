"""Encodings: named when read, refused with the place when broken."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import read_file
from finetune.data_text import decode
from tests.finetune.data_samples import PAIRS, file_of, refused, told, write

TEXT = "질문,답변\n오늘 힘들었어요,푹 쉬세요 :)\n"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (TEXT.encode(), "UTF-8"),
        (TEXT.encode("utf-8-sig"), "UTF-8 (BOM)"),
        (TEXT.encode("utf-16"), "UTF-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("cp949"), "EUC-KR"),
    ],
)
def test_encodings_of_korean_files(raw: bytes, name: str) -> None:
    assert decode(raw) == (TEXT, name)


def test_syllables_beyond_euc_kr() -> None:
    assert decode("질문\n똠방각하 펲시\n".encode("cp949"))[1] == "CP949"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["cp949", "utf-8-sig", "utf-16"])
def test_every_text_format_in_every_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    rows = [{**row, "답변": row["답변"].replace("“", "").replace("”", "")} for row in PAIRS]
    table = read_file(write(tmp_path / name, rows, encoding))
    assert table.rows == rows
    assert ("data.encoding" in told(table.notes)) == (encoding != "utf-8-sig")


def test_mixed_encodings_name_the_first_line_that_differs() -> None:
    korean = "안녕하세요,네\n"
    mostly_utf8 = refused(decode, korean.encode() * 3 + korean.encode("cp949") + korean.encode())
    assert (mostly_utf8.key, mostly_utf8.values["line"]) == ("data.mixed_encodings", 4)
    assert mostly_utf8.values["byte"] == 3 * len(korean.encode()) + 1
    mostly_cp949 = refused(decode, korean.encode("cp949") * 3 + korean.encode())
    assert (mostly_cp949.key, mostly_cp949.values["line"]) == ("data.mixed_encodings", 4)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("안녕\n하세요".encode()[:-1], 2),
        ("안녕하세요, 오늘은 날이 참 좋네요".encode() + b"\xb0", 1),
        ("Q,A\nrésumé,naïve\n".encode("latin-1"), 2),
        ("Q,A\nこんにちは、元気ですか,はい\n".encode("shift_jis"), 2),
        (codecs.BOM_UTF8 + "가\n나".encode()[:-1], 2),
        (codecs.BOM_UTF16_LE + "가\n나".encode("utf-16-le")[:-1], 2),
    ],
)
def test_undecodable_text_names_its_line(raw: bytes, line: int) -> None:
    error = refused(decode, raw)
    assert (error.key, error.values["line"]) == ("data.undecodable", line)


def test_nul_bytes_name_their_line(tmp_path: Path) -> None:
    for raw in (b"Q,A\n1,\x002\n", "가\n나\0다\n".encode("utf-16"), "가\n나\0다\n".encode("cp949")):
        error = refused(read_file, file_of(tmp_path, "a.csv", raw))
        assert (error.key, error.values) == ("data.nul", {"line": 2})


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_utf8_is_never_taken_for_anything_else(text: str) -> None:
    assert decode(codecs.BOM_UTF8 + text.encode())[0] == text
    if not text.startswith("\ufeff"):
        assert decode(text.encode()) == (text, "UTF-8")
