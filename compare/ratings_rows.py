"""Records of ratings.csv -> ratings, one by one, with the reason for each that cannot be read.

Covers: which columns a file must have, half rows, torn rows. Does not cover: cutting a file into records (csv_store.py),
what a row holds (rating.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from assets.errors import UserError
from compare.csv_store import Record, header_of
from compare.rating import Rating, from_cells

# Without these columns a row says nothing about two models.
NEEDED = ("model_a", "model_b", "winner")

Parsed = tuple[Record, Rating | UserError]


def parse(found: Iterable[Record], header: Sequence[str]) -> Iterator[Parsed]:
    """Every record that is not blank, with its rating or the reason why it has none."""
    for record in found:
        if record.blank:
            continue
        try:
            yield record, from_cells(_cells(record, header), record.line)
        except UserError as error:
            yield record, error


def columns_of(record: Record, ours: Sequence[str]) -> list[str]:
    """The header's names. UserErrors: "ratings.not_a_table", "ratings.columns_needed", "ratings.columns_twice"."""
    header = header_of(record)
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise UserError(
            "ratings.not_a_table" if not set(header) & set(ours) else "ratings.columns_needed",
            columns=", ".join(missing),
        )
    return header


def _cells(record: Record, header: Sequence[str]) -> dict[str, str]:
    if not record.whole and not record.complete(len(header)):
        raise UserError("ratings.torn")
    cells = record.cells()
    if len(cells) < len(header) or any(cells[len(header) :]):
        raise UserError("ratings.half_row", found=len(cells), expected=len(header))
    return dict(zip(header, cells, strict=False))
