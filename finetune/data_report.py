"""Numbers about converted data: what was kept, what was dropped and why, how long it is, and its fingerprint.

Does not cover: counts in tokens, which need a model's tokenizer (assets.chat).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from finetune.data_table import Converted, Example

_EDGES = (0, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800)


@dataclass(frozen=True)
class Reason:
    """Why rows were dropped: how many, and the first of them (from 1)."""

    key: str
    count: int
    first: int


@dataclass(frozen=True)
class Bin:
    """Examples of ``low`` to under ``high`` characters; ``high`` is None for the last, open one."""

    low: int
    high: int | None
    count: int


@dataclass(frozen=True)
class Report:
    """``turns``: answers in a conversation -> conversations. ``characters``: all contents together."""

    kept: int
    dropped: int
    reasons: tuple[Reason, ...]
    turns: dict[int, int]
    lengths: tuple[Bin, ...]
    characters: int
    longest: int


def describe(converted: Converted) -> Report:
    counts = Counter(drop.key for drop in converted.dropped)
    first = {drop.key: drop.row for drop in reversed(converted.dropped)}
    lengths = [length(example) for example in converted.examples]
    turns = Counter(_answers(example) for example in converted.examples if example.messages)
    return Report(
        kept=len(converted.examples),
        dropped=len(converted.dropped),
        reasons=tuple(Reason(key, count, first[key]) for key, count in counts.most_common()),
        turns=dict(sorted(turns.items())),
        lengths=_histogram(lengths),
        characters=sum(lengths),
        longest=max(lengths, default=0),
    )


def length(example: Example) -> int:
    """Characters of all contents; of a preference pair the prompt and the longer answer."""
    said, chosen, rejected = (
        sum(len(message["content"]) for message in part)
        for part in (example.messages, example.chosen, example.rejected)
    )
    return len(example.text) + said + max(chosen, rejected)


def _answers(example: Example) -> int:
    return sum(message["role"] == "assistant" for message in (*example.messages, *example.chosen))


def _histogram(lengths: list[int]) -> tuple[Bin, ...]:
    counts = Counter(max(edge for edge in _EDGES if edge <= size) for size in lengths)
    if not counts:
        return ()
    used = [edge for edge in _EDGES if min(counts) <= edge <= max(counts)]
    above = dict(zip(_EDGES, _EDGES[1:], strict=False))
    return tuple(Bin(edge, above.get(edge), counts[edge]) for edge in used)


def data_sha256(examples: Iterable[Example]) -> str:
    """A fingerprint of what is trained on, in order; the same whichever file format the rows came in. 64 hex digits."""
    digest = hashlib.sha256()
    for example in examples:
        parts = [
            [[m["role"], m["content"]] for m in part] for part in (example.messages, example.chosen, example.rejected)
        ]
        digest.update(json.dumps([*parts, example.text], ensure_ascii=False).encode("utf-8") + b"\n")
    return digest.hexdigest()
