"""The store of record: every vote, undo and withdrawal as a row of ratings.csv.

Covers: appending, reading with undo and withdrawal applied, rows that are refused and why. Does not cover: what a row
holds (rating.py), the file itself (csv_store.py), what the votes say (stats.py), files for others (export.py).

A repeated rating_id is one vote: appends never search the file, readers keep the first row of an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assets.errors import UserError
from compare.csv_store import CsvStore, Record, header_of
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

__all__ = [
    "ACTIONS", "COLUMNS", "KINDS", "SCHEMA_VERSION", "SIDES", "WINNERS", "Message", "Rating", "Ratings", "RatingsFile",
    "Refused", "Side", "now", "to_cells", "from_cells",
]  # fmt: skip

# Without these columns a row says nothing about two models.
_NEEDED = ("model_a", "model_b", "winner")


@dataclass(frozen=True)
class Refused:
    """A row that is not counted: the line it begins on, and why (a key of the strings with its values)."""

    line: int
    reason_key: str
    values: Mapping[str, object] = field(default_factory=dict)


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

    def append(self, rating: Rating) -> None:
        """Add a row; it is on disk when this returns. UserErrors as ``CsvStore.append`` gives them."""
        self._store.append(to_cells(rating))

    def undo(self, rating_id: str, rater: str) -> None:
        """Take one's own vote back. Readers ignore it for votes of others."""
        self._take_back("undo", rating_id, rater)

    def withdraw(self, rating_id: str, rater: str) -> None:
        """Take one's own vote out of every use, as a person who leaves a study may ask."""
        self._take_back("withdraw", rating_id, rater)

    def recover(self) -> Path | None:
        """Call at start: a last row that a crash cut off goes into ratings.torn-<time>.csv, whose path is returned."""
        return self._store.recover()

    def read(self) -> Ratings:
        """Everything in the file. Rows that cannot be read are in ``refused``; the file is never changed."""
        return _read(self._store)

    def _take_back(self, action: str, rating_id: str, rater: str) -> None:
        row = Rating(
            rating_id=f"{action}-{rating_id}",
            created_at=now(),
            app_version=self.app_version,
            action=action,
            target_rating_id=rating_id,
            rater=rater,
        )
        self.append(row)


def _read(store: CsvStore) -> Ratings:
    rows: list[tuple[int, Rating]] = []
    refused: list[Refused] = []
    header: list[str] | None = None
    count = 0
    for record in store.records():
        if record.blank:
            continue
        try:
            if header is None:
                header = _columns(record, store.columns)
                continue
            count += 1
            rows.append((record.line, from_cells(_cells(record, header), record.line)))
        except UserError as error:
            refused.append(Refused(record.line, error.key, error.values))
            if header is None:
                break
    return _settled(rows, count, refused, store.set_aside())


def _columns(record: Record, ours: tuple[str, ...]) -> list[str]:
    header = header_of(record)
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise UserError(
            "ratings.not_a_table" if not set(header) & set(ours) else "ratings.columns_needed",
            columns=", ".join(missing),
        )
    return header


def _cells(record: Record, header: list[str]) -> dict[str, str]:
    if not record.whole and not record.complete(len(header)):
        raise UserError("ratings.torn")
    cells = record.cells()
    if len(cells) < len(header) or any(cells[len(header) :]):
        raise UserError("ratings.half_row", found=len(cells), expected=len(header))
    return dict(zip(header, cells, strict=False))


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
