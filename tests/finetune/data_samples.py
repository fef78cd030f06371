"""Small data of each shape, files made of it, and the sentences that errors become."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from finetune.data import Converted, Note, Table, convert, guess, read_file

PAIRS = [
    {"질문": "오늘 면접에서 떨어졌어요, 어떡하죠?", "답변": "많이 속상하셨겠어요.\n오늘은 푹 쉬세요.", "번호": "007"},
    {"질문": "고양이가 아파요", "답변": "“얼른” 나았으면 좋겠네요", "번호": "NA"},
    {"질문": "null 값이 뭐예요?", "답변": "None, 곧 없음을 뜻해요", "번호": "1e5"},
]


def said(error: UserError) -> tuple[str, str]:
    """Both sentences of an error; fails where a placeholder has no value."""
    korean, english = (Words(language).error(error) for language in LANGUAGES)
    assert korean and english and "{" not in korean + english
    return korean, english


def told(notes: Sequence[Note]) -> list[str]:
    for note in notes:
        for language in LANGUAGES:
            assert "{" not in Words(language)(note.key, **note.values)
    return [note.key for note in notes]


def refused(action: Callable[..., object], *args: object, **named: object) -> UserError:
    with pytest.raises(UserError) as caught:
        action(*args, **named)
    said(caught.value)
    return caught.value


def csv_text(rows: Sequence[dict[str, Any]], separator: str = ",", line_end: str = "\n") -> str:
    target = io.StringIO(newline="")
    writer = csv.writer(target, delimiter=separator, lineterminator=line_end)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return target.getvalue()


def write(path: Path, rows: Sequence[dict[str, Any]], encoding: str = "utf-8") -> Path:
    """The rows as a file of the type that the name says."""
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        sheet = book.worksheets[0]
        sheet.append(list(rows[0]))
        for row in rows:
            sheet.append(list(row.values()))
        book.save(path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding=encoding)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    else:
        text = csv_text(rows, "\t" if path.suffix == ".tsv" else ",")
        path.write_bytes(text.encode(encoding))
    return path


def table(*rows: dict[str, Any]) -> Table:
    return Table(list(dict.fromkeys(name for row in rows for name in row)), list(rows))


def converted(*rows: dict[str, Any]) -> Converted:
    """Through guess and convert, as an upload goes."""
    data = table(*rows)
    result = convert(data, guess(data))
    told(result.notes)
    return result


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def read(folder: Path, name: str, content: str | bytes) -> Table:
    result = read_file(file_of(folder, name, content))
    told(result.notes)
    return result


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}
