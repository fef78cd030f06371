"""Votes as rows for training and for arena tools, one JSON object per line.

Covers: preference pairs as trl's DPOTrainer reads them, judged answers as its KTOTrainer does, the columns of Chatbot
Arena's public data that FastChat and arena-rank read; what was left out of each and why. Does not cover: which of
these are good enough to train on (pairs.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from compare.csv_store import to_json
from compare.export import Exported, written
from compare.rating import Message, Rating, Side

Row = dict[str, Any]
_ARENA_WINNERS = {"both_bad": "tie (bothbad)"}


def export_preferences(votes: Iterable[Rating], target: Path, *, blind_only: bool = True) -> Exported:
    """JSONL of {"prompt": [messages], "chosen": [assistant], "rejected": [assistant]}, as trl's DPOTrainer reads it.

    Left out and counted: ties, both-bad, practice, aa, repeats, votes that were not blind, equal or empty answers, and
    histories that had parted (the two answers have no common prompt).
    """
    return _lines(votes, target, lambda vote: _no_pair(vote, blind_only), lambda vote: [preference(vote)])


def export_judged(votes: Iterable[Rating], target: Path, *, blind_only: bool = True) -> Exported:
    """JSONL of {"prompt": [messages], "completion": [assistant], "label": bool}, as trl's KTOTrainer reads it.

    A decided vote gives a good and a bad answer, both-bad two bad ones. Left out and counted: ties and what
    ``export_preferences`` leaves out; ``rows`` counts answers.
    """
    return _lines(votes, target, lambda vote: _no_pair(vote, blind_only, both_bad=True), judged)


def export_arena(votes: Iterable[Rating], target: Path) -> Exported:
    """JSONL with the columns of lmsys/chatbot_arena_conversations, which FastChat's elo_analysis and arena-rank read.

    Left out and counted: practice, aa and repeats. Votes that were not blind say so in ``anony``.
    """
    return _lines(votes, target, _no_battle, lambda vote: [battle(vote)])


def _lines(
    votes: Iterable[Rating], target: Path, why_not: Callable[[Rating], str], made: Callable[[Rating], list[Row]]
) -> Exported:
    left_out: Counter[str] = Counter()
    rows = 0
    with written(target) as out:
        for vote in votes:
            if reason := why_not(vote):
                left_out[reason] += 1
                continue
            for row in made(vote):
                out.write(to_json(row).encode() + b"\n")
                rows += 1
    return Exported(target, rows, dict(left_out))


def preference(vote: Rating) -> dict[str, list[Message]]:
    """A decided vote as one preference pair."""
    chosen: Side = "model_a" if vote.winner == "model_a" else "model_b"
    rejected: Side = "model_b" if chosen == "model_a" else "model_a"
    return {
        "prompt": _turns(vote, chosen),
        "chosen": [_answer(vote, chosen)],
        "rejected": [_answer(vote, rejected)],
    }


def judged(vote: Rating) -> list[Row]:
    """A decided or both-bad vote as two judged answers."""
    return [
        {"prompt": _turns(vote, side), "completion": [_answer(vote, side)], "label": vote.winner == side}
        for side in ("model_a", "model_b")
    ]


def battle(vote: Rating) -> Row:
    """A vote in the arena's columns; ``tstamp`` in seconds since 1970, None for a time that cannot be read."""
    a, b = ([*_turns(vote, side), _answer(vote, side)] for side in ("model_a", "model_b"))
    return {
        "question_id": vote.rating_id,
        "model_a": vote.model_a,
        "model_b": vote.model_b,
        "winner": _ARENA_WINNERS.get(vote.winner, vote.winner),
        "judge": vote.rater,
        "conversation_a": a,
        "conversation_b": b,
        "turn": sum(turn["role"] == "user" for turn in a),
        "anony": vote.blind,
        "language": _language(vote),
        "tstamp": _stamp(vote.created_at),
        "category_tag": {"domain": vote.domain},
        "prompt_id": vote.prompt_id,
        "left_is": vote.left_is,
    }


def _language(vote: Rating) -> str:
    asked = "".join(turn["content"] for turn in vote.turns("model_a") if turn["role"] == "user")
    return "Korean" if any("가" <= letter <= "힣" for letter in asked) else "unknown"


def _stamp(created: str) -> float | None:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return None


def _turns(vote: Rating, side: Side) -> list[Message]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in vote.turns(side)]


def _answer(vote: Rating, side: Side) -> Message:
    return {"role": "assistant", "content": vote.response(side)}


def _no_battle(vote: Rating) -> str:
    if vote.kind in ("practice", "aa", "repeat"):
        return vote.kind
    return "aa" if vote.model_a == vote.model_b else ""


def _no_pair(vote: Rating, blind_only: bool, both_bad: bool = False) -> str:
    """Why a vote is no preference pair; "" for one that is. ``both_bad`` allows such votes."""
    turns = vote.turns("model_a")
    reasons = {
        "practice": vote.kind == "practice",
        "repeat": vote.kind == "repeat",
        "aa": vote.kind == "aa" or vote.model_a == vote.model_b,
        "not_blind": blind_only and not vote.blind,
        "tie": vote.winner == "tie",
        "both_bad": vote.winner == "both_bad" and not both_bad,
        "histories_differ": turns != vote.turns("model_b"),
        "no_prompt": not turns or turns[-1]["role"] != "user",
        "empty_answer": not vote.response_a.strip() or not vote.response_b.strip(),
        "same_answer": vote.response_a == vote.response_b,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")
