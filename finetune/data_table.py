"""What the data rooms hand to one another: a table as read, how its columns are used, the conversations that came out.

Covers: types only. Does not cover: reading (data_read), guessing (data_shapes), converting (data_convert).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]


@dataclass(frozen=True)
class Note:
    """Something a person should know that is no error. ``key`` names a sentence in assets/strings."""

    key: str
    values: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows as they stand in a file. A cell is text in CSV, TSV and XLSX, any JSON value elsewhere; it may be absent.

    ``encoding`` is the name of the text encoding, "" for formats that have none.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    encoding: str = ""
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Mapping:
    """Which column plays which part: ``columns`` maps a field of the shape (data_shapes.FIELDS) to a column's name."""

    shape: str
    columns: dict[str, str]


@dataclass(frozen=True)
class Example:
    """One row to train on: a conversation, a preference pair (``messages`` is the prompt), or plain ``text``.

    An answer that is judged alone stands in ``chosen`` when its ``label`` is True and in ``rejected`` when it is False.
    """

    messages: tuple[Message, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    text: str = ""

    @property
    def label(self) -> bool | None:
        """For an answer judged alone, whether it is a good one; None for anything else."""
        return bool(self.chosen) if bool(self.chosen) != bool(self.rejected) else None


@dataclass(frozen=True)
class Dropped:
    """A row left out. ``row`` counts from 1 within the table; ``key`` names the reason ("data.drop.…")."""

    row: int
    key: str


@dataclass(frozen=True)
class Converted:
    examples: list[Example]
    dropped: list[Dropped]
    notes: list[Note] = field(default_factory=list)


class Drop(Exception):
    """Raised while a row is converted: the row is left out for the reason ``key``."""

    def __init__(self, key: str, detail: str = "") -> None:
        super().__init__(key)
        self.key = key
        self.detail = detail
