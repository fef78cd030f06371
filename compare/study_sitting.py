"""One rater's place in a study: where they are, what stands on it, the row that a vote on it becomes.

Covers: stages, the ids of votes, the content of practice items, pairs, repeats and same-model pairs. Does not cover:
reading and storing (study_serve.py), which items are on a list (study_plan.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assets.errors import UserError
from compare import study_plan as plan
from compare.rating import Message, Rating, Side, now
from compare.study import Study
from compare.study_items import Answers, Item
from compare.study_raters import Book, Rater
from compare.study_votes import RaterVotes
from compare.trial import CHOICES


@dataclass(frozen=True)
class Sitting:
    """Everything that one call needs to know, read from disk."""

    study: Study
    book: Book
    rater: Rater
    votes: RaterVotes
    answers: Answers
    places: tuple[plan.Place, ...]

    @property
    def total(self) -> int:
        return len(self.places)

    @cached_property
    def practised(self) -> bool:
        return all(self.standing(f"p{number}") for number in range(len(self.study.practice)))

    @cached_property
    def done(self) -> int:
        """Items of the list that have a vote."""
        return sum(self.standing(f"{number}") for number in range(len(self.rater.slots)))

    @cached_property
    def finished(self) -> bool:
        return self.practised and self.total > 0 and self.done == self.total

    @cached_property
    def stage(self) -> str:
        if self.rater.withdrawn_at:
            return "withdrawn"
        if self.study.state in ("draft", "generating"):
            return "not_open"
        if self.rater.consented_at and self.finished:
            return "done"
        if self.study.state == "closed":
            return "closed"
        if not self.rater.consented_at:
            return "consent"
        return "rating" if self.practised else "practice"

    @cached_property
    def place(self) -> str:
        """Where this rater goes on: "p0", "p1" for practice, then "0", "1", …"""
        names = [f"p{n}" for n in range(len(self.study.practice))] + [str(n) for n in range(self.total)]
        return next((name for name in names if not self.standing(name)), "")

    @property
    def code(self) -> str:
        """The completion code; "" while the list is not done."""
        if self.stage != "done":
            return ""
        raw = base64.b32encode(bytes.fromhex(self.book.sign("code", self.rater.rater))[:5]).decode()
        return f"{raw[:4]}-{raw[4:]}"

    def token(self, place: str) -> str:
        """The id of the vote on a place: another one after an undo, the same on every device."""
        attempt = 0
        while (name := self.book.sign("vote", self.rater.rater, place, attempt)) in self.votes.taken:
            attempt += 1
        return name

    def standing(self, place: str) -> bool:
        return self.votes.stands(self.token(place))


@dataclass(frozen=True)
class Content:
    """A place's content: texts of model_a and model_b, and what goes into the row as it is."""

    domain: str
    turns: tuple[Message, ...]
    texts: tuple[str, str]
    left_is: str
    reference: str | None
    timing: Mapping[str, Any]
    columns: Mapping[str, Any]

    @property
    def sides(self) -> dict[str, Side]:
        """Which model stands on the left and on the right."""
        if self.left_is == "model_a":
            return {"left": "model_a", "right": "model_b"}
        return {"left": "model_b", "right": "model_a"}

    def text(self, place: str) -> str:
        return self.texts[self.sides[place] == "model_b"]


@dataclass(frozen=True)
class Given:
    """What a rater sent. ``marks`` is {"left": {question: number}, "right": {…}}; ``seconds`` is None when unknown."""

    choice: str
    marks: Mapping[str, Mapping[str, int]]
    comment: str = ""
    layout: str = "columns"
    seconds: float | None = None


def content(at: Sitting, place: str) -> Content:
    """What stands on a place that is drawn."""
    return _practice(at.study, int(place[1:])) if place.startswith("p") else _pair(at, int(place))


def _practice(study: Study, number: int) -> Content:
    item = study.practice[number]
    columns = {
        "kind": "practice",
        "item_id": f"practice-{number + 1}",
        "model_a": "practice-a",
        "model_b": "practice-b",
        "conversation": [dict(message) for message in item.messages],
    }
    return Content(item.domain, item.messages, (item.left, item.right), "model_a", None, {}, columns)


def _pair(at: Sitting, number: int) -> Content:
    slot = at.rater.slots[number]
    item = Item.of(slot.item_id)
    one, two = (at.answers[task] for task in item.tasks)
    prompt = at.study.prompt(item.prompt_id)
    shared = {key: value for key, value in one.provenance.items() if key != "arm"}
    sides = {"model_a": one.provenance.get("arm", {}), "model_b": two.provenance.get("arm", {})}
    told: list[Message] = [{"role": "system", "content": at.study.system}] if at.study.system else []
    columns: dict[str, Any] = {
        "kind": slot.kind,
        "item_id": slot.item_id,
        "prompt_set": prompt.set,
        "prompt_id": prompt.id,
        "model_a": at.study.arm(item.a).model,
        "model_b": at.study.arm(item.b).model,
        "conversation": told + [dict(message) for message in prompt.messages],
        "sampling": dict(one.sampling),
        "seed": one.seed,
        "provenance": shared | sides if one.provenance else {},
    }
    timing = {"model_a": dict(one.timing), "model_b": dict(two.timing)} if one.timing else {}
    texts = (one.text, two.text)
    return Content(prompt.domain, prompt.messages, texts, slot.left_is, prompt.reference, timing, columns)


def row(at: Sitting, token: str, given: Given, app_version: str) -> Rating:
    """The row of a vote on the place where ``at`` is. UserErrors: "study.choose_first" and those of the marks."""
    if given.choice not in CHOICES:
        raise UserError("study.choose_first")
    shown = content(at, at.place)
    sides = shown.sides
    for place, marks in given.marks.items():
        if place not in sides:
            raise UserError("ratings.bad_value", column="criteria", value=str(place)[:80])
        at.study.check_marks(shown.domain, marks)
    timing = dict(shown.timing)
    if given.seconds is not None and 0 <= given.seconds < 1e6:
        timing["seconds_to_vote"] = round(given.seconds, 3)
    return Rating(
        rating_id=token,
        created_at=now(),
        app_version=app_version,
        study_id=at.study.id,
        rater=at.rater.rater,
        rater_role=at.rater.role,
        domain=shown.domain,
        response_a=shown.texts[0],
        response_b=shown.texts[1],
        left_is=shown.left_is,
        layout=given.layout,
        blind=True,
        winner=sides.get(given.choice, given.choice),
        criteria={sides[place]: dict(marks) for place, marks in given.marks.items() if marks},
        comment=given.comment.strip(),
        timing=timing,
        **shown.columns,
    )
