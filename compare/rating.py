"""One row of ratings.csv as a typed value.

Covers: the columns, their vocabularies, text and JSON cells both ways, rows of older versions. Does not cover: the file
(csv_store.py, ratings.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from assets.errors import UserError
from compare.csv_store import escape, to_json, unescape

SCHEMA_VERSION = 1
ACTIONS = ("vote", "undo", "withdraw")
KINDS = ("free", "main", "repeat", "aa", "practice")
SIDES = ("model_a", "model_b")
WINNERS = ("model_a", "model_b", "tie", "both_bad")

Message = dict[str, str]
Side = Literal["model_a", "model_b"]


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One row. ``model_a`` is always the same arm; ``left_is`` says where it stood.

    ``conversation`` is what both arms were given, or ``{"model_a": [...], "model_b": [...]}`` when their histories had
    parted. ``criteria`` is ``{"model_a": {criterion: number}, "model_b": {...}}``. UserError("ratings.bad_value") for a
    value outside its vocabulary.
    """

    schema_version: int = SCHEMA_VERSION
    rating_id: str
    created_at: str = ""
    app_version: str = ""
    action: str = "vote"
    target_rating_id: str = ""
    study_id: str = ""
    item_id: str = ""
    kind: str = "free"
    rater: str = ""
    rater_role: str = ""
    domain: str = ""
    prompt_set: str = ""
    prompt_id: str = ""
    conversation: list[Message] | dict[str, list[Message]] = field(default_factory=list)
    response_a: str = ""
    response_b: str = ""
    model_a: str = ""
    model_b: str = ""
    left_is: str = ""
    layout: str = ""
    blind: bool = False
    winner: str = ""
    criteria: dict[str, dict[str, float]] = field(default_factory=dict)
    comment: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within("action", self.action, ACTIONS)
        _within("kind", self.kind, KINDS)
        _given("rating_id", self.rating_id)
        if self.action != "vote":
            _given("target_rating_id", self.target_rating_id)
            return
        _within("winner", self.winner, WINNERS)
        _within("left_is", self.left_is, SIDES)
        _given("model_a", self.model_a)
        _given("model_b", self.model_b)
        if not set(self.criteria) <= set(SIDES):
            raise UserError("ratings.bad_value", column="criteria", value=", ".join(self.criteria))

    def turns(self, side: Side) -> list[Message]:
        """The messages that the arm ``side`` answered."""
        return self.conversation[side] if isinstance(self.conversation, dict) else self.conversation

    def response(self, side: Side) -> str:
        return self.response_a if side == "model_a" else self.response_b


def _within(column: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError("ratings.bad_value", column=column, value=value[:80])


def _given(column: str, value: str) -> None:
    if not value:
        raise UserError("ratings.empty_value", column=column)


COLUMNS = tuple(f.name for f in fields(Rating))
# A conversation may be a list or, per side, an object.
_JSON: Mapping[str, tuple[type, ...]] = {
    "conversation": (list, dict),
    "criteria": (dict,),
    "sampling": (dict,),
    "provenance": (dict,),
    "timing": (dict,),
}


def to_cells(rating: Rating) -> dict[str, str]:
    """The row as text by column."""
    cells = {}
    for name in COLUMNS:
        value = getattr(rating, name)
        if name in _JSON:
            cells[name] = to_json(value)
        elif isinstance(value, str):
            cells[name] = escape(value)
        else:
            cells[name] = str(value).lower()
    return cells


def from_cells(cells: Mapping[str, str], line: int = 0) -> Rating:
    """A row of any version up to ours; ``line`` names one that has no id. UserError with the column and the value."""
    row = _migrate(dict(cells), line)
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text = row.get(name, "")
        if name in _JSON:
            if text:
                values[name] = read_json_cell(name, text)
        elif name in ("schema_version", "seed"):
            values[name] = _read_int(name, text or "0")
        elif name == "blind":
            values[name] = _read_bool(name, text)
        else:
            values[name] = unescape(text)
    return Rating(**values)


def read_json_cell(column: str, text: str) -> Any:
    """The value of a JSON cell. UserError("ratings.bad_json") unless it is one that the column can hold."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise UserError("ratings.bad_json", column=column) from error
    if not isinstance(value, _JSON[column]) or not _shaped(column, value):
        raise UserError("ratings.bad_json", column=column)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _shaped(column: str, value: Any) -> bool:
    if column == "conversation":
        lists = [value] if isinstance(value, list) else [value[side] for side in SIDES if side in value]
        if isinstance(value, dict) and set(value) != set(SIDES):
            return False
        return all(isinstance(turns, list) and all(map(_is_message, turns)) for turns in lists)
    if column == "criteria":
        return all(
            isinstance(marks, dict) and all(type(mark) in (int, float) for mark in marks.values())
            for marks in value.values()
        )
    return True


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _read_int(column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UserError("ratings.bad_value", column=column, value=text[:80]) from error


def _read_bool(column: str, text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False, "": False}
    if text.strip().lower() not in known:
        raise UserError("ratings.bad_value", column=column, value=text[:80])
    return known[text.strip().lower()]


def _from_0(row: dict[str, str], line: int) -> dict[str, str]:
    """Version 0: a plain table in the words of arena tools (model_a, model_b, winner, prompt), A on the left."""
    if prompt := row.pop("prompt", ""):
        row["conversation"] = to_json([{"role": "user", "content": prompt}])
    row["winner"] = {"tie (bothbad)": "both_bad", "both bad": "both_bad"}.get(row.get("winner", ""), row["winner"])
    for name, value in (("action", "vote"), ("kind", "free"), ("left_is", "model_a")):
        row[name] = row.get(name) or value
    if not row.get("rating_id"):
        row["rating_id"] = f"v0-{line}"
    return row


_MIGRATIONS: tuple[Callable[[dict[str, str], int], dict[str, str]], ...] = (_from_0,)


def _migrate(row: dict[str, str], line: int) -> dict[str, str]:
    version = _read_int("schema_version", row.get("schema_version") or "0")
    if not 0 <= version <= SCHEMA_VERSION:
        raise UserError("ratings.newer", version=version)
    for step in _MIGRATIONS[version:]:
        row = step(row, line)
    return row | {"schema_version": str(SCHEMA_VERSION)}
