"""One visitor's comparison: what is asked, both conversations, the vote, and what the page may show of it.

Covers: blind and open talks over several turns, asking again, cancelling, voting once, revealing, taking a vote back.
Does not cover: the line in front of the engine (desk.py), sides and rows (trial.py), components (tab*.py). Lives on the
server; a page gets ``panes`` and nothing else of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from assets.errors import UserError
from compare.desk import KEYS, Desk, Pair, Ticket, Waiting
from compare.engine import Delta, Done, Sampling
from compare.ratings import RatingsFile
from compare.talk import PLACES, SIDES, Pane, Question, Talk, new_trial
from compare.trial import CHOICES, Place, side_for

__all__ = ["PLACES", "SIDES", "Pane", "Question", "Session", "Stage", "Talk"]

Stage = Literal["ready", "busy", "stopped", "answered", "revealed"]


@dataclass
class Session:
    """One visitor. ``rater`` is a random pseudonym, ``rated`` the ids of built-in prompts that have this rater's vote.

    ``picked`` and ``editing`` are about the card in which a pair is chosen; ``met`` is the pair whose system prompt was
    last put into the page, ``seen`` the pair on the page and whether it rests.
    """

    rater: str = ""
    role: str = "visitor"
    blind: bool = True
    studying: bool = False
    domain: str = "emotion"
    picked: tuple[str, str] = ("", "")
    editing: bool = False
    met: str = ""
    seen: tuple[str, bool] = ("", False)
    rated: set[str] = field(default_factory=set)
    talk: Talk | None = None
    ticket: Ticket | None = None
    place: int = 0
    number: int = 0
    secret: str = ""

    def meet(self, rater: str, rated: set[str]) -> None:
        """Learn who this is. The order of sides is drawn anew, so that a reload of the page does not repeat it."""
        self.rater, self.rated, self.secret = rater, rated, secrets.token_hex(8)

    @property
    def mode(self) -> str:
        """ "study" while the owner is in the room for studies, else "blind" or "open"."""
        return "study" if self.studying else "blind" if self.blind else "open"

    @property
    def stage(self) -> Stage:
        if self.ticket is not None:
            return "busy"
        if self.talk is None:
            return "ready"
        state = self.talk.trial.state
        return "revealed" if state in ("voted", "revealed") else "answered" if state == "answered" else "stopped"

    @property
    def can_vote(self) -> bool:
        return self.stage == "answered" and self.talk is not None and self.talk.blind

    def clear(self) -> None:
        """Begin anew. A running answer is left to end by itself."""
        self.talk = None

    def ask(self, pair: Pair | None, question: Question, system: str, sampling: Sampling, app_version: str) -> None:
        """A first question, or the next one of the talk. UserError when there is nothing to ask or nobody to answer."""
        if pair is None:
            raise UserError("engine.not_loaded")
        if not question.text.strip():
            raise UserError("compare.empty")
        talk = self.talk
        if talk is None or talk.pair is not pair or self.stage == "revealed":
            self.talk = self._new(pair, question, system, sampling, app_version)
            return
        if self.stage == "answered":
            if not all(self._answer(key).strip() for key in KEYS):
                raise UserError("compare.nothing_to_follow")
            for key in KEYS:
                talk.histories[key].append({"role": "assistant", "content": self._answer(key)})
        else:
            for key in KEYS:
                talk.histories[key].pop()
        for key in KEYS:
            talk.histories[key].append({"role": "user", "content": question.text.strip()})
        self._retry(talk, system, sampling, app_version)

    def again(self, pair: Pair | None, system: str, sampling: Sampling, app_version: str) -> None:
        """Both answers once more. UserError("compare.pair_changed") when their models are no longer loaded."""
        talk = self.talk
        if talk is None or self.stage == "revealed":
            raise UserError("compare.empty")
        if talk.pair is not pair:
            raise UserError("compare.pair_changed")
        self._retry(talk, system, sampling, app_version)

    def run(self, desk: Desk, sampling: Sampling) -> Generator[bool, None, None]:
        """Answer the question just asked. Yields True at once and when the page should be shown. Closing it cancels."""
        talk = self.talk
        if talk is None or self.ticket is not None:
            raise UserError("compare.busy_here")
        ticket = self.ticket = Ticket(owner=self.rater)
        turns = {key: list(turns) for key, turns in talk.histories.items()}
        events = desk.answers(talk.pair, ticket, turns, talk.system or None, sampling)
        try:
            yield True
            for event in events:
                yield self._take(talk, event)
        finally:
            events.close()
            self.ticket, self.place = None, 0

    def stop(self, desk: Desk) -> None:
        if self.ticket is not None:
            desk.cancel(self.ticket)

    def vote(
        self,
        choice: str | None,
        marks: Mapping[str, Mapping[str, int]],
        comment: str,
        store: RatingsFile,
        layout: str = "columns",
    ) -> bool:
        """Store the vote and reveal. False when this comparison has its vote already: a double click is one vote.

        UserErrors: "compare.choose_first", and those of the store, after which the vote can be given again.
        """
        talk = self.talk
        if talk is None or talk.rating is not None:
            return False
        if choice not in CHOICES:
            raise UserError("compare.choose_first")
        row = talk.trial.vote(str(choice), self.rater, marks, comment.strip(), layout, self.role)
        store.append(row)
        talk.rating, talk.reveal = row, talk.trial.reveal()
        if row.prompt_id:
            self.rated.add(row.prompt_id)
        return True

    def undo(self, store: RatingsFile) -> bool:
        """Take the last vote back; its comparison stays revealed and cannot be voted on again."""
        talk = self.talk
        if talk is None or talk.rating is None or talk.undone:
            return False
        store.undo(talk.rating.rating_id, self.rater)
        talk.undone = True
        self.rated.discard(talk.rating.prompt_id)
        return True

    def compare(self, desk: Desk) -> bool:
        """Find out what tuning changed in the answers that stand here, once. False when nothing can be said."""
        talk = self.talk
        asked = talk.asked_changes() if talk is not None else None
        if talk is None or asked is None or (talk.blind and talk.reveal is None):
            return False
        if talk.changes is None:
            talk.changes = desk.changes(talk.pair, Ticket(owner=self.rater), asked)
        return talk.changes is not None

    def panes(self) -> tuple[Pane, Pane]:
        """Left and right as the page may show them."""
        left, right = (self._pane(place) for place in PLACES)
        return left, right

    def _new(self, pair: Pair, question: Question, system: str, sampling: Sampling, app_version: str) -> Talk:
        left = side_for(self.secret, self.rater, self.number) if self.blind else "model_a"
        self.number += self.blind
        turns = [dict(m) for m in question.opening] + [{"role": "user", "content": question.text.strip()}]
        histories = {key: list(turns) for key in KEYS}
        trial = new_trial(pair, histories, question, system, left, self.blind, sampling, app_version)
        return Talk(pair, question, system, left, self.blind, histories, trial)

    def _retry(self, talk: Talk, system: str, sampling: Sampling, app_version: str) -> None:
        talk.system = system
        talk.trial = new_trial(
            talk.pair, talk.histories, talk.question, talk.system, talk.left_is, talk.blind, sampling, app_version
        )
        talk.done, talk.changes = {}, None

    def _take(self, talk: Talk, event: Waiting | Delta | Done) -> bool:
        if isinstance(event, Waiting):
            self.place = event.place
            return True
        self.place = 0
        if isinstance(event, Delta):
            talk.trial.push(event.arm, event.text)
            return False
        talk.done[event.arm] = event
        talk.trial.finish(
            event.arm,
            event.reason,
            tokens=event.tokens,
            seconds_to_first=round(event.seconds_to_first, 3),
            tokens_per_second=round(event.tokens_per_second, 2),
        )
        return True

    def _answer(self, key: str) -> str:
        return "" if self.talk is None else self.talk.text(key)

    def _pane(self, place: Place) -> Pane:
        talk = self.talk
        if talk is None:
            return Pane()
        key = next(k for k in KEYS if talk.trial.place(k) == place)
        done = talk.done.get(key)
        open_ = not talk.blind or talk.reveal is not None
        candidate = talk.pair.candidates[KEYS.index(key)]
        winner = talk.rating.winner if talk.rating else ""
        return Pane(
            turns=tuple(talk.histories[key]),
            text=self._answer(key),
            streaming=self.ticket is not None and done is None,
            ended=done.reason if done else "",
            error=done.error if done else None,
            name=candidate.name if open_ else None,
            kind=talk.pair.kind(KEYS.index(key)) if open_ else "",
            chosen=winner == SIDES[key],
            done=done if open_ else None,
            leaked=talk.reveal.leaked[place] if talk.reveal else (),
        )
