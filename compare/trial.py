"""One comparison: two arms, who stands on which side, what the rater may see, one vote, the reveal.

Covers: the balanced random side, the states open -> answered -> voted -> revealed, the row a vote becomes. Does not
cover: generating the answers (engine.py), storing the row (ratings.py). A Trial lives on the server: the page gets
``visible()`` of it and, after the vote, ``reveal()``.
"""

from __future__ import annotations

import copy
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from assets.errors import UserError
from compare.criteria import check_marks
from compare.names import names_leaked
from compare.rating import SIDES, Message, Rating, Side, now

Place = Literal["left", "right"]
State = Literal["open", "answered", "voted", "revealed"]
CHOICES = ("left", "right", "tie", "both_bad")
BLOCK = 4


def side_for(seed: str | int, rater: str, number: int) -> Side:
    """Which arm stands left in a rater's comparison ``number`` (from 0): random blocks of 4, two of each.

    The same answer for the same three, so that nothing need be kept; ``seed`` stays on the server.
    """
    block = [SIDES[0], SIDES[1]] * (BLOCK // 2)
    random.Random(f"{seed}\0{rater}\0{number // BLOCK}").shuffle(block)
    return "model_a" if block[number % BLOCK] == "model_a" else "model_b"


@dataclass(frozen=True)
class TrialArm:
    """``key`` is the engine's opaque name; ``model`` the identity in the row; ``names`` what else it is called."""

    key: str
    model: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What is the same for the whole comparison and goes into the row as it is."""

    domain: str = "general"
    kind: str = "free"
    study_id: str = ""
    item_id: str = ""
    prompt_set: str = ""
    prompt_id: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    app_version: str = ""
    blind: bool = True


@dataclass(frozen=True)
class Reveal:
    """Which model stood where, and the names that the answers let slip, by place."""

    left: str
    right: str
    leaked: Mapping[str, tuple[str, ...]]


class Trial:
    """A comparison of ``arms`` (the first is model_a), answering ``conversation``.

    ``conversation`` is a list of messages, or one list per side when the histories have parted.
    """

    def __init__(
        self,
        arms: tuple[TrialArm, TrialArm],
        conversation: list[Message] | dict[str, list[Message]],
        left_is: Side,
        setting: Setting | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.conversation = copy.deepcopy(conversation)
        self.left_is = left_is
        self.setting = setting or Setting()
        self._arms: dict[Side, TrialArm] = {"model_a": arms[0], "model_b": arms[1]}
        self._clock = clock
        self._vote: dict[str, tuple[str, Rating]] = {}
        self._revealed = False
        self.clear()

    @property
    def state(self) -> State:
        if self._revealed:
            return "revealed"
        if self._vote:
            return "voted"
        return "answered" if all(reason in ("stop", "length") for reason in self._reasons.values()) else "open"

    def clear(self) -> None:
        """Forget the answers, to make them again. UserError("ratings.already_voted") once a vote was given."""
        if self._vote:
            raise UserError("ratings.already_voted")
        self._texts: dict[Side, str] = dict.fromkeys(self._arms, "")
        self._reasons: dict[Side, str] = dict.fromkeys(self._arms, "")
        self._timing: dict[str, Any] = {}
        self._answered_at = 0.0

    def place(self, key: str) -> Place:
        """Where the arm with this engine key stands."""
        return "left" if self._side(key) == self.left_is else "right"

    def push(self, key: str, text: str) -> None:
        """A piece of an answer has arrived."""
        side = self._side(key)
        if self._reasons[side]:
            raise ValueError("this answer is complete")
        self._texts[side] += text

    def finish(self, key: str, reason: str, **timing: float) -> None:
        """An answer ended with the engine's ``reason``; "stop" and "length" make it complete, the others do not."""
        side = self._side(key)
        self._reasons[side] = reason
        self._timing[side] = {"reason": reason} | timing
        self._answered_at = self._clock()

    def visible(self) -> dict[str, Any]:
        """What the page may know now. While it is blind and not revealed, nothing here hints at a model."""
        left, right = self._places()
        seen = {
            "id": self.id,
            "state": self.state,
            "domain": self.setting.domain,
            "left": self._texts[left],
            "right": self._texts[right],
            "left_turns": self._turns(left),
            "right_turns": self._turns(right),
            "can_vote": self.state == "answered",
        }
        if not self.setting.blind or self._revealed:
            seen |= {"left_name": self._arms[left].model, "right_name": self._arms[right].model}
        return seen

    def vote(
        self,
        choice: str,
        rater: str,
        marks: Mapping[str, Mapping[str, int]] | None = None,
        comment: str = "",
        layout: str = "columns",
        rater_role: str = "",
    ) -> Rating:
        """The row of this vote. ``marks`` is {"left": {criterion: number}, "right": {...}}.

        A second call with the same choice gives the first row again, another choice UserError("ratings.already_voted").
        UserError("ratings.not_answered") while an answer is missing.
        """
        if choice not in CHOICES:
            raise UserError("ratings.bad_value", column="winner", value=choice)
        if not self._vote:
            if self.state != "answered":
                raise UserError("ratings.not_answered")
            row = self._row(choice, rater, marks or {}, comment, layout, rater_role)
            self._vote.setdefault("first", (choice, row))  # atomic: of two clicks at once one is first
        first, row = self._vote["first"]
        if first != choice:
            raise UserError("ratings.already_voted")
        return row

    def reveal(self) -> Reveal:
        """Who stood where. UserError("ratings.vote_first") before the vote."""
        if not self._vote:
            raise UserError("ratings.vote_first")
        self._revealed = True
        left, right = self._places()
        leaked = {"left": self._leaked(left), "right": self._leaked(right)}
        return Reveal(self._arms[left].model, self._arms[right].model, leaked)

    def _row(
        self, choice: str, rater: str, marks: Mapping[str, Mapping[str, int]], comment: str, layout: str, role: str
    ) -> Rating:
        left, right = self._places()
        sides: dict[str, Side] = {"left": left, "right": right}
        for given in marks.values():
            check_marks(self.setting.domain, given)
        leaked = {side: list(names) for side in self._arms if (names := self._leaked(side))}
        rest = {name: getattr(self.setting, name) for name in _COPIED}
        return Rating(
            rating_id=self.id,
            created_at=now(),
            rater=rater,
            rater_role=role,
            conversation=self.conversation,
            response_a=self._texts["model_a"],
            response_b=self._texts["model_b"],
            model_a=self._arms["model_a"].model,
            model_b=self._arms["model_b"].model,
            left_is=self.left_is,
            layout=layout,
            winner=sides.get(choice, choice),
            criteria={sides[place]: dict(given) for place, given in marks.items()},
            comment=comment,
            sampling=dict(self.setting.sampling),
            provenance=dict(self.setting.provenance) | ({"named": leaked} if leaked else {}),
            timing=self._timing | {"seconds_to_vote": round(self._clock() - self._answered_at, 3)},
            **rest,
        )

    def _side(self, key: str) -> Side:
        for side, arm in self._arms.items():
            if arm.key == key:
                return side
        raise KeyError(key)

    def _places(self) -> tuple[Side, Side]:
        return ("model_a", "model_b") if self.left_is == "model_a" else ("model_b", "model_a")

    def _turns(self, side: Side) -> list[Message]:
        return self.conversation[side] if isinstance(self.conversation, dict) else self.conversation

    def _leaked(self, side: Side) -> tuple[str, ...]:
        return names_leaked(self._texts[side], tuple(self._arms.values()))


_COPIED = ("domain", "kind", "study_id", "item_id", "prompt_set", "prompt_id", "seed", "app_version", "blind")
