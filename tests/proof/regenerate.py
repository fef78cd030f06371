"""Makes stored greedy answers again from their provenance, with stock transformers and peft, and says which match.

By hand, from the folder of app.py:
    python -m tests.proof.regenerate workspace/ratings/ratings.csv [--home workspace] [--adapters FOLDER ...]

One line per answer: "match"; "tie" (another text, but every token of the stored one is the model's own up to rounding,
given the tokens before it); "MISMATCH" with the first token that is not; "skipped" with the reason. Ends with 1 when
anything mismatches. Does not cover: sampled answers, whose noise is ours alone, nor an answer that was stopped or
failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.hub import ModelFiles, locate
from assets.quantised import source_of
from compare.rating import Rating
from compare.ratings import RatingsFile
from tests.proof.stock import Doubt, Stock

WEIGHTS = "adapter_model.safetensors"
SIDES = {"model_a": "response_a", "model_b": "response_b"}


@dataclass(frozen=True)
class Verdict:
    """``outcome`` is match, tie, mismatch or skipped; ``why`` a sentence for the last two."""

    rating_id: str
    side: str
    outcome: str
    why: str = ""


@dataclass(frozen=True)
class _Stored:
    """One answer with all that is needed to make it again."""

    rating_id: str
    side: str
    text: str
    ended: str
    messages: Sequence[Mapping[str, str]]
    sampling: Mapping[str, Any]
    arm: Mapping[str, Any]
    weights: str


class _Cannot(Exception):
    """Why an answer cannot be made again."""


def regenerate(votes: Iterable[Rating], workspace: Workspace, adapters: Sequence[Path] = ()) -> Iterator[Verdict]:
    """A verdict for every answer of ``votes``. Models are read once per (base, adapter, weights), one at a time."""
    folders = [*adapters, *sorted(workspace.jobs.glob("*/adapter"))]
    possible = []
    for stored in (s for vote in votes for s in _stored(vote)):
        try:
            _require_greedy(stored)
        except _Cannot as reason:
            yield Verdict(stored.rating_id, stored.side, "skipped", str(reason))
        else:
            possible.append(stored)
    for _, group in groupby(sorted(possible, key=_model_of), key=_model_of):
        same = list(group)
        try:
            files, folder = _find(same[0], workspace, folders)
            stock = Stock(files.folder, folder, same[0].weights)
        except (_Cannot, UserError) as reason:
            yield from (Verdict(s.rating_id, s.side, "skipped", str(reason)) for s in same)
            continue
        for stored in same:
            yield _check(stored, stock, files)


def _stored(vote: Rating) -> Iterator[_Stored]:
    for side, column in SIDES.items():
        given = vote.conversation[side] if isinstance(vote.conversation, dict) else vote.conversation
        ended = str(dict(vote.timing.get(side) or {}).get("reason", ""))
        arm = dict(vote.provenance.get(side) or {})
        weights = str(vote.provenance.get("weights") or "")
        yield _Stored(vote.rating_id, side, getattr(vote, column), ended, given, vote.sampling, arm, weights)


def _require_greedy(stored: _Stored) -> None:
    sampling = stored.sampling
    if not stored.arm.get("base_revision") or not stored.weights:
        raise _Cannot("its record is older than this proof: no revision, or no word on how the weights were held")
    if stored.ended not in ("stop", "length"):
        raise _Cannot(f"it did not end by itself ({stored.ended or 'unknown'})")
    if sampling.get("temperature") and sampling.get("top_p") != 0 and sampling.get("top_k") != 1:
        raise _Cannot("it was sampled, not greedy")


def _model_of(stored: _Stored) -> tuple[str, str, str]:
    return str(stored.arm["base"]), str(stored.arm.get("adapter_sha256") or ""), stored.weights


def _find(stored: _Stored, workspace: Workspace, folders: Sequence[Path]) -> tuple[ModelFiles, Path | None]:
    files = locate(workspace, str(stored.arm["base"]))
    if (here := source_of(files)) != stored.arm["base_revision"]:
        raise _Cannot(f"the base here is {here}, the answer came from {stored.arm['base_revision']}")
    wanted = stored.arm.get("adapter_sha256")
    if not wanted:
        return files, None
    for folder in folders:
        if (folder / WEIGHTS).is_file() and sha256((folder / WEIGHTS).read_bytes()).hexdigest() == wanted:
            return files, folder
    raise _Cannot(f"no adapter with sha256 {wanted[:16]}… (it was {stored.arm.get('adapter', '?')})")


def _check(stored: _Stored, stock: Stock, files: ModelFiles) -> Verdict:
    chat = ChatFormat.from_folder(files.folder, stored.arm.get("template"))
    if chat.template_hash != stored.arm.get("template_hash"):
        return Verdict(stored.rating_id, stored.side, "skipped", "the chat template here is another one")
    prompt = chat.encode_prompt([dict(turn) for turn in stored.messages])
    limit = int(stored.sampling.get("max_new_tokens", 256))
    penalty = float(stored.sampling.get("repetition_penalty", 1.0))
    made = stock.greedy(prompt, limit, chat.stop_ids, penalty)
    text = _text(chat, made, stored.ended)
    if text == stored.text:
        return Verdict(stored.rating_id, stored.side, "match")
    kept = chat.tokenizer.encode(stored.text, add_special_tokens=False)
    doubts = stock.doubts(prompt, kept, chat.stop_ids, stored.ended == "stop")
    wrong = next((doubt for doubt in doubts if not doubt.tie), None)
    if wrong is not None:
        return Verdict(stored.rating_id, stored.side, "mismatch", _why(wrong, chat))
    if stored.ended == "length" and text.startswith(stored.text):
        return Verdict(stored.rating_id, stored.side, "mismatch", "the stored text is shorter than its limit")
    why = _why(doubts[0], chat) if doubts else "read in one pass, this model draws exactly the stored tokens"
    return Verdict(stored.rating_id, stored.side, "tie", why)


def _text(chat: ChatFormat, tokens: Sequence[int], ended: str) -> str:
    stream = chat.stream()
    text = "".join(map(stream.push, tokens)) + stream.flush()
    return text if ended == "stop" else text.rstrip("\ufffd")


def _why(doubt: Doubt, chat: ChatFormat) -> str:
    drawn, best = (
        "the end" if token is None else repr(chat.tokenizer.decode([token])) for token in (doubt.drawn, doubt.best)
    )
    return (
        f"token {doubt.place}: stored {drawn}, this model alone says {best}; "
        f"gap {doubt.gap:.4f}, rounding explains {doubt.rounding:.4f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--home", type=Path, default=Path("workspace"))
    parser.add_argument("--adapters", type=Path, nargs="*", default=())
    asked = parser.parse_args()
    votes = RatingsFile(asked.ratings, "").read().votes
    counts: dict[str, int] = {}
    for verdict in regenerate(votes, Workspace(asked.home.resolve()), asked.adapters):
        counts[verdict.outcome] = counts.get(verdict.outcome, 0) + 1
        shown = verdict.outcome.upper() if verdict.outcome == "mismatch" else verdict.outcome
        print(f"{verdict.rating_id[:8]} {verdict.side} {shown} {verdict.why}".rstrip(), flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no votes")
    return 1 if counts.get("mismatch") else 0


if __name__ == "__main__":
    sys.exit(main())
