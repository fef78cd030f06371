"""Rows of a CSV that several processes append to and people edit by hand.

Covers: locked and synced appends in the file's own column order, cutting a file into records, setting a torn last
record aside, text that UTF-8 cannot carry. Does not cover: what the columns mean (ratings.py).

The file is UTF-8 without BOM, every cell quoted, "\\n" at the end of a row. Lone surrogates are not UTF-8: in a text
cell one becomes ``\\udXXX``, and n backslashes that stand before such letters in the text itself become 2n, so that an
odd number always means a surrogate. Every other text is stored as it is.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from assets.errors import UserError
from assets.files import lock

BOM = b"\xef\xbb\xbf"
MAX_CELL = 1 << 28
# Seconds between two tries for the file's lock; filelock's own 50 ms would be felt when several processes vote at once.
POLL = 0.004
# Within a quoted cell quotes come in pairs, so a line that starts with one quote and a character is a new record, even
# when the record before it was cut off inside a cell.
_STARTS = re.compile(rb'"[^",\r\n]')
_SURROGATE = re.compile("[\ud800-\udfff]")
_TO_ESCAPE = re.compile(r"(?<!\\)(\\*+)([" + "\ud800-\udfff" + r"])|(?<!\\)(\\++)(?=ud[89a-f][0-9a-f]{2})")
_ESCAPED = re.compile(r"(?<!\\)(\\++)(ud[89a-f][0-9a-f]{2})")


def escape(text: str) -> str:
    """The text with lone surrogates written as ``\\udXXX``; ``unescape`` gives it back exactly."""

    def one(match: re.Match[str]) -> str:
        if match[3]:
            return match[3] * 2
        return match[1] * 2 + f"\\u{ord(match[2]):04x}"

    return _TO_ESCAPE.sub(one, text) if "\\ud" in text or _SURROGATE.search(text) else text


def unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        half = len(match[1]) // 2 * "\\"
        return half + (chr(int(match[2][1:], 16)) if len(match[1]) % 2 else match[2])

    return _ESCAPED.sub(one, text) if "\\ud" in text else text


def to_json(value: object) -> str:
    """Compact JSON that UTF-8 can carry; lone surrogates in JSON's own escape. ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_line(cells: Iterable[str]) -> bytes:
    """One row as bytes, every cell quoted."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return out.getvalue().encode("utf-8")


@dataclass(frozen=True)
class Record:
    """Bytes of one row. ``line`` counts from 1 as editors do, ``start`` is the offset; a ``whole`` one has its end."""

    line: int
    start: int
    raw: bytes
    whole: bool

    def cells(self) -> list[str]:
        """The cells, read as UTF-8 or else CP949. UserError("ratings.encoding") or ("ratings.quotes")."""
        raw = self.raw.removeprefix(BOM) if self.start == 0 else self.raw
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = _korean(raw)
        csv.field_size_limit(MAX_CELL)  # the default of 128 KiB is per process and refuses long conversations
        try:
            rows = list(csv.reader([text], strict=True))
        except csv.Error as error:
            raise UserError("ratings.quotes") from error
        return rows[0] if rows else []

    def complete(self, width: int) -> bool:
        """False for a row of ours (quote first, quote last) that broke off before the last of ``width`` cells."""
        if self.whole or not self.raw.startswith(b'"'):
            return True
        closed = self.raw.endswith(b'"') and self.raw.count(b'"') % 2 == 0
        return closed and len(self.cells()) == width

    @property
    def blank(self) -> bool:
        return not self.raw.strip()


def _korean(raw: bytes) -> str:
    try:
        return raw.decode("cp949")
    except UnicodeDecodeError as error:
        raise UserError("ratings.encoding") from error


def records(lines: Iterable[bytes], line_number: int = 1, start: int = 0) -> Iterator[Record]:
    """Cut lines (each with its "\\n") into records. One cut off inside a cell ends where the next clearly begins.

    ``line_number`` and ``start`` are the line number and the offset of the first line.
    """
    held: list[bytes] = []
    first, inside = line_number, False
    for number, line in enumerate(lines, line_number):
        if inside and _STARTS.match(line):
            yield Record(first, start, b"".join(held), False)
            start, held, inside = start + sum(map(len, held)), [], False
        if not held:
            first = number
        held.append(line)
        inside ^= bool(line.count(b'"') & 1)
        if not inside and line.endswith(b"\n"):
            yield Record(first, start, b"".join(held), True)
            start, held = start + sum(map(len, held)), []
    if held:
        yield Record(first, start, b"".join(held), False)


@dataclass(eq=False)
class _Waiting:
    """Rows that a thread wants written; ``error`` is why they were not."""

    rows: Sequence[Mapping[str, str]]
    written: bool = False
    error: BaseException | None = None


class CsvStore:
    """One CSV file and its lock. ``columns`` is the order in which a new file is begun.

    Threads that append at the same time share one lock and one sync: whoever comes first writes for all that wait.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        self._queue: deque[_Waiting] = deque()
        self._writing = threading.Lock()

    def append(self, *rows: Mapping[str, str]) -> None:
        """Add rows (every column of ours as text), all or none, and return once they are on disk.

        UserError("ratings.busy"), ("ratings.not_saved") when the disk refuses, ("ratings.columns_missing") or
        ("ratings.not_a_table") when the file there is not one that can hold a row.
        """
        if not rows:
            return
        mine = _Waiting(rows)
        self._queue.append(mine)
        with self._writing:
            if not (mine.written or mine.error):
                self._write_all([self._queue.popleft() for _ in range(len(self._queue))])
        if mine.error is not None:
            raise mine.error

    def _write_all(self, waiting: Sequence[_Waiting]) -> None:
        try:
            self._write_rows([row for one in waiting for row in one.rows])
        except BaseException as error:
            for one in waiting:
                one.error = error
        else:
            for one in waiting:
                one.written = True

    def _write_rows(self, rows: Sequence[Mapping[str, str]]) -> None:
        with self._opened() as handle:
            header = self._header(handle)
            self._mend(handle, len(header))
            size = os.fstat(handle).st_size
            lines = [] if size else [to_line(self.columns)]
            lines += [self._ending(handle, size)] + [to_line(row.get(name, "") for name in header) for row in rows]
            try:
                _write(handle, b"".join(lines))
            except OSError:
                os.ftruncate(handle, size)
                raise
            if not size:
                _sync_folder(self.path.parent)

    def recover(self) -> Path | None:
        """Set a torn last record aside and say where; None when the file is whole or not there."""
        if not self.path.exists():
            return None
        with self._opened() as handle:
            try:
                header = self._header(handle)
            except UserError:
                return None  # not a table of ours: left alone, and every reader says so
            return self._set_aside(handle, len(header))

    def records(self, start: int = 0, line: int = 1) -> Iterator[Record]:
        """The records in the file now, from byte ``start`` (line number ``line``) on. Rows that are being written
        meanwhile are left for the next reading."""
        if not self.path.exists():
            return
        with self._opened() as handle:
            size = os.fstat(handle).st_size
        with self.path.open("rb") as file:
            file.seek(start)
            yield from records(limited(file, size - start), line, start)

    def set_aside(self) -> list[Path]:
        """What ``recover`` has put aside so far, oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.torn-*{self.path.suffix}"))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            with lock(self.path).acquire(poll_interval=POLL):
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    yield handle
                finally:
                    os.close(handle)
        except Timeout as error:
            raise UserError("ratings.busy") from error
        except OSError as error:
            raise UserError("ratings.not_saved", reason=error.strerror or str(error)) from error

    def _header(self, handle: int) -> Sequence[str]:
        """The file's own columns; ours for an empty file and for one that broke off while its header was written."""
        with open(handle, "rb", closefd=False) as file:
            file.seek(0)
            record = next(records(file), None)
        if record is None or self._torn_header(record):
            return self.columns
        header = header_of(record)
        missing = [name for name in self.columns if name not in header]
        if missing:
            raise UserError("ratings.columns_missing", columns=", ".join(missing), file=self.path.name)
        return header

    def _torn_header(self, record: Record) -> bool:
        whole = to_line(self.columns)
        return len(record.raw) < len(whole) - 1 and whole.startswith(record.raw)

    def _mend(self, handle: int, width: int) -> None:
        """Set a torn end aside. An end as our own rows have it needs no look at the rest of the file."""
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 2, max(0, size - 2)) != b'"\n':
            self._set_aside(handle, width)

    def _ending(self, handle: int, size: int) -> bytes:
        return b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""

    def _set_aside(self, handle: int, width: int) -> Path | None:
        with open(handle, "rb", closefd=False) as file:
            file.seek(0)
            last = next(iter(deque(records(file), maxlen=1)), None)
        if last is None or (last.complete(width) and not self._torn_header(last)):
            return None
        aside = self.path.with_name(f"{self.path.stem}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S%f}{self.path.suffix}")
        kept = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            _write(kept, last.raw)
        finally:
            os.close(kept)
        _sync_folder(aside.parent)
        os.ftruncate(handle, last.start)
        os.fsync(handle)
        return aside


def header_of(record: Record) -> list[str]:
    """Column names. UserError("ratings.not_a_table") for what is no header, ("ratings.columns_twice") for doubles."""
    try:
        names = [name.strip() for name in record.cells()]
    except UserError as error:
        raise UserError("ratings.not_a_table") from error
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UserError("ratings.columns_twice", columns=", ".join(twice))
    return names


def limited(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The lines of the first ``size`` bytes."""
    for line in lines:
        if size <= 0:
            return
        yield line[:size]
        size -= len(line)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
