"""What the results tab and the report look at: votes from the file, the study they belong to, the rows behind examples.

Covers: the light columns, which pair and study to begin with, names as people read them, the answers to show and to
measure. Does not cover: figures (stats_*.py), how it looks (results_view.py, export_report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from assets.errors import UserError
from compare import judge, stats_machine, stats_text
from compare.rating import Rating, Side
from compare.ratings import RatingsFile
from compare.stats_report import PromptLine, Report, report
from compare.stats_votes import Filter, Votes, from_frame, select
from compare.study import Study
from compare.study_store import Studies

EXAMPLES = 6
PROMPTS = 30
LATEST = 12
# So many different votes are read for their texts: form settles long before a page of 100,000 votes would be read.
TEXTS = 300


@dataclass(frozen=True)
class Picture:
    """Everything to show. ``rows`` holds the full votes behind examples by rating_id, ``machine`` the compared runs."""

    report: Report
    names: tuple[str, str]
    study: Study | None = None
    rows: Mapping[str, Rating] = field(default_factory=dict)
    latest: tuple[str, ...] = ()
    looks: tuple[stats_text.Looks, ...] = ()
    blindness: stats_text.Blindness | None = None
    machine: tuple[tuple[str, stats_machine.HeldOut], ...] = ()
    opinions: tuple[judge.Opinion, ...] = ()

    @property
    def tuned(self) -> Side | None:
        return self.report.tuned

    def shown(self, lines: Sequence[PromptLine], worse: bool) -> list[tuple[PromptLine, Rating]]:
        """Prompts with the row of a vote for (or against) model_b."""
        found = ((line, self.rows.get((line.lost if worse else line.won) or line.any)) for line in lines)
        return [(line, row) for line, row in found if row is not None]


def votes_of(file: RatingsFile) -> Votes:
    """All votes that count, as columns."""
    return from_frame(file.table().frame())


def studies_of(votes: Votes, studies: Studies) -> list[tuple[str, str, int]]:
    """(id, name, votes) of the studies that votes belong to, "" for those outside of any; most votes first."""
    known = {study.id: study.name for study in studies.list()}
    counts = votes.frame["study_id"].value_counts()
    return [(str(name), known.get(str(name), str(name)), int(n)) for name, n in counts.items() if n]


def study_of(study_id: str | None, studies: Studies) -> Study | None:
    """The study, None for votes outside of any or when its folder is gone: the votes remain."""
    if not study_id:
        return None
    try:
        return studies.get(study_id)
    except UserError:
        return None


def early_looks(study: Study | None, studies: Studies) -> int:
    """How often somebody looked before the target was reached."""
    if study is None:
        return 0
    return sum(int(look.get("votes", 0)) < int(look.get("target", 0)) for look in studies.looks(study.id))


def look(file: RatingsFile, studies: Studies, votes: Votes, wanted: Filter, jobs: Path, texts: int = TEXTS) -> Picture:
    """Figures, examples and what the answers look like."""
    study = study_of(wanted.study_id, studies)
    mine = select(votes, wanted).votes
    ids = [str(name) for name in mine.frame["rating_id"]]
    rows = {row.rating_id: row for row in file.read_some(_spread(ids, texts))}
    tuned = tuned_side(list(rows.values()), wanted.pair)
    found = report(votes, wanted, tuned, study.target if study else None, early_looks(study, studies), best_of(study))
    newest = np.argsort(np.asarray(mine.frame["created_at"], dtype=object).astype(str), kind="stable")[::-1][:LATEST]
    latest = tuple(ids[i] for i in newest)
    needed = {name for line in shown_prompts(found) for name in (line.won, line.lost, line.any)} | set(latest)
    more = {row.rating_id: row for row in file.read_some(sorted(needed - rows.keys() - {""}))}
    different = [straight(row, wanted.pair) for row in stats_text.different(rows.values())]
    return Picture(
        report=found,
        names=names_of(wanted.pair, study),
        study=study,
        rows={name: straight(row, wanted.pair) for name, row in (rows | more).items()},
        latest=latest,
        looks=tuple(stats_text.looks(different)),
        blindness=stats_text.blindness(different),
        machine=_machine(list(rows.values()), wanted.pair, jobs),
        opinions=tuple(judge.opinion_on(mine, judge.opinions(file.path.with_name("judge.jsonl")), wanted.pair)),
    )


def to_judge(file: RatingsFile, votes: Votes, wanted: Filter, most: int) -> list[Rating]:
    """One vote per pair of answers, at most so many, evenly over the votes."""
    mine = select(votes, wanted).votes
    first = dict(zip(reversed(judge.items(mine)), reversed(list(mine.frame["rating_id"])), strict=True))
    return [straight(row, wanted.pair) for row in file.read_some(_spread(list(first.values()), most))]


def shown_prompts(found: Report) -> tuple[PromptLine, ...]:
    """The prompts that can be opened: those at both ends."""
    lines = found.prompts
    half = PROMPTS // 2
    return lines if len(lines) <= PROMPTS else lines[:half] + lines[-half:]


def best_of(study: Study | None) -> Mapping[str, int] | None:
    """Where a perfect answer stands on each of the study's own scales."""
    return {question.key: question.best for question in study.questions} if study and study.questions else None


def names_of(pair: tuple[str, str], study: Study | None) -> tuple[str, str]:
    """The models as people read them, told apart even where their short names are equal."""
    known = {arm.model: arm.name for arm in study.arms} if study else {}
    first, second = (known.get(model) or short(model) for model in pair)
    return (first, second) if first != second else pair


def short(name: str) -> str:
    """A recorded identity without the owner of the repository and the digest."""
    return name.rsplit("/", 1)[-1].rsplit("@", 1)[0]


def tuned_side(rows: Sequence[Rating], pair: tuple[str, str]) -> Side | None:
    """The side whose record names an adapter, if the other one's names none."""
    for row in reversed(rows):
        has = {
            getattr(row, side): bool((row.provenance.get(side) or {}).get("adapter_sha256"))
            for side in ("model_a", "model_b")
        }
        if set(has) == set(pair) and has[pair[0]] != has[pair[1]]:
            return "model_a" if has[pair[0]] else "model_b"
    return None


def straight(row: Rating, pair: tuple[str, str]) -> Rating:
    """The row with model_a and model_b as in ``pair``."""
    return turned(row) if row.model_a == pair[1] and row.model_b == pair[0] else row


def turned(row: Rating) -> Rating:
    """The same vote with model_a and model_b exchanged."""
    other = {"model_a": "model_b", "model_b": "model_a"}
    talk = row.conversation
    return replace(
        row,
        model_a=row.model_b,
        model_b=row.model_a,
        response_a=row.response_b,
        response_b=row.response_a,
        left_is=other[row.left_is],
        winner=other.get(row.winner, row.winner),
        criteria={other[side]: marks for side, marks in row.criteria.items()},
        conversation={other[side]: turns for side, turns in talk.items()} if isinstance(talk, dict) else talk,
        provenance={other.get(key, key): value for key, value in row.provenance.items()},
        timing={other.get(key, key): value for key, value in row.timing.items()},
    )


def _spread(ids: Sequence[str], most: int) -> list[str]:
    """At most so many ids, evenly over the votes, the last one among them."""
    places = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(int)) if ids else ()
    return [ids[i] for i in places]


def _machine(
    rows: Sequence[Rating], pair: tuple[str, str], jobs: Path
) -> tuple[tuple[str, stats_machine.HeldOut], ...]:
    """The training records of the compared adapters, by model; the newest vote tells the adapter."""
    found: dict[str, stats_machine.HeldOut] = {}
    if rows:
        for side in ("model_a", "model_b"):
            record = stats_machine.compared(rows[-1], side, jobs)
            if record is not None:
                found[getattr(rows[-1], side)] = record
    return tuple((model, found[model]) for model in pair if model in found)
