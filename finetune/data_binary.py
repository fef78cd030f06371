"""Excel workbooks and Parquet files to a table.

Covers: the first sheet that has rows, numbers and dates as the text a person sees, Parquet's nested values as they are.
Does not cover: .xls, locked workbooks (both are said), formulas that were never calculated (their cells are empty).
"""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.errors import UserError
from finetune.data_separated import tabulate
from finetune.data_table import Note, Table

MAX_UNPACKED = 2 << 30


def read_xlsx(path: Path) -> Table:
    """UserError: data.broken, data.unpacks_too_large."""
    import openpyxl

    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(item.file_size for item in packed.infolist())
        if size > MAX_UNPACKED:
            raise UserError("data.unpacks_too_large", gb=MAX_UNPACKED >> 30)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = book.worksheets
            title, grid = _first_with_rows(sheets)
        finally:
            book.close()
    except UserError:
        raise
    except Exception as error:  # a damaged workbook fails in any of three parsers, in their own ways
        raise UserError("data.broken", name=path.name) from error
    notes = [Note("data.sheet", {"name": title, "count": len(sheets)})] if len(sheets) > 1 else []
    if not grid:
        return Table([], [], notes=notes)
    columns, rows, more = tabulate(grid[0], grid[1:])
    return Table(columns, [dict(row) for row in rows], notes=[*notes, *more])


def _first_with_rows(sheets: Sequence[Any]) -> tuple[str, list[list[str]]]:
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs write a wrong size, and then cells would be missed
        grid = _grid(sheet)
        if len(grid) > 1:
            return str(sheet.title), grid
    return "", []


def _grid(sheet: Any) -> list[list[str]]:
    grid = [[_cell(cell) for cell in row] for row in sheet.iter_rows()]
    grid = [row for row in grid if any(text.strip() for text in row)]
    width = max((len(row) for row in grid), default=0)
    return [row + [""] * (width - len(row)) for row in grid]


def _cell(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return _unescape(value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = str(value)
    mask = cell.number_format
    return text.zfill(len(mask)) if isinstance(value, int) and mask and set(mask) == {"0"} else text


def _unescape(text: str) -> str:
    if "_x" not in text:
        return text
    from openpyxl.utils.escape import unescape

    return str(unescape(text))


def read_parquet(path: Path, limit: int | None = None) -> Table:
    """All rows, or the first ``limit``. UserError: data.broken, data.unpacks_too_large."""
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            if limit is None and sum(group.total_byte_size for group in groups) > MAX_UNPACKED:
                raise UserError("data.unpacks_too_large", gb=MAX_UNPACKED >> 30)
            columns, _, notes = tabulate(file.schema_arrow.names, [["x"] * len(file.schema_arrow.names)])
            for batch in file.iter_batches():
                if limit is not None and len(rows) >= limit:
                    break
                rows.extend(batch.rename_columns(columns).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError("data.broken", name=path.name) from error
    return Table(columns, rows[:limit], notes=notes)
