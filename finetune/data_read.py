"""Any file people really have, to a table.

Covers: JSONL, JSON, CSV, TSV, Parquet and XLSX by name, checked against what the bytes are; size, folders, emptiness.
Does not cover: what the columns mean (data_shapes), the Hub (data_hub).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from assets.errors import UserError
from finetune.data_binary import read_parquet, read_xlsx
from finetune.data_json import read_json, read_lines
from finetune.data_separated import read_separated
from finetune.data_table import Note, Table
from finetune.data_text import decode

MAX_BYTES = 200 << 20
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
_HEADS = (
    (b"PK\x03\x04", "ZIP"),
    (b"PK\x05\x06", "ZIP"),
    (b"\xd0\xcf\x11\xe0", "OLE"),
    (b"PAR1", "Parquet"),
    (b"\x1f\x8b", "GZIP"),
    (b"%PDF", "PDF"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
_MARKUP = ((b"<!doctype", "HTML"), (b"<html", "HTML"), (b"<table", "HTML"), (b"<?xml", "XML"))
_EXPECTED = {".xlsx": "ZIP", ".parquet": "Parquet"}


def read_file(path: str | Path, limit: int | None = None, uploaded: bool = True) -> Table:
    """The rows of a file (the first ``limit``), at least one. The size limit holds for what people upload.

    UserError for everything that keeps it from being read: data.missing, data.folder, data.too_large, data.empty,
    data.unknown_type, data.old_excel, data.locked_excel, data.pretend, data.pretend_text, data.no_rows, and those of
    the readers.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    _check(path, suffix, uploaded)
    table = _read(path, suffix, limit)
    if not table.rows:
        raise UserError("data.no_rows", name=path.name)
    return replace(table, rows=table.rows[:limit])


def _read(path: Path, suffix: str, limit: int | None) -> Table:
    if suffix == ".xlsx":
        return read_xlsx(path)
    if suffix == ".parquet":
        return read_parquet(path, limit)
    text, encoding = decode(path.read_bytes())
    if not text.strip():
        raise UserError("data.empty", name=path.name)
    if suffix == ".json":
        table = read_json(text)
    elif suffix in (".jsonl", ".ndjson"):
        table = read_lines(text)
    else:
        table = read_separated(text, "\t" if suffix == ".tsv" else ",")
    said = [] if encoding.startswith("UTF-8") else [Note("data.encoding", {"encoding": encoding})]
    return replace(table, encoding=encoding, notes=[*said, *table.notes])


def _check(path: Path, suffix: str, uploaded: bool) -> None:
    if path.is_dir():
        raise UserError("data.folder", name=path.name)
    if not path.exists():
        raise UserError("data.missing", name=path.name)
    if suffix == ".xls":
        raise UserError("data.old_excel", name=path.name)
    if suffix not in SUFFIXES:
        raise UserError("data.unknown_type", name=path.name)
    size = path.stat().st_size
    if size == 0:
        raise UserError("data.empty", name=path.name)
    if uploaded and size > MAX_BYTES:
        raise UserError("data.too_large", name=path.name, size=-(-size >> 20), limit=MAX_BYTES >> 20)
    _check_head(path, suffix)


def _check_head(path: Path, suffix: str) -> None:
    with path.open("rb") as file:
        found = _look(file.read(256))
    if suffix == ".xlsx" and found == "OLE":
        raise UserError("data.locked_excel", name=path.name)
    if found != _EXPECTED.get(suffix, ""):
        key = "data.pretend" if found else "data.pretend_text"
        raise UserError(key, name=path.name, type=suffix, found=found)


def _look(head: bytes) -> str:
    """What the first bytes say; "" for text and for what is not known."""
    for mark, name in _HEADS:
        if head.startswith(mark):
            return name
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((name for mark, name in _MARKUP if start.startswith(mark)), "")
