"""Votes as files that others read.

Covers: the exact CSV, a CSV that is safe to open in a spreadsheet, preference pairs in TRL's conversational form; what
was left out of each and why. Does not cover: pushing to the Hub.

The store keeps text exactly as shown. Only the spreadsheet file alters it: a cell that a spreadsheet would run as a
formula gets an apostrophe in front (OWASP's list, with the full-width forms and with blanks before the sign).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from assets.errors import UserError
from compare.csv_store import BOM, CsvStore, Record, to_json, to_line
from compare.rating import COLUMNS, Message, Rating, Side

_FORMULA = re.compile(r"[\t\r\n\0]|[\s\0\ufeff\u200b-\u200f]*[=+\-@＝＋－＠]")


@dataclass(frozen=True)
class Exported:
    """What a file holds: ``rows`` written, and how many were left out by reason (keys under "ratings.left_out.")."""

    path: Path
    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def export_csv(source: Path, target: Path) -> Exported:
    """The store byte for byte, as it is at this moment. UserError("ratings.nothing_to_export") when there is none."""
    rows = -1
    with _written(target) as out:
        for record in _records(source):
            out.write(record.raw)
            rows += not record.blank
    return Exported(target, max(rows, 0))


def export_spreadsheet(source: Path, target: Path) -> Exported:
    """Every row that can be read, with a BOM, every cell quoted and none of them a formula."""
    rows, unreadable = -1, 0
    with _written(target) as out:
        out.write(BOM)
        for record in _records(source):
            if record.blank:
                continue
            try:
                cells = record.cells()
            except UserError:
                unreadable += 1
                continue
            out.write(to_line(map(guarded, cells)))
            rows += 1
    return Exported(target, max(rows, 0), {"unreadable": unreadable} if unreadable else {})


def guarded(cell: str) -> str:
    """The cell with an apostrophe in front when a spreadsheet could take it for a formula."""
    return "'" + cell if _FORMULA.match(cell) else cell


def export_preferences(votes: Iterable[Rating], target: Path, *, blind_only: bool = True) -> Exported:
    """JSONL of {"prompt": [messages], "chosen": [assistant], "rejected": [assistant]}, as trl's DPOTrainer reads it.

    Left out and counted: ties, both-bad, practice, aa, repeats, votes that were not blind, equal or empty answers, and
    histories that had parted (the two answers have no common prompt).
    """
    left_out: Counter[str] = Counter()
    rows = 0
    with _written(target) as out:
        for vote in votes:
            reason = _no_pair(vote, blind_only)
            if reason:
                left_out[reason] += 1
                continue
            out.write(to_json(preference(vote)).encode() + b"\n")
            rows += 1
    return Exported(target, rows, dict(left_out))


def preference(vote: Rating) -> dict[str, list[Message]]:
    """A decided vote as one preference pair."""
    chosen: Side = "model_a" if vote.winner == "model_a" else "model_b"
    rejected: Side = "model_b" if chosen == "model_a" else "model_a"
    return {
        "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in vote.turns(chosen)],
        "chosen": [{"role": "assistant", "content": vote.response(chosen)}],
        "rejected": [{"role": "assistant", "content": vote.response(rejected)}],
    }


def _no_pair(vote: Rating, blind_only: bool) -> str:
    """Why a vote is no preference pair; "" for one that is."""
    turns = vote.turns("model_a")
    reasons = {
        "practice": vote.kind == "practice",
        "repeat": vote.kind == "repeat",
        "aa": vote.kind == "aa" or vote.model_a == vote.model_b,
        "not_blind": blind_only and not vote.blind,
        "tie": vote.winner == "tie",
        "both_bad": vote.winner == "both_bad",
        "histories_differ": turns != vote.turns("model_b"),
        "no_prompt": not turns or turns[-1]["role"] != "user",
        "empty_answer": not vote.response_a.strip() or not vote.response_b.strip(),
        "same_answer": vote.response_a == vote.response_b,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _records(source: Path) -> Iterator[Record]:
    if not source.exists():
        raise UserError("ratings.nothing_to_export")
    return CsvStore(source, COLUMNS).records()


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A file to write, gone again when that fails. UserError("ratings.not_saved") when the disk refuses."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("wb") as file:
            yield file
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError("ratings.not_saved", reason=error.strerror or str(error)) from error
    except UserError:
        target.unlink(missing_ok=True)
        raise
