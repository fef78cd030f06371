"""One visitor's comparison: what is asked, both conversations, the vote, and what the page may show of it.

Covers: blind and open talks over several turns, asking again, cancelling, voting once, revealing, taking a vote back.
Does not cover: the line in front of the engine (desk.py), sides and rows (trial.py), components (tab*.py). Lives on the
server; a page gets ``panes`` and nothing else of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from assets.catalog import Prompt
from assets.errors import UserError
from compare.desk import KEYS, Candidate, Desk, Pair, Ticket, Waiting
from compare.engine import Delta, Done, Sampling
from compare.provenance import provenance
from compare.rating import Message, Rating, Side
from compare.ratings import RatingsFile
from compare.trial import CHOICES, Place, Reveal, Setting, Trial, TrialArm, side_for

Stage = Literal["ready", "busy", "stopped", "answered", "revealed"]
PLACES: tuple[Place, Place] = ("left", "right")
SIDES: dict[str, Side] = {"a": "model_a", "b": "model_b"}


@dataclass(frozen=True)
class Question:
    """What to ask both sides. ``opening`` are turns before it, ``prompt`` the built-in one it was taken from."""

    text: str
    domain: str = "general"
    opening: tuple[Message, ...] = ()
    prompt: Prompt | None = None

    @property
    def unchanged(self) -> bool:
        """Whether this is the built-in prompt as it is."""
        return self.prompt is not None and self.prompt.messages[-1]["content"].strip() == self.text.strip()


@dataclass(frozen=True)
class Pane:
    """One side as the page may see it. ``name``, ``kind`` and the figures of ``done`` are given once they may be known.

    ``kind`` is "tuned", "base" (of the other side) or "" for a model that is neither.
    """

    turns: tuple[Message, ...] = ()
    text: str = ""
    streaming: bool = False
    ended: str = ""
    error: str | None = None
    name: str | None = None
    kind: str = ""
    chosen: bool = False
    done: Done | None = None
    leaked: tuple[str, ...] = ()


@dataclass
class Talk:
    """Both conversations of one comparison. ``histories`` end with the question that ``trial`` is about."""

    pair: Pair
    question: Question
    system: str
    left_is: Side
    blind: bool
    histories: dict[str, list[Message]]
    trial: Trial
    done: dict[str, Done] = field(default_factory=dict)
    rating: Rating | None = None
    reveal: Reveal | None = None
    undone: bool = False


@dataclass
class Session:
    """One visitor. ``rater`` is a random pseudonym, ``rated`` the ids of built-in prompts that have this rater's vote.

    ``picked`` and ``editing`` are about the card in which a pair is chosen; ``met`` is the pair whose system prompt was
    last put into the page.
    """

    rater: str = ""
    role: str = "visitor"
    blind: bool = True
    domain: str = "emotion"
    picked: tuple[str, str] = ("", "")
    editing: bool = False
    met: str = ""
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
        ticket = self.ticket = Ticket()
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

    def panes(self) -> tuple[Pane, Pane]:
        """Left and right as the page may show them."""
        left, right = (self._pane(place) for place in PLACES)
        return left, right

    def _new(self, pair: Pair, question: Question, system: str, sampling: Sampling, app_version: str) -> Talk:
        left = side_for(self.secret, self.rater, self.number) if self.blind else "model_a"
        self.number += self.blind
        turns = [dict(m) for m in question.opening] + [{"role": "user", "content": question.text.strip()}]
        histories = {key: list(turns) for key in KEYS}
        trial = _trial(pair, histories, question, system, left, self.blind, sampling, app_version)
        return Talk(pair, question, system, left, self.blind, histories, trial)

    def _retry(self, talk: Talk, system: str, sampling: Sampling, app_version: str) -> None:
        talk.system = system
        talk.trial = _trial(
            talk.pair, talk.histories, talk.question, talk.system, talk.left_is, talk.blind, sampling, app_version
        )
        talk.done = {}

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
        talk = self.talk
        return "" if talk is None else str(talk.trial.visible()[talk.trial.place(key)])

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


def _trial(
    pair: Pair,
    histories: Mapping[str, list[Message]],
    question: Question,
    system: str,
    left: Side,
    blind: bool,
    sampling: Sampling,
    app_version: str,
) -> Trial:
    told: list[Message] = [{"role": "system", "content": system}] if system else []
    a, b = ([*told, *histories[key]] for key in KEYS)
    prompt = question.prompt if question.unchanged else None
    setting = Setting(
        domain=question.domain,
        kind="aa" if pair.same else "free",
        prompt_set=str(prompt.tags.get("set") or f"builtin-{prompt.domain}") if prompt else "own",
        prompt_id=prompt.id if prompt else "",
        sampling={name: value for name, value in asdict(sampling).items() if name != "seed"},
        seed=sampling.seed,
        provenance=provenance(pair),
        app_version=app_version,
        blind=blind,
    )
    arms = tuple(_arm(key, c) for key, c in zip(KEYS, pair.candidates, strict=True))
    return Trial((arms[0], arms[1]), a if a == b else {"model_a": a, "model_b": b}, left, setting)


def _arm(key: str, candidate: Candidate) -> TrialArm:
    return TrialArm(key, candidate.model, candidate.names)
