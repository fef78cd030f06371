"""What a rater's page asks: who is this, what comes next, this is my vote, take it back, I am leaving.

Covers: stages, the next item, votes that are stored once however often they are sent, undo, withdrawal, the completion
code, the reveal after the list. Does not cover: which items are on a list (study_plan.py), the owner's view
(study_progress.py). Nothing is kept in a session: every call is answered from study.yaml, items.jsonl, raters.json and
ratings.csv, so that any device and any process can go on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from assets.errors import UserError
from compare import study_plan as plan
from compare import study_progress
from compare.rating import now
from compare.ratings import RatingsFile
from compare.study import Study
from compare.study_items import Answers
from compare.study_raters import Book, Rater, Raters, Slot, split_code
from compare.study_sitting import Given, Sitting, content, row
from compare.study_store import Studies
from compare.study_view import Estimate, Finished, Progress, Revealed, Seat, Served, Welcome
from compare.study_votes import StudyVotes

# A rater who has not gone on for so long no longer holds the items that are still open on their list.
IDLE = timedelta(days=1)
_STRIPES = 64
_SHOWN = 10_000


class StudyService:
    """Thread-safe; one per process."""

    def __init__(self, studies: Studies, ratings: RatingsFile, app_version: str = "") -> None:
        self.studies = studies
        self.ratings = ratings
        self.app_version = app_version
        self._guard = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._raters: dict[str, Raters] = {}
        self._votes: dict[str, StudyVotes] = {}
        self._shown: OrderedDict[str, float] = OrderedDict()
        self._places: dict[tuple[str, str], tuple[Study, Answers, tuple[plan.Place, ...]]] = {}

    def raters(self, study_id: str) -> Raters:
        folder = self.studies.folder(study_id)
        with self._guard:
            return self._raters.setdefault(study_id, Raters(folder))

    def votes(self, study_id: str) -> StudyVotes:
        """The study's votes as they are now."""
        with self._guard:
            votes = self._votes.setdefault(study_id, StudyVotes(self.ratings, study_id))
        return votes.refresh()

    def enter(self, code: str) -> Seat:
        """Whose link this is. UserErrors: "study.link_unknown", "study.link_revoked"."""
        study_id, token = split_code(code)
        try:
            study = self.studies.get(study_id)
        except UserError as error:
            raise UserError("study.link_unknown") from error
        rater = self.raters(study_id).find(token)
        return Seat(study_id, rater.rater, rater.number, study.language)

    def welcome(self, seat: Seat) -> Welcome:
        at = self._sit(seat)
        estimate = study_progress.estimate(at.study, at.answers, self._paces(seat.study_id))
        return Welcome(
            title=at.study.title,
            consent=at.study.consent,
            rubric=at.study.rubric,
            minutes=estimate.minutes_per_rater,
            total=at.total,
            practice=len(at.study.practice),
            done=at.done,
            language=at.study.language,
            stage=at.stage,
        )

    def consent(self, seat: Seat) -> None:
        """The rater agrees; the time and the text are kept. UserErrors: "study.not_open", "study.closed", "study.withdrawn"."""
        at = self._sit(seat)
        if at.stage in ("not_open", "closed", "withdrawn"):
            raise UserError(_ENDS[at.stage])
        if not at.rater.consented_at:
            text = self.studies.keep_consent(seat.study_id)
            self._update(seat, lambda book, rater: replace(rater, consented_at=now(), consented_to=text))

    def next_item(self, seat: Seat) -> Served | None:
        """What to show now; None once the list is done, or the study closed, or the rater gone (``welcome().stage``).

        UserErrors: "study.consent_first", "study.not_open".
        """
        at = self._sit(seat)
        if at.stage in ("consent", "not_open"):
            raise UserError("study.consent_first" if at.stage == "consent" else "study.not_open")
        if at.stage not in ("practice", "rating"):
            return None
        return self._serve(self._drawn(at, seat))

    def vote(
        self,
        seat: Seat,
        token: str,
        choice: str,
        marks: Mapping[str, Mapping[str, int]] | None = None,
        comment: str = "",
        layout: str = "columns",
        seconds: float | None = None,
    ) -> Served | None:
        """Store the vote on the item with ``token`` and give the next item. The vote is on disk when this returns.

        ``marks`` is {"left": {question: number}, "right": {…}}; ``seconds`` is the time the rater took, measured here
        when it is not given. A token that has its vote, or is not on screen any more, stores nothing.
        UserErrors: "study.choose_first", "ratings.unknown_criterion", "ratings.off_scale", those of the store, and
        "study.closed", "study.withdrawn", "study.not_open", "study.consent_first".
        """
        with self._alone(seat):
            at = self._sit(seat)
            if token in at.votes.votes:
                return self.next_item(seat)
            if at.stage not in ("practice", "rating"):
                raise UserError(_ENDS[at.stage])
            at = self._drawn(at, seat)
            if token == at.token(at.place):
                took = seconds if seconds is not None else self._took(token)
                given = Given(choice, marks or {}, comment, layout, took)
                self.ratings.append(row(at, token, given, self.app_version))
            if self._sit(seat).finished:
                self._update(seat, lambda book, rater: replace(rater, done_at=rater.done_at or now()))
            return self.next_item(seat)

    def undo(self, seat: Seat, token: str = "") -> Served | None:
        """Take the last vote back; it stays in the file and a row says so. ``token`` is the item on screen ("" at the
        end of the list): when another one is current by now, as after a double click, nothing is taken back.

        UserErrors: "study.nothing_to_undo", "study.undo_revealed", "study.closed".
        """
        with self._alone(seat):
            at = self._sit(seat)
            if at.stage in ("closed", "withdrawn", "not_open"):
                raise UserError(_ENDS[at.stage])
            if at.rater.revealed_at:
                raise UserError("study.undo_revealed")
            current = at.token(at.place) if at.place else ""
            if token == current:
                live = at.votes.live()
                if not live:
                    raise UserError("study.nothing_to_undo")
                self.ratings.undo(live[-1].rating_id, seat.rater, seat.study_id)
            return self.next_item(seat)

    def withdraw(self, seat: Seat) -> int:
        """Take the rater and every vote of theirs out of the study, by rows; the number of votes that stood."""
        with self._alone(seat):
            self._update(seat, lambda book, rater: replace(rater, withdrawn_at=rater.withdrawn_at or now()))
            at = self._sit(seat)
            stood = len(at.votes.live())
            left = [name for name in at.votes.votes if at.votes.taken.get(name) != "withdraw"]
            self.ratings.append(*(self.ratings.back("withdraw", name, seat.rater, seat.study_id) for name in left))
            return stood

    def finished(self, seat: Seat) -> Finished:
        """UserError("study.not_finished") while items are left."""
        at = self._sit(seat)
        if at.stage != "done":
            raise UserError("study.not_finished")
        return Finished(at.code, len(at.votes.live()), _may_reveal(at.study))

    def reveal(self, seat: Seat) -> tuple[Revealed, ...]:
        """Who stood where, vote by vote, once the list is done; no vote can be taken back afterwards.

        UserErrors: "study.not_finished", "study.never_revealed".
        """
        at = self._sit(seat)
        if at.stage != "done":
            raise UserError("study.not_finished")
        if not _may_reveal(at.study):
            raise UserError("study.never_revealed")
        self._update(seat, lambda book, rater: replace(rater, revealed_at=rater.revealed_at or now()))
        names = {arm.model: arm.name or arm.model for arm in at.study.arms}
        votes = [vote for vote in at.votes.live() if vote.kind != "practice"]
        found = []
        for number, vote in enumerate(votes, 1):
            sides = {"model_a": names.get(vote.model_a, ""), "model_b": names.get(vote.model_b, "")}
            left, right = sorted(sides, key=lambda side: side != vote.left_is)
            choice = {left: "left", right: "right"}.get(vote.winner, vote.winner)
            found.append(Revealed(number, vote.kind, sides[left], sides[right], choice))
        return tuple(found)

    def progress(self, study_id: str) -> Progress:
        """For the owner: how far everyone is, and no result."""
        study = self.studies.get(study_id)
        raters = self.raters(study_id).all()
        seats = [Seat(study_id, r.rater, r.number, study.language) for r in raters]
        sittings = [self._sit(seat, revoked=True) for seat in seats]
        return study_progress.progress(study, self.votes(study_id), sittings, self.studies.looks(study_id))

    def estimate(self, study: Study) -> Estimate:
        """Before starting: minutes per rater and the difference that the study can tell."""
        return study_progress.estimate(study, self.studies.items(study.id).read(), self._paces(study.id))

    def _paces(self, study_id: str) -> list[float]:
        return [v.seconds for _, votes in self.votes(study_id).all() for v in votes.live() if v.kind != "practice"]

    def _sit(self, seat: Seat, revoked: bool = False) -> Sitting:
        study = self.studies.get(seat.study_id)
        book = self.raters(seat.study_id).read()
        rater = book.by_name(seat.rater) if book else None
        if book is None or rater is None:
            raise UserError("study.link_unknown")
        if rater.revoked_at and not revoked:
            raise UserError("study.link_revoked")
        answers = self.studies.items(seat.study_id).read()
        votes = self.votes(seat.study_id).of(seat.rater)
        return Sitting(study, book, rater, votes, answers, self._skeleton(study, answers, book, rater))

    def _skeleton(self, study: Study, answers: Answers, book: Book, rater: Rater) -> tuple[plan.Place, ...]:
        """Worked out once for as long as study and answers are the same."""
        key = (study.id, rater.rater)
        kept = self._places.get(key)
        if kept is None or kept[0] is not study or kept[1] is not answers:
            places = plan.skeleton(study, plan.pool(study, answers), book, rater.rater)
            kept = self._places[key] = (study, answers, places)
        return kept[2]

    def _drawn(self, at: Sitting, seat: Seat) -> Sitting:
        """With the places of the list drawn as far as the current one."""
        if not at.place or at.place.startswith("p") or int(at.place) < len(at.rater.slots):
            return at

        def more(book: Book, rater: Rater) -> Rater:
            if int(at.place) < len(rater.slots):
                return rater
            others = self._others(at.study, book, rater)
            return replace(rater, slots=plan.draw(at.study, at.answers, book, rater, others), drawn_at=now())

        self._update(seat, more)
        return self._sit(seat)

    def _others(self, study: Study, book: Book, mine: Rater) -> Iterator[Slot]:
        """Slots of everyone else that are rated, or will be by someone who is still at it."""
        votes = self.votes(study.id)
        since = (datetime.now(UTC) - IDLE).isoformat(timespec="milliseconds")
        for rater in book.raters:
            if rater.rater == mine.rater or rater.withdrawn_at:
                continue
            active = not rater.revoked_at and rater.drawn_at > since
            rated = {(vote.kind, vote.item_id) for vote in votes.of(rater.rater).live()}
            yield from (slot for slot in rater.slots if active or (slot.kind, slot.item_id) in rated)
        known = {rater.rater for rater in book.raters}
        for name, theirs in votes.all():
            if name not in known:
                yield from (Slot(vote.kind, vote.item_id, vote.left_is) for vote in theirs.live())

    def _serve(self, at: Sitting) -> Served:
        shown = content(at, at.place)
        token = at.token(at.place)
        practice = at.place.startswith("p")
        self._showing(token)
        return Served(
            token=token,
            number=int(at.place.lstrip("p")) + 1,
            total=len(at.study.practice) if practice else at.total,
            practice=practice,
            domain=shown.domain,
            turns=tuple(dict(message) for message in shown.turns),
            left=shown.text("left"),
            right=shown.text("right"),
            reference=shown.reference,
            questions=at.study.questions_for(shown.domain),
            can_undo=bool(at.votes.live()),
        )

    def _showing(self, token: str) -> None:
        with self._guard:
            self._shown.setdefault(token, time.monotonic())
            while len(self._shown) > _SHOWN:
                self._shown.popitem(last=False)

    def _took(self, token: str) -> float | None:
        """Seconds since the item was first shown by this process."""
        began = self._shown.get(token)
        return None if began is None else time.monotonic() - began

    def _update(self, seat: Seat, how: Callable[[Book, Rater], Rater]) -> Rater:
        return self.raters(seat.study_id).update(seat.rater, how)

    @contextmanager
    def _alone(self, seat: Seat) -> Iterator[None]:
        """One call of a rater at a time: of two clicks at once the second finds the first one's vote."""
        with self._stripes[hash((seat.study_id, seat.rater)) % _STRIPES]:
            yield


_ENDS = {
    "not_open": "study.not_open",
    "consent": "study.consent_first",
    "closed": "study.closed",
    "withdrawn": "study.withdrawn",
    "done": "study.list_done",
}


def _may_reveal(study: Study) -> bool:
    return study.reveal == "after_list" and not study.packed
