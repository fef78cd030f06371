"""Rows of ratings.csv on their way to and from a repository.

Covers: which rows the file holds and where, parts of rows as small CSV files, the rows of such a part. Does not cover:
the Hub (sync_hub.py), what is new on either side (sync.py). A row is known by its rating_id; rows without one stay here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from assets.errors import UserError
from compare.csv_store import CsvStore, Record, header_of, records, to_line
from compare.rating import COLUMNS

ID = "rating_id"


class LocalRows:
    """The rows of one file by id, read on from where the last reading ended. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.store = CsvStore(path, COLUMNS)
        self.header: list[str] = []
        self.nameless = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._end, self._inode = 0, -1

    def refresh(self) -> None:
        """Look at what was appended; at everything again when the file was replaced. UserError for what is no table."""
        try:
            stat = self.store.path.stat()
        except FileNotFoundError:
            self._forget()
            return
        if stat.st_ino != self._inode or stat.st_size < self._end:
            self._forget()
            self._inode = stat.st_ino
        torn = 0
        for record in self.store.records(self._end):
            if not record.whole:  # being written, if it is the last one
                torn += 1
                continue
            self._end = record.start + len(record.raw)
            self.nameless, torn = self.nameless + torn, 0
            if not record.blank:
                self._take(record)

    def __contains__(self, rating_id: str) -> bool:
        return rating_id in self._places

    def ids(self) -> Iterable[str]:
        """In file order."""
        return self._places

    def part(self, ids: Sequence[str]) -> bytes:
        """These rows as a file of their own: the header, then their bytes as they are."""
        lines = [to_line(self.header)]
        with self.store.path.open("rb") as file:
            for rating_id in ids:
                start, length = self._places[rating_id]
                file.seek(start)
                lines.append(file.read(length))
        return b"".join(lines)

    def size(self, rating_id: str) -> int:
        """Bytes of a row."""
        return self._places[rating_id][1]

    def _forget(self) -> None:
        self.header, self.nameless, self._places = [], 0, {}
        self._end, self._inode = 0, -1

    def _take(self, record: Record) -> None:
        if not self.header:
            self.header = header_of(record)
            return
        rating_id = _id(record, self.header)
        if rating_id:
            self._places.setdefault(rating_id, (record.start, len(record.raw)))
        else:
            self.nameless += 1


def rows_of(part: bytes) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(rating_id, cells by column) of every whole row of a part. UserError when it is no table of ratings."""
    found = (record for record in records(io.BytesIO(part)) if not record.blank)
    first = next(found, None)
    header = header_of(first) if first is not None else []
    if ID not in header:
        raise UserError("ratings.not_a_table")
    for record in found:
        rating_id = _id(record, header) if record.whole else ""
        if rating_id:
            yield rating_id, dict(zip(header, record.cells(), strict=True))


def _id(record: Record, header: Sequence[str]) -> str:
    """The row's id; "" for a row that cannot be read or has none."""
    if ID not in header:
        return ""
    try:
        cells = record.cells()
    except UserError:
        return ""
    return cells[header.index(ID)].strip() if len(cells) == len(header) else ""
