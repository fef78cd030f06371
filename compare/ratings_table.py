"""The votes without their texts, in columns: what counts, what was taken back, what each row says about itself.

Covers: the light columns, undo and withdrawal over whole columns, rows as values. Does not cover: where the columns come
from (ratings_scan.py, ratings_index.py), the texts (RatingsFile.read_some).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compare.csv_store import to_json
from compare.rating import Rating

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class LightVote(NamedTuple):
    """A row without texts, under the names of Rating. ``line``, ``offset`` and ``length`` say where it stands (bytes);
    ``length_a`` and ``length_b`` count characters, ``comment_length`` too; ``seconds`` is the time to vote or NaN.
    ``criteria`` is shared between rows: read it only."""

    line: int
    offset: int
    length: int
    rating_id: str
    created_at: str
    action: str
    target_rating_id: str
    study_id: str
    item_id: str
    kind: str
    rater: str
    rater_role: str
    domain: str
    prompt_set: str
    prompt_id: str
    model_a: str
    model_b: str
    left_is: str
    layout: str
    winner: str
    blind: bool
    criteria: Mapping[str, Mapping[str, float]]
    length_a: int
    length_b: int
    comment_length: int
    seconds: float


NUMBERS = {
    "line": "int64", "offset": "int64", "length": "int32", "length_a": "int32", "length_b": "int32",
    "comment_length": "int32", "seconds": "float64", "blind": "bool",
}  # fmt: skip
# Columns of few different values are kept as a dictionary; the others hardly repeat.
PLAIN = ("rating_id", "created_at", "target_rating_id")
TEXTS = tuple(name for name in LightVote._fields if name not in NUMBERS)
CODED = tuple(name for name in TEXTS if name not in PLAIN)


@dataclass(frozen=True)
class Refused:
    """A row that is not counted: the line it begins on, and why (a key of the strings with its values)."""

    line: int
    reason_key: str
    values: Mapping[str, object] = field(default_factory=dict)


def light(rating: Rating, line: int, offset: int, length: int) -> LightVote:
    """What the columns keep of a row."""
    values = {name: getattr(rating, name) for name in TEXTS if name != "criteria"}
    return LightVote(
        line=line,
        offset=offset,
        length=length,
        blind=rating.blind,
        criteria=rating.criteria,
        length_a=len(rating.response_a),
        length_b=len(rating.response_b),
        comment_length=len(rating.comment),
        seconds=seconds_of(rating.timing),
        **values,
    )


def seconds_of(timing: Mapping[str, Any]) -> float:
    """The time to vote in ``timing``; NaN without one."""
    value: Any = timing.get("seconds_to_vote")
    return float(value) if type(value) in (int, float) and abs(value) < 1e12 else math.nan


def schema() -> pa.Schema:
    import pyarrow as pa

    kinds: dict[str, Any] = {name: pa.dictionary(pa.int32(), pa.string()) for name in CODED}
    kinds |= dict.fromkeys(PLAIN, pa.string())
    kinds |= {name: getattr(pa, "bool_" if kind == "bool" else kind)() for name, kind in NUMBERS.items()}
    return pa.schema([(name, kinds[name]) for name in LightVote._fields])


def to_arrow(rows: Sequence[LightVote]) -> pa.Table:
    """Rows as columns."""
    import pyarrow as pa

    columns = {name: [getattr(row, name) for row in rows] for name in LightVote._fields if name != "criteria"}
    columns["criteria"] = [to_json(row.criteria) for row in rows]
    safe = {name: [_utf8(cell) for cell in cells] if name in TEXTS else cells for name, cells in columns.items()}
    plain = pa.table({name: safe[name] for name in LightVote._fields}, schema=_plain_schema())
    return plain.cast(schema())


def _utf8(text: str) -> str:
    """Lone surrogates are no UTF-8; an id or a name with one is a hand-made oddity and becomes readable text."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema()])


def rows_of(table: pa.Table) -> list[LightVote]:
    """Columns as rows."""
    columns = {name: table.column(name).to_pylist() for name in LightVote._fields}
    parsed: dict[str, Any] = {text: json.loads(text) if text else {} for text in set(columns["criteria"])}
    columns["criteria"] = [parsed[text] for text in columns["criteria"]]
    return [LightVote(*cells) for cells in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class RatingsTable:
    """The counted votes, undo and withdrawal applied, in file order: ``data`` holds the columns of LightVote.

    ``rows`` counts all records but the header; ``repeated``, ``undone`` and ``withdrawn`` votes are not in ``data``;
    ``set_aside`` are torn records put into files of their own. ``criteria`` is JSON text in ``data``.
    """

    data: pa.Table
    rows: int = 0
    refused: list[Refused] = field(default_factory=list)
    repeated: int = 0
    undone: int = 0
    withdrawn: int = 0
    set_aside: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def votes(self) -> list[LightVote]:
        return rows_of(self.data)

    def column(self, name: str) -> list[Any]:
        cells: list[Any] = self.data.column(name).to_pylist()
        return cells

    def frame(self) -> pd.DataFrame:
        """A data frame; columns of few different values are categorical."""
        frame: pd.DataFrame = self.data.to_pandas()
        return frame

    def where(self, **wanted: object) -> RatingsTable:
        """The rows whose columns equal these values, or are one of them for a tuple, list or set."""
        import pyarrow as pa
        import pyarrow.compute as pc

        data = self.data
        for name, value in wanted.items():
            values = list(value) if isinstance(value, tuple | list | set | frozenset) else [value]
            column = data.column(name)
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            data = data.filter(pc.is_in(column.cast(kind), pa.array(values, kind)))
        return replace(self, data=data)


def settled(data: pa.Table, rows: int, refused: Iterable[Refused], aside: list[Path]) -> RatingsTable:
    """All readable rows -> those that count: the first row of an id, without what its own rater took back, whatever the
    order of the rows. The same rules as ``Ratings.read``, over whole columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    is_vote = pc.equal(data.column("action").cast(pa.string()), "vote")
    votes, backs = data.filter(is_vote), data.filter(pc.invert(is_vote))
    codes = votes.column("rating_id").combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    repeated = votes.num_rows - len(first)
    if repeated:
        votes = votes.take(pa.array(np.sort(first)))
    if not backs.num_rows:
        return RatingsTable(votes, rows, sorted(refused, key=lambda r: r.line), repeated, set_aside=aside)
    targeted = pc.is_in(votes.column("rating_id"), backs.column("target_rating_id").combine_chunks().unique())
    where = np.flatnonzero(targeted.to_numpy(zero_copy_only=False))
    found = votes.take(pa.array(where))
    places = dict(zip(found.column("rating_id").to_pylist(), where.tolist(), strict=True))
    raters = dict(zip(found.column("rating_id").to_pylist(), found.column("rater").to_pylist(), strict=True))
    taken: dict[str, str] = {}
    wrong = list(refused)
    for back in rows_of(backs):
        target = back.target_rating_id
        if raters.get(target) != back.rater or target not in raters:
            wrong.append(Refused(back.line, "ratings.no_such_vote" if target not in raters else "ratings.not_own"))
        elif taken.get(target) != "withdraw":
            taken[target] = back.action
    keep = np.ones(votes.num_rows, dtype=bool)
    keep[[places[target] for target in taken]] = False
    actions = list(taken.values())
    return RatingsTable(
        votes.filter(pa.array(keep)),
        rows,
        sorted(wrong, key=lambda r: r.line),
        repeated,
        actions.count("undo"),
        actions.count("withdraw"),
        aside,
    )
