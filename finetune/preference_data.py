"""Preference data on its way to the trainer: which of it fits the objective, and each row's tokens.

Covers: pairs and answers judged alone, what is refused, prompts that must not be learnt, token ids from the same
ChatFormat as everything else. Does not cover: reading files (sources.py), the trainer (train_preference.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets import preferences
from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.split import SHARE, is_heldout, position
from finetune.data import Example, Message
from finetune.spec import TrainSpec
from finetune.start import Start

Row = dict[str, Any]


def is_preference(example: Example) -> bool:
    return bool(example.chosen or example.rejected)


def check(spec: TrainSpec, examples: Sequence[Example]) -> None:
    """UserError unless the data is of the kind that the objective learns from, saying what to do instead."""
    if spec.objective == "sft":
        return
    if not examples or not all(map(is_preference, examples)):
        raise UserError("preference.no_pairs", objective=spec.objective.upper())
    alone = sum(example.label is not None for example in examples)
    if spec.objective == "dpo" and alone:
        raise UserError("preference.unpaired", count=alone)
    if spec.objective == "kto" and len({label for e in examples for label, _ in judged(e)}) < 2:
        raise UserError("preference.one_label")


def judged(example: Example) -> list[tuple[bool, tuple[Message, ...]]]:
    """The answers of a row with their labels; a pair is a good answer and a bad one."""
    return [(label, side) for label, side in ((True, example.chosen), (False, example.rejected)) if side]


def rows_of(spec: TrainSpec, examples: Sequence[Example]) -> int:
    """Rows that the trainer counts: KTO takes the answers of a pair one by one."""
    return sum(len(judged(e)) for e in examples) if spec.objective == "kto" else len(examples)


def split(examples: list[Example], share: float, voted: bool) -> tuple[list[Example], list[Example]]:
    """What is trained and what is evaluated on, by prompt, so that no prompt is on both sides.

    Held-out prompts (assets/split.py) are never trained: rows from elsewhere that have one are evaluated on. In a file
    made of votes there must be none; it gives the next ``share`` of its prompts. UserError: preference.heldout,
    preference.all_heldout.
    """
    kept = [e for e in examples if is_heldout(e.messages)]
    if voted and kept:
        raise UserError("preference.heldout", count=len(kept))
    places = sorted({position(e.messages) for e in examples})
    if voted and share > 0 and len(places) > 1:  # at least one prompt on either side
        edge = min(max(SHARE + (1 - SHARE) * share, places[1]), places[-1])
        kept = [e for e in examples if position(e.messages) < edge]
    chosen = {id(e) for e in kept}
    train = [e for e in examples if id(e) not in chosen]
    if not train:
        raise UserError("preference.all_heldout", count=len(kept))
    return train, kept


@dataclass(frozen=True)
class Encoded:
    """Rows for TRL's collators, and how many were left out by reason (keys under "preference.left_out.")."""

    rows: list[Row]
    left_out: dict[str, int]


class _Left(Exception):
    """Raised while a row is encoded: it is left out for this reason."""


def encode(examples: Sequence[Example], chat: ChatFormat, spec: TrainSpec) -> Encoded:
    """Token ids per pair {"prompt_ids", "chosen_ids", "rejected_ids"}, or per judged answer {"prompt_ids",
    "completion_ids", "label"}: the prompt as it is generated from, the answer up to and with its end-of-turn token."""
    rows: list[Row] = []
    left: Counter[str] = Counter()
    for example in examples:
        try:
            rows += _pair(example, chat, spec) if spec.objective == "dpo" else _alone(example, chat, spec)
        except _Left as reason:
            left[str(reason)] += 1
    return Encoded(rows, dict(left))


def tokens(
    chat: ChatFormat, prompt: Sequence[Message], answer: Sequence[Message], spec: TrainSpec
) -> tuple[list[int], list[int]]:
    """Ids of the prompt and of the answer, cut at the spec's length. _Left when nothing of the answer would be left."""
    if len(answer) != 1:
        raise _Left("several_turns")
    system = spec.data.system or None
    before = chat.encode_prompt(prompt, system)
    limit = spec.schedule.max_length
    if len(before) >= limit or 0 < spec.preference.max_prompt < len(before):
        raise _Left("long_prompt")
    whole = chat.encode_training([*prompt, *answer], system)
    end = len(whole.ids) - whole.trained[::-1].index(True)
    return before, whole.ids[len(before) : min(end, limit)]


def shown(chat: ChatFormat, prompt: Sequence[Message], answer: Sequence[Message], spec: TrainSpec) -> list[int]:
    """The ids of an answer as they are learnt from; empty for one that would be left out."""
    try:
        return tokens(chat, prompt, answer, spec)[1]
    except _Left:
        return []


def _pair(example: Example, chat: ChatFormat, spec: TrainSpec) -> list[Row]:
    prompt, chosen = tokens(chat, example.messages, example.chosen, spec)
    _, rejected = tokens(chat, example.messages, example.rejected, spec)
    if chosen == rejected:  # both were cut before they differ
        raise _Left("equal")
    return [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}]


def _alone(example: Example, chat: ChatFormat, spec: TrainSpec) -> list[Row]:
    rows = []
    for label, answer in judged(example):
        prompt, ids = tokens(chat, example.messages, answer, spec)
        rows.append({"prompt_ids": prompt, "completion_ids": ids, "label": label})
    return rows


def ready(rows: list[Row], spec: TrainSpec) -> list[Row]:
    """KTO's trainer keeps the order and estimates how far the model has moved from the other answers of a micro-batch:
    shuffled once by the seed, without the last rows that do not fill one."""
    if spec.objective != "kto":
        return rows
    mixed = list(rows)
    random.Random(spec.schedule.seed).shuffle(mixed)
    whole = len(mixed) // spec.schedule.micro_batch * spec.schedule.micro_batch
    return mixed[: whole or len(mixed)]


def length(row: Row) -> int:
    """Tokens that pass through the model for a row."""
    return sum(len(row["prompt_ids"]) + len(row[key]) for key in row if key.endswith("_ids") and key != "prompt_ids")


def encode_all(spec: TrainSpec, source: Any, chat: ChatFormat, report: Any) -> dict[str, list[Row]]:
    """Rows to train and to evaluate on. UserError when the data does not fit, or nothing of it does in its length."""
    check(spec, [*source.train, *source.heldout])
    train = encode(source.train, chat, spec)
    rows = ready(train.rows, spec)
    if not rows:
        raise UserError("train.all_masked", length=spec.schedule.max_length)
    if spec.loss == "kto" and len(rows) < 2:
        raise UserError("preference.one_label")
    heldout = encode(source.heldout[: spec.watch.examples], chat, spec).rows
    report.write("facts", rows=len(rows), heldout=len(heldout), tokens=sum(map(length, rows)))
    for reason, count in sorted(train.left_out.items()):
        report.note(f"preference.left_out.{reason}", count=count)
    return {"train": rows, "heldout": heldout}


def identity(spec: TrainSpec, start: Start | None) -> dict[str, Any]:
    """What else must be the same for a checkpoint to go on; nothing for a plain run, whose checkpoints are older."""
    same: dict[str, Any] = {"start": start.sha256} if start else {}
    if spec.objective != "sft":
        same |= {"objective": spec.objective, **{f"preference.{k}": v for k, v in asdict(spec.preference).items()}}
    return same


def record(workspace: Workspace, spec: TrainSpec, start: Start | None) -> dict[str, Any]:
    """For run.json: the adapter that the run went on from, and which votes it used."""
    told: dict[str, Any] = {"objective": spec.objective}
    if start is not None:
        told["start"] = {"adapter": spec.start, "sha256": start.sha256, "name": start.name}
    if spec.data.kind == "preferences":
        made = preferences.read(workspace, spec.data.id)
        told["preferences"] = {"file": made.name, **made.record}
    return told
