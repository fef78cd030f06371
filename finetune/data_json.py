"""JSON and JSON Lines to a table.

Covers: a list of objects, a list inside an object, columns as lists, one object per line, conversations and texts that
stand there without an object around them. Does not cover: what the columns mean (data_shapes).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from assets.errors import UserError
from finetune.data_messages import is_conversation
from finetune.data_table import Note, Table

_DEPTH = 4
_NAMED = 10


def read_json(text: str) -> Table:
    """A .json file; one that really holds JSON Lines is read as such. UserError: data.bad_json, data.json_no_list."""
    try:
        value = _loads(text)
    except ValueError as error:
        rows, broken = _lines(text)
        if len(rows) < 2 or len(broken) >= len(rows):
            raise UserError("data.bad_json", line=getattr(error, "lineno", 1)) from error
        return _table(rows, [Note("data.json_is_lines"), *_broken(broken)])
    rows, notes = _rows(value)
    return _table(rows, notes)


def read_lines(text: str) -> Table:
    """A .jsonl file; one that really holds one JSON value is read as such. UserError: data.bad_json."""
    rows, broken = _lines(text)
    if len(broken) > len(rows):
        try:
            value = _loads(text)
        except ValueError as error:
            raise UserError("data.bad_json", line=broken[0]) from error
        rows, notes = _rows(value)
        return _table(rows, [Note("data.lines_are_json"), *notes])
    return _table(rows, _broken(broken))


def _broken(lines: list[int]) -> list[Note]:
    return [Note("data.bad_lines", {"count": len(lines), "line": lines[0]})] if lines else []


def _loads(text: str) -> Any:
    """json.loads with NaN and Infinity as null, and nesting too deep for the parser as the ValueError it is."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _lines(text: str) -> tuple[list[Any], list[int]]:
    rows: list[Any] = []
    broken: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(_loads(line))
            except ValueError:
                broken.append(number)
    return rows, broken


def _rows(value: Any) -> tuple[list[Any], list[Note]]:
    if isinstance(value, list):
        return ([value] if is_conversation(value) else value), []
    if not isinstance(value, dict):
        raise UserError("data.json_no_list")
    if not value or _is_row(value):
        return ([value] if value else []), []
    if _columnar(value):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)], []
    lists = _lists(value, _DEPTH)
    if _keyed(value, bool(lists)):
        return _indexed(value), []
    if not lists:
        raise UserError("data.json_no_list")
    name = next(iter(lists)) if len(lists) == 1 else "train"
    if name not in lists:
        raise UserError("data.json_lists", names=", ".join(list(lists)[:_NAMED]))
    return lists[name], [Note("data.json_list", {"name": name})]


def _is_row(value: dict[str, Any]) -> bool:
    """One conversation (or one AI Hub talk) on its own."""
    return any(is_conversation(item) for item in value.values()) or isinstance(value.get("talk"), dict)


def _columnar(value: dict[str, Any]) -> bool:
    items = list(value.values())
    if len(items) < 2 or not all(isinstance(item, list) for item in items):
        return False
    return len({len(item) for item in items}) == 1 and not any(
        isinstance(cell, dict) for item in items for cell in item
    )


def _keyed(value: dict[str, Any], holds_lists: bool) -> bool:
    """Whether rows (or columns) stand by key instead of in a list."""
    items = list(value.values())
    if not all(isinstance(item, dict) and item for item in items):
        return False
    return not holds_lists or (len(items) > 1 and all(item.keys() == items[0].keys() for item in items))


def _indexed(value: dict[str, dict[str, Any]]) -> list[Any]:
    """What pandas writes: {column: {"0": cell}}; or {id: row}."""
    inner = list(value.values())
    if all(key.isdecimal() for item in inner for key in item):
        numbers = dict.fromkeys(key for item in inner for key in item)
        return [{column: cells.get(number) for column, cells in value.items()} for number in numbers]
    return inner


def _lists(value: dict[str, Any], depth: int) -> dict[str, list[Any]]:
    """The lists of objects, conversations or texts inside, by dotted name."""
    found: dict[str, list[Any]] = {}
    for key, item in value.items():
        if isinstance(item, list) and item and all(isinstance(row, (dict, list, str)) for row in item):
            found[key] = item
        elif isinstance(item, dict) and depth > 1:
            found.update({f"{key}.{name}": rows for name, rows in _lists(item, depth - 1).items()})
    return found


def _table(values: Sequence[Any], notes: list[Note]) -> Table:
    rows: list[dict[str, Any]] = []
    strange = 0
    for value in values:
        if isinstance(value, dict):
            rows.append(value)
        elif is_conversation(value):
            rows.append({"messages": value})
        elif isinstance(value, str):
            rows.append({"text": value})
        else:
            strange += 1
    if strange:
        notes = [*notes, Note("data.not_object", {"count": strange})]
    return Table(list(dict.fromkeys(name for row in rows for name in row)), rows, notes=notes)
