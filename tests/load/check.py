"""What was acknowledged against what is in the file.

Covers: votes lost, votes doubled, undos, the latency of votes. Does not cover: making the load (rate.py, server.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from compare.ratings import RatingsFile


@dataclass(frozen=True)
class Outcome:
    """``lost``: acknowledged votes that are not in the file, or do not stand though nobody took them back; ``doubled``:
    (rater, item, kind) with more than one standing vote, and ids with more than one row; seconds of a vote."""

    votes: int
    lost: int
    doubled: int
    refused: int
    median: float
    p95: float
    slowest: float

    def __str__(self) -> str:
        times = f"median {self.median * 1e3:.0f} ms, 95 % within {self.p95 * 1e3:.0f} ms, slowest {self.slowest * 1e3:.0f} ms"
        return f"{self.votes} votes, {self.lost} lost, {self.doubled} doubled, {self.refused} rows refused; {times}"


def check(home: Path, lines: Iterable[str]) -> Outcome:
    """``lines`` as rate.py prints them; a last one that was cut off says nothing."""
    said = [line.split() for line in lines if line.endswith("\n") and len(line.split()) == 3]
    acknowledged = {name for what, name, _ in said if what == "vote"}
    undone = {name for what, name, _ in said if what == "undo"}
    seconds = sorted(float(took) for what, _, took in said if what == "vote")
    file = RatingsFile(home / "ratings" / "ratings.csv")
    file.recover()
    read = file.read()
    standing = {vote.rating_id for vote in read.votes}
    everything = Counter(row.rating_id for row in file.rows())
    lost = (acknowledged - undone - standing) | (acknowledged - set(everything))
    each = Counter((vote.rater, vote.item_id, vote.kind) for vote in read.votes)
    doubled = sum(n - 1 for n in each.values()) + sum(n - 1 for n in everything.values())
    p95 = quantiles(seconds, n=20)[-1] if len(seconds) > 1 else max(seconds, default=0.0)
    middle = median(seconds) if seconds else 0.0
    return Outcome(len(acknowledged), len(lost), doubled, len(read.refused), middle, p95, max(seconds, default=0.0))
