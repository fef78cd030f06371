"""Comma-, tab- and otherwise separated text to a table.

Covers: finding the separator, quoted commas and line breaks, rows that do not fit, headers given twice. Every cell
stays the text it was ("007", "NA"). Does not cover: files without a header line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from assets.errors import UserError
from finetune.data_table import Note, Table

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_NONE = "\x1f"  # a separator that no text has, for files of one column
_SAMPLE = 1 << 17
_FIELD_LIMIT = 1 << 30
_NAMED = 10

Line = tuple[int, list[str]]


def read_separated(text: str, default: str) -> Table:
    """``default`` is the separator that the file's name promises. UserError: data.unclosed_quote, data.all_ragged."""
    csv.field_size_limit(_FIELD_LIMIT)
    separator = sniff(text, default)
    lines, notes = _parse(text, separator)
    if separator not in (default, _NONE):
        notes.insert(0, Note(f"data.separator.{SEPARATORS[separator]}"))
    if not lines:
        return Table([], [], notes=notes)
    header = _trim(lines[0][1], 0)
    body, ragged = _fitting(lines[1:], len(header))
    if ragged:
        if not body:
            raise UserError("data.all_ragged", columns=len(header), line=ragged[0])
        notes.append(Note("data.ragged", {"count": len(ragged), "columns": len(header), "line": ragged[0]}))
    columns, rows, more = tabulate(header, body)
    return Table(columns, rows, notes=[*notes, *more])


def sniff(text: str, default: str) -> str:
    """The separator that cuts most lines into as many cells as the header has; a separator of one column otherwise."""
    best, best_share = _NONE, 0.0
    for separator in (default, *(mark for mark in SEPARATORS if mark != default)):
        widths = _widths(text, separator)
        if widths and widths[0] > 1:
            share = widths.count(widths[0]) / len(widths)
            if share > best_share:
                best, best_share = separator, share
    return best


def _widths(text: str, separator: str) -> list[int]:
    rows = [
        cells
        for _, cells in _records(text[:_SAMPLE], separator, csv.QUOTE_MINIMAL)
        if isinstance(cells, list) and cells
    ]
    if len(text) > _SAMPLE:
        rows = rows[:-1]
    return [len(cells) for cells in rows]


def _records(text: str, separator: str, quoting: int) -> Iterator[tuple[int, list[str] | int]]:
    """Line number and cells of each record; where the quoting is broken, the number of lines lost stands for cells."""
    quoting_options: dict[str, Any] = {"quoting": quoting, "strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, **quoting_options)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield line, reader.line_num - line + 1


def _parse(text: str, separator: str) -> tuple[list[Line], list[Note]]:
    whole: list[Line] = []
    broken: dict[int, int] = {}
    for line, cells in _records(text, separator, csv.QUOTE_MINIMAL):
        if isinstance(cells, int):
            broken[line] = cells
        elif any(cell.strip() for cell in cells):
            whole.append((line, cells))
    if not broken:
        return whole, []
    literal = _literal(text, separator)
    if literal:
        return literal, [Note("data.quotes_kept")]
    last = max(broken)
    if broken[last] > 1 and _open_to_the_end(text, last, separator):
        raise UserError("data.unclosed_quote", line=last)
    return whole, [Note("data.bad_quotes", {"count": sum(broken.values()), "line": min(broken)})]


def _literal(text: str, separator: str) -> list[Line]:
    """The lines with quotation marks as plain characters, if the file fits together that way; empty otherwise."""
    lines: list[Line] = []
    for line, cells in _records(text, separator, csv.QUOTE_NONE):
        if isinstance(cells, list) and any(cell.strip() for cell in cells):
            quoted = any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
            if quoted or (lines and len(cells) != len(lines[0][1])):
                return []
            lines.append((line, cells))
    return lines


def _open_to_the_end(text: str, line: int, separator: str) -> bool:
    """Whether the record that starts at ``line`` swallows the rest of the text."""
    source = io.StringIO(text, newline="")
    for _ in range(line - 1):
        source.readline()
    reader = csv.reader(source, delimiter=separator, strict=True)
    try:
        next(reader)
    except csv.Error:
        return not source.readline()
    return False


def _fitting(lines: Sequence[Line], width: int) -> tuple[list[list[str]], list[int]]:
    body: list[list[str]] = []
    ragged: list[int] = []
    for line, cells in lines:
        fit = _trim(cells, width)
        if len(fit) == width:
            body.append(fit)
        else:
            ragged.append(line)
    return body, ragged


def _trim(cells: list[str], width: int) -> list[str]:
    """Without the empty cells beyond ``width`` that trailing separators leave."""
    end = len(cells)
    while end > width and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def tabulate(
    header: Sequence[str], body: Sequence[Sequence[str]]
) -> tuple[list[str], list[dict[str, str]], list[Note]]:
    """Columns with a name each, rows by name. Nameless empty columns go; names given twice are numbered, and said."""
    used = [place for place, name in enumerate(header) if name.strip() or any(cells[place].strip() for cells in body)]
    columns: dict[str, None] = {}
    renamed: list[str] = []
    uses: dict[str, int] = {}
    for place in used:
        wanted = header[place].strip() or f"column {place + 1}"
        name = wanted
        while name in columns:
            uses[wanted] = uses.get(wanted, 1) + 1
            name = f"{wanted} ({uses[wanted]})"
        if name != wanted:
            renamed.append(name)
        columns[name] = None
    rows = [{name: cells[place] for name, place in zip(columns, used, strict=True)} for cells in body]
    notes = [Note("data.same_header", {"count": len(renamed), "names": ", ".join(renamed[:_NAMED])})] if renamed else []
    return list(columns), rows, notes
