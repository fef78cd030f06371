"""Votes as files that others read.

Covers: the exact CSV, a CSV that is safe to open in a spreadsheet; what was left out of each and why. Does not cover:
pairs for training and arena tools (export_pairs.py), reports (export_report.py), pushing to the Hub.

The store keeps text exactly as shown. Only the spreadsheet file alters it: a cell that a spreadsheet would run as a
formula gets an apostrophe in front (OWASP's list, with the full-width forms and with blanks before the sign).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from assets.errors import UserError
from compare.csv_store import BOM, CsvStore, Record, to_line
from compare.rating import COLUMNS

_FORMULA = re.compile(r"[\t\r\n\0]|[\s\0\ufeff\u200b-\u200f]*[=+\-@＝＋－＠]")


@dataclass(frozen=True)
class Exported:
    """What a file holds: ``rows`` written, and how many were left out by reason (keys under "ratings.left_out.")."""

    path: Path
    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def export_csv(source: Path, target: Path) -> Exported:
    """The store byte for byte, as it is at this moment. UserError("ratings.nothing_to_export") when there is none."""
    rows = -1
    with written(target) as out:
        for record in _records(source):
            out.write(record.raw)
            rows += not record.blank
    return Exported(target, max(rows, 0))


def export_spreadsheet(source: Path, target: Path) -> Exported:
    """Every row that can be read, with a BOM, every cell quoted and none of them a formula."""
    rows, unreadable = -1, 0
    with written(target) as out:
        out.write(BOM)
        for record in _records(source):
            if record.blank:
                continue
            try:
                cells = record.cells()
            except UserError:
                unreadable += 1
                continue
            out.write(to_line(map(guarded, cells)))
            rows += 1
    return Exported(target, max(rows, 0), {"unreadable": unreadable} if unreadable else {})


def guarded(cell: str) -> str:
    """The cell with an apostrophe in front when a spreadsheet could take it for a formula."""
    return "'" + cell if _FORMULA.match(cell) else cell


def _records(source: Path) -> Iterator[Record]:
    if not source.exists():
        raise UserError("ratings.nothing_to_export")
    return CsvStore(source, COLUMNS).records()


@contextmanager
def written(target: Path) -> Iterator[BinaryIO]:
    """A file to write, gone again when that fails. UserError("ratings.not_saved") when the disk refuses."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("wb") as file:
            yield file
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError("ratings.not_saved", reason=error.strerror or str(error)) from error
    except UserError:
        target.unlink(missing_ok=True)
        raise
