"""The owner's view of a running study, without any result, and the estimate before it starts.

Covers: progress, pace and straight-lining per rater, minutes per rater, what the study can tell. Does not cover: serving
(study_serve.py), results (stats*.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from compare.ratings import LightVote
from compare.study import Study
from compare.study_items import Answers, count_same
from compare.study_power import detectable, expected_decided, seconds_per_item
from compare.study_view import Estimate, Progress, RaterProgress
from compare.study_votes import StudyVotes

if TYPE_CHECKING:
    from compare.study_sitting import Sitting

# From so many votes on a pattern is worth a look: one choice nearly always, or in a long row, or faster than reading.
ENOUGH = 10
SAME_SHARE = 0.9
LONG_RUN = 12
FAST_SECONDS = 4.0
IDLE = timedelta(days=1)
# Characters of an answer until there are any.
ANSWER = 350


def estimate(study: Study, answers: Answers, paces: Sequence[float] = ()) -> Estimate:
    """``paces`` are seconds to vote so far; from ENOUGH of them on their median replaces the assumption."""
    measured = [pace for pace in paces if not math.isnan(pace)]
    texts = [len(answer.text) for answer in answers.values()]
    asked = mean(sum(len(m["content"]) for m in prompt.messages) for prompt in study.prompts)
    characters = asked + 2 * (mean(texts) if texts else ANSWER)
    each = median(measured) if len(measured) >= ENOUGH else seconds_per_item(study, characters)
    same = count_same(study)
    repeats = round(study.repeat_share * study.list_length)
    mains = min(max(1, study.list_length - same - repeats), len(study.prompts) * len(study.pairs))
    items = mains + same + min(repeats, max(0, mains + same - study.repeat_gap + 1))
    decided = expected_decided(study.target)
    return Estimate(
        minutes_per_rater=each * (items + len(study.practice)) / 60,
        items_per_rater=items,
        votes_per_rater=mains,
        raters_needed=math.ceil(study.target / mains),
        decided=decided,
        detectable=detectable(decided),
    )


def progress(study: Study, votes: StudyVotes, sittings: Iterable[Sitting], looks: list[dict[str, Any]]) -> Progress:
    """Counts only. ``sittings`` are everyone with a link here."""
    sittings = list(sittings)
    known = {at.rater.rater for at in sittings}
    live = [vote for _, theirs in votes.all() for vote in theirs.live()]
    mains = [vote for vote in live if vote.kind == "main"]
    return Progress(
        votes=len(mains),
        target=study.target,
        raters=tuple(_rater(at) for at in sittings),
        undone=sum(theirs.count("undo") for _, theirs in votes.all()),
        withdrawn=sum(theirs.count("withdraw") for _, theirs in votes.all()),
        elsewhere=sum(vote.rater not in known for vote in mains),
        choices=Counter(map(choice, mains)),
        looks=tuple(looks),
    )


def choice(vote: LightVote) -> str:
    """What was chosen on the screen: "left", "right", "tie" or "both_bad"."""
    if vote.winner in ("tie", "both_bad"):
        return vote.winner
    return "left" if vote.winner == vote.left_is else "right"


def _rater(at: Sitting) -> RaterProgress:
    live = [vote for vote in at.votes.live() if vote.kind != "practice"]
    made = [choice(vote) for vote in live]
    seconds = [vote.seconds for vote in live if not math.isnan(vote.seconds)]
    pace = median(seconds) if seconds else None
    left = max(0, at.total - at.done)
    run = max((len(list(same)) for _, same in groupby(made)), default=0)
    share = max(Counter(made).values()) / len(made) if made else None
    last = live[-1].created_at if live else at.rater.consented_at
    return RaterProgress(
        number=at.rater.number,
        rater=at.rater.rater,
        stage=at.stage,
        done=at.done,
        total=at.total,
        median_seconds=pace,
        minutes_left=None if pace is None else pace * left / 60,
        same_choice_share=share,
        longest_run=run,
        undone=at.votes.count("undo"),
        last_at=last,
        flags=tuple(_flags(len(made), share, run, pace, last, at.stage)),
        code=at.code,
    )


def _flags(n: int, share: float | None, run: int, pace: float | None, last: str, stage: str) -> Iterable[str]:
    if n >= ENOUGH and ((share or 0) >= SAME_SHARE or run >= LONG_RUN):
        yield "study.flag.straight"
    if n >= ENOUGH and pace is not None and pace < FAST_SECONDS:
        yield "study.flag.fast"
    since = (datetime.now(UTC) - IDLE).isoformat(timespec="milliseconds")
    if last and last < since and stage in ("practice", "rating"):
        yield "study.flag.idle"
