"""Votes to preference pairs, as plain data.

Covers: which votes count, one verdict per prompt and pair of answers, what was left out and why, whether the votes allow
learning from pairs (DPO) or from answers judged one by one (KTO). Does not cover: files (pairs_file.py), training.

A prompt that is held out (assets/split.py) gives no pair, however many votes it has.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from assets.errors import UserError
from assets.split import SHARE, is_heldout
from compare.rating import Message, Rating, Side

Objective = Literal["dpo", "kto"]
OTHER: Mapping[Side, Side] = {"model_a": "model_b", "model_b": "model_a"}


@dataclass(frozen=True)
class PairFilter:
    """Which votes count. Empty texts mean any; ``models`` are two identities in any order.

    A verdict needs ``votes`` votes, of which the share ``agreement`` says the same; where criteria were marked, the
    better answer must lead by ``margin`` points on average. ``heldout`` is the share of prompts kept for judging.
    """

    study: str = ""
    domain: str = ""
    models: tuple[str, ...] = ()
    blind_only: bool = True
    votes: int = 1
    agreement: float = 0.6
    margin: float = 0.0
    heldout: float = SHARE


@dataclass(frozen=True)
class Verdict:
    """What the votes on one prompt and two answers say. ``winner`` is a side of ``vote``, or "both_bad"."""

    vote: Rating
    winner: Side | Literal["both_bad"]
    votes: int
    agreement: float

    @property
    def prompt(self) -> list[Message]:
        return self.vote.turns("model_a")

    def pair(self) -> dict[str, list[Message]]:
        """One row for DPO."""
        if self.winner == "both_bad":
            raise ValueError("no answer won")
        chosen, rejected = self.vote.response(self.winner), self.vote.response(OTHER[self.winner])
        return {"prompt": self.prompt, "chosen": _answer(chosen), "rejected": _answer(rejected)}

    def judged(self) -> list[dict[str, Any]]:
        """Two rows for KTO: a good answer and a bad one, or two bad ones."""
        return [
            {"prompt": self.prompt, "completion": _answer(self.vote.response(side)), "label": side == self.winner}
            for side in OTHER
        ]


@dataclass(frozen=True)
class Pairs:
    """What the votes give. ``left_out`` counts by reason (keys under "ratings.left_out."): votes in ``left_out``,
    prompts with their votes in ``undecided``. ``used`` are the ids of the votes behind the verdicts, sorted."""

    objective: Objective
    verdicts: tuple[Verdict, ...]
    left_out: Mapping[str, int]
    undecided: Mapping[str, int]
    used: tuple[str, ...]
    raters: int
    filter: PairFilter = field(default_factory=PairFilter)

    @property
    def decided(self) -> int:
        return sum(verdict.winner != "both_bad" for verdict in self.verdicts)

    @property
    def both_bad(self) -> int:
        return len(self.verdicts) - self.decided

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What goes into the file. DPO has no use for two bad answers."""
        if self.objective == "kto":
            return [row for verdict in self.verdicts for row in verdict.judged()]
        return [verdict.pair() for verdict in self.verdicts if verdict.winner != "both_bad"]

    @property
    def sha256(self) -> str:
        """Of the ids of the votes that were used."""
        return hashlib.sha256("\n".join(self.used).encode()).hexdigest()


def from_votes(votes: Iterable[Rating], chosen: PairFilter, objective: Objective | None = None) -> Pairs:
    """Verdicts from votes; without an ``objective`` the one that the votes allow. UserError("pairs.none") when nothing
    is decided, "pairs.no_good" when KTO is asked for and no answer is good."""
    left_out: Counter[str] = Counter()
    groups: dict[str, list[Rating]] = {}
    for vote in votes:
        reason = left_out_for(vote, chosen)
        if reason:
            left_out[reason] += 1
        else:
            groups.setdefault(_key(vote), []).append(vote)
    undecided: Counter[str] = Counter()
    verdicts: list[Verdict] = []
    used: list[str] = []
    raters: set[str] = set()
    for group in groups.values():
        found = verdict(group, chosen)
        if isinstance(found, str):
            undecided[found] += 1
            continue
        verdicts.append(found)
        used += [vote.rating_id for vote in group]
        raters |= {vote.rater for vote in group}
    decided = sum(v.winner != "both_bad" for v in verdicts)
    if not verdicts or (not decided and objective != "kto"):
        raise UserError("pairs.none", votes=sum(map(len, groups.values())))
    if not decided:
        raise UserError("pairs.no_good")
    best = objective or allowed(decided, len(verdicts) - decided)
    return Pairs(
        best, tuple(verdicts), dict(left_out), dict(undecided), tuple(sorted(used)), len(raters - {""}), chosen
    )


def allowed(decided: int, both_bad: int) -> Objective:
    """DPO learns from the difference of two answers, which is most of what votes say; where prompts with two bad answers
    outnumber the decided ones, they say more through KTO, which learns from each answer alone."""
    return "kto" if both_bad > decided else "dpo"


def left_out_for(vote: Rating, chosen: PairFilter) -> str:
    """Why a vote is not counted at all; "" for one that is."""
    turns = vote.turns("model_a")
    reasons = {
        "practice": vote.kind == "practice",
        "repeat": vote.kind == "repeat",
        "aa": vote.kind == "aa" or vote.model_a == vote.model_b,
        "other_study": bool(chosen.study) and vote.study_id != chosen.study,
        "other_models": bool(chosen.models) and {vote.model_a, vote.model_b} != set(chosen.models),
        "other_domain": bool(chosen.domain) and vote.domain != chosen.domain,
        "not_blind": chosen.blind_only and not vote.blind,
        "histories_differ": turns != vote.turns("model_b"),
        "no_prompt": not turns or turns[-1]["role"] != "user",
        "empty_answer": not vote.response_a.strip() or not vote.response_b.strip(),
        "same_answer": vote.response_a.strip() == vote.response_b.strip(),
    }
    found = next((reason for reason, applies in reasons.items() if applies), "")
    return found or ("heldout" if is_heldout(turns, chosen.heldout) else "")


def verdict(group: Sequence[Rating], chosen: PairFilter) -> Verdict | str:
    """What the votes on the same two answers say together, or why they say nothing."""
    first = group[0]
    said = Counter(_said(vote, first) for vote in group)
    (best, count), *rest = said.most_common()
    if len(group) < chosen.votes:
        return "few_votes"
    if rest and rest[0][1] == count:
        return "no_majority"
    if best == "tie":
        return "tie"
    if count / len(group) < chosen.agreement:
        return "low_agreement"
    if best == "both_bad":
        return Verdict(first, "both_bad", len(group), count / len(group))
    winner: Side = "model_a" if best == "model_a" else "model_b"
    lead = _lead(group, first, winner)
    if chosen.margin > 0 and (lead is None or lead < chosen.margin):
        return "margin"
    return Verdict(first, winner, len(group), count / len(group))


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _key(vote: Rating) -> str:
    """The prompt and both answers, whichever side they stood on."""
    answers = sorted((vote.response_a, vote.response_b))
    return json.dumps([vote.turns("model_a"), answers], ensure_ascii=False)


def _flipped(vote: Rating, first: Rating) -> bool:
    return vote.response_a != first.response_a


def _said(vote: Rating, first: Rating) -> str:
    """The vote in the sides of the group's first."""
    if vote.winner in OTHER and _flipped(vote, first):
        return OTHER["model_a" if vote.winner == "model_a" else "model_b"]
    return vote.winner


def _lead(group: Sequence[Rating], first: Rating, winner: Side) -> float | None:
    """By how many points the winner leads, over every criterion that one rater marked for both; None without marks."""
    leads = []
    for vote in group:
        side = OTHER[winner] if _flipped(vote, first) else winner
        mine, others = vote.criteria.get(side, {}), vote.criteria.get(OTHER[side], {})
        leads += [mine[name] - others[name] for name in mine.keys() & others.keys()]
    return sum(leads) / len(leads) if leads else None
