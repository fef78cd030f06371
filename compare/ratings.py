"""The store of record: every vote, undo and withdrawal as a row of ratings.csv.

Covers: appending, reading with undo and withdrawal applied, rows that are refused and why, the same as light columns
from an index. Does not cover: what a row holds (rating.py), the file itself (csv_store.py), the index
(ratings_index.py), what the votes say (stats.py), files for others (export.py).

A repeated rating_id is one vote: appends never search the file, readers keep the first row of an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from assets.errors import UserError
from compare.csv_store import CsvStore, Record, records
from compare.rating import (
    ACTIONS,
    COLUMNS,
    KINDS,
    SCHEMA_VERSION,
    SIDES,
    WINNERS,
    Message,
    Rating,
    Side,
    from_cells,
    now,
    to_cells,
)
from compare.ratings_index import Mark, RatingsIndex, State
from compare.ratings_rows import columns_of, parse
from compare.ratings_table import LightVote, RatingsTable, Refused, light, settled, to_arrow

__all__ = [
    "ACTIONS", "COLUMNS", "KINDS", "SCHEMA_VERSION", "SIDES", "WINNERS", "LightVote", "Mark", "Message", "Rating",
    "Ratings", "RatingsFile", "RatingsTable", "Refused", "Side", "now", "read_rows", "to_cells", "from_cells",
]  # fmt: skip


@dataclass(frozen=True)
class Ratings:
    """What the file says. ``votes`` in file order, undo and withdrawal applied; ``rows`` counts all but the header.

    ``repeated``, ``undone`` and ``withdrawn`` count votes that are not in ``votes``; ``set_aside`` are torn records put
    into files of their own.
    """

    votes: list[Rating]
    rows: int = 0
    refused: list[Refused] = field(default_factory=list)
    repeated: int = 0
    undone: int = 0
    withdrawn: int = 0
    set_aside: list[Path] = field(default_factory=list)


class RatingsFile:
    """workspace/ratings/ratings.csv, shared by any number of threads and processes."""

    def __init__(self, path: Path, app_version: str = "") -> None:
        self.path = path
        self.app_version = app_version
        self._store = CsvStore(path, COLUMNS)
        self._index = RatingsIndex(self._store)
        self._settled: tuple[State, RatingsTable] | None = None

    def append(self, *ratings: Rating) -> None:
        """Add rows, all or none; they are on disk when this returns. UserErrors as ``CsvStore.append`` gives them."""
        self._store.append(*map(to_cells, ratings))

    def undo(self, rating_id: str, rater: str, study_id: str = "") -> None:
        """Take one's own vote back. Readers ignore it for votes of others."""
        self.append(self.back("undo", rating_id, rater, study_id))

    def withdraw(self, rating_id: str, rater: str, study_id: str = "") -> None:
        """Take one's own vote out of every use, as a person who leaves a study may ask."""
        self.append(self.back("withdraw", rating_id, rater, study_id))

    def back(self, action: str, rating_id: str, rater: str, study_id: str = "") -> Rating:
        """The row that takes a vote back."""
        return Rating(
            rating_id=f"{action}-{rating_id}",
            created_at=now(),
            app_version=self.app_version,
            action=action,
            target_rating_id=rating_id,
            study_id=study_id,
            rater=rater,
        )

    def recover(self) -> Path | None:
        """Call at start: a last row that a crash cut off goes into ratings.torn-<time>.csv, whose path is returned."""
        return self._store.recover()

    def read(self) -> Ratings:
        """Everything in the file. Rows that cannot be read are in ``refused``; the file is never changed."""
        return _read(self._store)

    def table(self) -> RatingsTable:
        """What ``read`` gives, without the texts and from the index: 100,000 votes in a fraction of a second."""
        state, data = self._index.columns()
        kept = self._settled
        if kept is not None and kept[0] is state:
            return replace(kept[1], set_aside=self._store.set_aside())
        rows, refused = state.rows, list(state.refused) + list(state.broken)
        if not state.broken:
            last = self._open_end(state)
            found = [light(rating, r.line, r.start, len(r.raw)) for r, rating in last if isinstance(rating, Rating)]
            refused += [Refused(r.line, e.key, e.values) for r, e in last if isinstance(e, UserError)]
            rows += len(last) if state.header else 0
            if found:
                import pyarrow as pa

                data = pa.concat_tables([data, to_arrow(found)]).unify_dictionaries()
        table = settled(data, rows, refused, self._store.set_aside())
        self._settled = (state, table)
        return table

    def read_some(self, ids: Iterable[str]) -> list[Rating]:
        """Whole rows of counted votes, in the order asked; ids that are none are left out."""
        wanted = list(dict.fromkeys(ids))
        for _ in range(2):  # again when the file was replaced since the index was read
            found = self.table().where(rating_id=wanted)
            places = zip(*(found.column(name) for name in ("rating_id", "line", "offset", "length")), strict=True)
            rows = self._rows_at(list(places))
            if rows is not None:
                break
        return [rows[name] for name in wanted if name in rows] if rows else []

    def since(self, mark: Mark, study_id: str) -> tuple[Mark, bool, list[LightVote]]:
        """What was appended after ``mark``: (new mark, whether to begin anew, rows of the study and take-backs)."""
        return self._index.since(mark, study_id)

    def rows(self) -> Iterable[Rating]:
        """Every readable row as it stands: votes, undos and withdrawals, repeated ones too."""
        return (found for _, found in _parsed(self._store.records()) if isinstance(found, Rating))

    def _open_end(self, state: State) -> list[tuple[Record, Rating | UserError]]:
        """The record after the last whole one, if there is any, as ``read`` sees it."""
        found = list(self._store.records(state.end, state.line))
        if not state.header:
            return [(r, e) for r, e in _parsed(self._store.records()) if isinstance(e, UserError)] if found else []
        return list(parse(found, state.header))

    def _rows_at(self, places: list[tuple[str, int, int, int]]) -> dict[str, Rating] | None:
        """Rows by id; None when something else stands at one of the places."""
        header = self._index.refresh().header
        found: dict[str, Rating] = {}
        if not places:
            return found
        with self.path.open("rb") as file:
            for rating_id, line, offset, length in places:
                file.seek(offset)
                [(_, rating)] = parse([Record(line, offset, file.read(length), True)], header) or [(None, None)]
                if not isinstance(rating, Rating) or rating.rating_id != rating_id:
                    return None
                found[rating_id] = rating
        return found


def read_rows(path: Path) -> Iterator[tuple[Record, Rating | UserError]]:
    """Every row of a CSV of votes that nobody writes to, as it stands. OSError when it cannot be opened."""
    with path.open("rb") as file:
        yield from _parsed(records(file))


def _parsed(source: Iterator[Record]) -> Iterator[tuple[Record, Rating | UserError]]:
    """Every record but the header; only the header's when it is none."""
    found = (record for record in source if not record.blank)
    first = next(found, None)
    if first is None:
        return
    try:
        header = columns_of(first, COLUMNS)
    except UserError as error:
        yield first, error
        return
    yield from parse(found, header)


def _read(store: CsvStore) -> Ratings:
    rows: list[tuple[int, Rating]] = []
    refused: list[Refused] = []
    count = 0
    for record, found in _parsed(store.records()):
        if isinstance(found, UserError):
            refused.append(Refused(record.line, found.key, found.values))
        else:
            rows.append((record.line, found))
        count += 1
    if count == 1 and refused and refused[0].reason_key in _NO_TABLE:
        count = 0
    return _settled(rows, count, refused, store.set_aside())


_NO_TABLE = ("ratings.not_a_table", "ratings.columns_needed", "ratings.columns_twice")


def _settled(rows: Iterable[tuple[int, Rating]], count: int, refused: list[Refused], aside: list[Path]) -> Ratings:
    """Undo and withdrawal applied, whatever the order of the rows; the first row of an id counts."""
    votes: dict[str, Rating] = {}
    backs: list[tuple[int, Rating]] = []
    repeated = 0
    for line, rating in rows:
        if rating.action != "vote":
            backs.append((line, rating))
        elif votes.setdefault(rating.rating_id, rating) is not rating:
            repeated += 1
    taken: dict[str, str] = {}
    for line, back in backs:
        vote = votes.get(back.target_rating_id)
        if vote is None or vote.rater != back.rater:
            refused.append(Refused(line, "ratings.no_such_vote" if vote is None else "ratings.not_own"))
        elif taken.get(vote.rating_id) != "withdraw":
            taken[vote.rating_id] = back.action
    kept = [vote for vote in votes.values() if vote.rating_id not in taken]
    actions = list(taken.values())
    return Ratings(
        votes=kept,
        rows=count,
        refused=sorted(refused, key=lambda row: row.line),
        repeated=repeated,
        undone=actions.count("undo"),
        withdrawn=actions.count("withdraw"),
        set_aside=aside,
    )
