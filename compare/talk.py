"""One comparison in memory: what is asked, both conversations, and the trial that is about the last question.

Covers: the values a visitor's session holds and the page is painted from. Does not cover: what a visitor may do with
them (session.py), sides and rows (trial.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from assets.catalog import Prompt
from compare.desk import KEYS, Candidate, Pair
from compare.engine import Changes, ChangesAsked, Done, Sampling
from compare.provenance import provenance
from compare.rating import Message, Rating, Side
from compare.trial import Place, Reveal, Setting, Trial, TrialArm

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
    changes: Changes | None = None

    def text(self, key: str) -> str:
        """The answer of an arm so far."""
        return str(self.trial.visible()[self.trial.place(key)])

    @property
    def comparable(self) -> tuple[str, str] | None:
        """The keys (base, tuned) of two arms on one base, the tuned one being the second where both are; else None."""
        first, second = self.pair.candidates
        if first.base != second.base or self.pair.same:
            return None
        return ("a", "b") if second.adapter is not None else ("b", "a")

    def asked_changes(self) -> ChangesAsked | None:
        """What to ask the engine so that it says what tuning changed in the answers that stand here."""
        keys = self.comparable
        if keys is None or self.trial.state == "open":
            return None
        base, tuned = keys
        first = len(self.histories[tuned]) == len(self.question.opening) + 1
        prompt = self.question.prompt if self.question.unchanged and first else None
        answers = {key: self.text(key) for key in keys}
        reference = (prompt.reference or "") if prompt else ""
        return ChangesAsked(base, tuned, list(self.histories[tuned]), self.system or None, answers, reference)


def new_trial(
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
