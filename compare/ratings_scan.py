"""Bytes of ratings.csv -> light columns, fast where the file is as we write it.

Covers: proving that bytes are rows of ours (every cell quoted, "\\n" after each row, as many cells as the header), cutting
them into rows, checking their fields over whole columns. Does not cover: any other file, which the exact reader reads
row by row (ratings.py); rows whose fields are not plainly right are given back for it too.

The proof: between a closing and the next opening quote stands nothing (a doubled quote within a cell), or one comma, or
one line end. Under that grammar the exact reader cuts at the same places, for no line within a cell can begin like a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from assets.errors import UserError
from compare.rating import ACTIONS, COLUMNS, KINDS, SCHEMA_VERSION, SIDES, WINNERS, read_json_cell
from compare.ratings_table import CODED, LightVote, schema, seconds_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SEGMENT = 1 << 24
_QUOTE, _COMMA, _NEWLINE = 34, 44, 10
_JSON = ("conversation", "criteria", "sampling", "provenance", "timing")
_ESCAPED = ("response_a", "response_b", "comment")


class Odd(Exception):
    """The bytes are not as we write them."""


@dataclass(frozen=True)
class Cut:
    """Rows in a piece of the file, up to byte ``end`` of it: offsets and lengths in bytes, the line each begins on;
    ``lines`` line ends in all."""

    end: int
    offsets: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    line_numbers: np.ndarray[Any, Any]
    lines: int


@dataclass(frozen=True)
class Segment:
    """``data``: light columns of the rows that are plainly right; ``odd``: (line, offset, length) of the others."""

    data: pa.Table
    odd: list[tuple[int, int, int]]
    rows: int
    end: int
    lines: int


def segments(file: BinaryIO, start: int, end: int, line: int, header: Sequence[str]) -> Iterator[Segment]:
    """The whole rows from byte ``start`` (line number ``line``) to ``end``; a last one that is cut off is left. Odd when
    they are not as we write them."""
    if not set(COLUMNS) <= set(header):
        raise Odd("columns")
    size = SEGMENT
    while start < end:
        file.seek(start)
        data = file.read(min(size, end - start))
        cut = _cut(data, line, len(header))
        if cut is not None:
            yield _read(data[: cut.end], cut, start, header)
            start, line, size = start + cut.end, line + cut.lines, SEGMENT
        elif start + len(data) < end and len(data) == size:
            size *= 2
        else:
            return


def _cut(data: bytes, line: int, width: int) -> Cut | None:
    """The whole rows at the beginning of ``data``; None when there is not one."""
    import numpy as np

    part = np.frombuffer(data, dtype=np.uint8)
    if not len(part) or part[0] != _QUOTE:
        raise Odd("no quote first")
    quotes = np.flatnonzero(part == _QUOTE)
    closing, opening = quotes[1::2], quotes[2::2]
    if len(closing) and closing[-1] + 1 == len(part):
        closing = closing[:-1]  # what follows it is not here
    after = part[closing + 1]
    gaps = opening[: len(closing)] - closing[: len(opening)]
    between = after[: len(gaps)]
    if not (((gaps == 1) & (between == _QUOTE)) | ((gaps == 2) & ((between == _COMMA) | (between == _NEWLINE)))).all():
        raise Odd("between cells")
    last = after[len(gaps) :]
    if not np.isin(last, (_COMMA, _NEWLINE, _QUOTE)).all():
        raise Odd("after a cell")
    ends = np.flatnonzero(after == _NEWLINE)
    if not len(ends):
        return None
    commas = np.cumsum(after == _COMMA)[ends]
    if not (np.diff(commas, prepend=0) == width - 1).all():
        raise Odd("cells")
    stops = closing[ends] + 2
    starts = np.concatenate(([0], stops[:-1]))
    newlines = np.flatnonzero(part[: stops[-1]] == _NEWLINE)
    numbers = line + np.searchsorted(newlines, starts)
    return Cut(int(stops[-1]), starts, stops - starts, numbers, len(newlines))


def _read(piece: bytes, cut: Cut, start: int, header: Sequence[str]) -> Segment:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            pa.BufferReader(piece),
            read_options=csv.ReadOptions(column_names=list(header), block_size=len(piece) + 1, use_threads=True),
            parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=list(COLUMNS),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise Odd(str(error)) from error
    if table.num_rows != len(cut.offsets):
        raise Odd("rows")
    return _checked(table, cut, start)


def _checked(table: pa.Table, cut: Cut, start: int) -> Segment:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.combine_chunks()
    fine, seconds = _fine(table)
    columns: dict[str, Any] = {
        "line": pa.array(cut.line_numbers, pa.int64()),
        "offset": pa.array(start + cut.offsets, pa.int64()),
        "length": pa.array(cut.lengths, pa.int32()),
        "length_a": pc.utf8_length(table.column("response_a")),
        "length_b": pc.utf8_length(table.column("response_b")),
        "comment_length": pc.utf8_length(table.column("comment")),
        "seconds": pa.array(seconds, pa.float64()),
        "blind": pc.equal(table.column("blind"), "true"),
    }
    for name in LightVote._fields:
        if name not in columns:
            columns[name] = table.column(name).dictionary_encode() if name in CODED else table.column(name)
    data = pa.table({name: columns[name] for name in LightVote._fields}).cast(schema())
    odd: list[tuple[int, int, int]] = []
    if not fine.all():
        data = data.filter(pa.array(fine))
        places = np.flatnonzero(~fine)
        odd = [(int(cut.line_numbers[i]), start + int(cut.offsets[i]), int(cut.lengths[i])) for i in places]
    return Segment(data, odd, table.num_rows, start + cut.end, cut.lines)


def _fine(table: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which rows are right beyond doubt, and the seconds to vote of every row."""
    import pyarrow.compute as pc

    def among(name: str, values: Sequence[str]) -> Any:
        import pyarrow as pa

        return pc.is_in(table.column(name), pa.array(values, pa.string()))

    def given(name: str) -> Any:
        return pc.not_equal(table.column(name), "")

    vote = [
        among("winner", WINNERS),
        among("left_is", SIDES),
        given("model_a"),
        given("model_b"),
        among("action", ("vote",)),
    ]
    back = pc.and_(given("target_rating_id"), pc.invert(among("action", ("vote",))))
    checks = [
        pc.or_(_all(vote), back),
        among("schema_version", (str(SCHEMA_VERSION),)),
        among("action", ACTIONS),
        among("kind", KINDS),
        among("blind", ("true", "false")),
        given("rating_id"),
        pc.match_substring_regex(table.column("seed"), r"^-?[0-9]{1,18}$"),
    ]
    checks += [pc.invert(pc.match_substring(table.column(name), "\\ud")) for name in (*_ESCAPED, *_texts())]
    fine = _all(checks).to_numpy(zero_copy_only=False)
    seconds = None
    for name in _JSON:
        codes, values = _json_cells(table.column(name), name)
        fine &= values[0][codes]
        if name == "timing":
            seconds = values[1][codes]
    assert seconds is not None
    return fine, seconds


def _texts() -> list[str]:
    checked = {*_JSON, "action", "kind", "winner", "left_is"}
    return [name for name in LightVote._fields if name in COLUMNS and name not in checked and name != "blind"]


def _json_cells(column: pa.ChunkedArray, name: str) -> tuple[Any, tuple[Any, Any]]:
    """(code per row, (right per code, seconds to vote per code)): each different cell is parsed once."""
    import numpy as np

    coded = column.combine_chunks().dictionary_encode()
    right, seconds = [], []
    for text in coded.dictionary.to_pylist():
        try:
            value = read_json_cell(name, text) if text else {}
        except UserError:
            value = None
        right.append(value is not None)
        seconds.append(seconds_of(value) if name == "timing" and value else float("nan"))
    return coded.indices.to_numpy(zero_copy_only=False), (np.array(right, dtype=bool), np.array(seconds))


def _all(masks: Sequence[Any]) -> Any:
    import pyarrow.compute as pc

    found = masks[0]
    for mask in masks[1:]:
        found = pc.and_(found, mask)
    return found
