"""What the chosen model will learn from the chosen data, shown before anything starts.

Covers: three conversations with their trained tokens marked, counts, lengths, what was dropped and why, prompts that
are too close to the data. Does not cover: torch; the same ChatFormat encodes here and in the training script.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from html import escape
from statistics import median

from assets.catalog import prompts
from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.prompt_sets import BUILTIN, own
from assets.words import Words
from finetune import preference_data, preview_pairs
from finetune.data import Example, similar
from finetune.readings import Reading, tokens
from finetune.sources import Source
from finetune.spec import TrainSpec

SHOWN = 3
BINS = 24


def show(workspace: Workspace, reading: Reading, spec: TrainSpec, words: Words) -> str:
    """The preview as HTML. UserError when nothing would be learnt."""
    check(reading, spec)
    first = reading.source.train[:SHOWN]
    if spec.objective == "sft":
        sub, talks = "train.preview.sub", "".join(_talk(reading.chat, example, spec) for example in first)
    else:
        sub = "train.preview.pairs"
        talks = "".join(preview_pairs.talk(reading.chat, example, spec, words) for example in first)
    told = preview_pairs.origin(workspace, spec, words)
    head = f'<p class="n-sub">{words(sub)}</p>{told}{_numbers(workspace, reading, spec, words)}'
    return f'{head}<div class="n-talks">{talks}</div>'


def check(reading: Reading, spec: TrainSpec) -> None:
    """UserError("train.all_masked") when nothing would be learnt, "preference.…" when the objective wants other data."""
    preference_data.check(spec, [*reading.source.train, *reading.source.heldout])
    if not reading.counts.trained(spec.schedule.max_length):
        raise UserError("train.all_masked", length=spec.schedule.max_length)


def check_heldout(reading: Reading, spec: TrainSpec) -> None:
    """UserError("train.best_needs_heldout") when the best moment is wanted and nothing is there to tell it by."""
    if spec.watch.keeps_best and not reading.source.heldout:
        raise UserError("train.best_needs_heldout")


def _talk(chat: ChatFormat, example: Example, spec: TrainSpec) -> str:
    ids, marks = tokens(chat, example, spec)
    limit = spec.schedule.max_length
    parts = []
    for piece, mark in zip(chat.pieces(ids[:limit]), marks, strict=False):
        text = escape(piece)
        parts.append(f"<mark>{text}</mark>" if mark else f"<s>{text}</s>")
    joined = "".join(parts).replace("</mark><mark>", "").replace("</s><s>", "")
    return f'<div class="n-talk" tabindex="0">{joined}{" …" if len(ids) > limit else ""}</div>'


def _numbers(workspace: Workspace, reading: Reading, spec: TrainSpec, words: Words) -> str:
    source, counts = reading.source, reading.counts
    limit = spec.schedule.max_length
    line = words(
        "train.preview.counts",
        train=f"{len(source.train):,}",
        heldout=f"{len(source.heldout):,}",
        trained=f"{round(counts.trained(limit) * counts.factor):,}",
        tokens=f"{round(counts.tokens * counts.factor):,}",
    )
    lengths = words(
        "train.preview.lengths",
        median=round(median(counts.lengths)),
        longest=max(counts.lengths),
        limit=limit,
        cut=round(sum(n > limit for n in counts.lengths) * counts.factor),
    )
    parts = [f'<p class="n-sub">{line}</p>{_histogram(counts.lengths)}<p class="n-sub">{lengths}</p>']
    parts += [f'<p class="n-sub">{escape(words(n.key, **n.values))}</p>' for n in source.notes]
    parts.append(_dropped(source, words))
    if spec.data.kind != "preferences":  # votes are about those prompts, and none that is held out
        parts.append(_similar(workspace, source, words))
    return "".join(parts)


def _histogram(lengths: list[int]) -> str:
    low = min(lengths)
    width = max(1, -(-(max(lengths) - low + 1) // BINS))
    bins = Counter((n - low) // width for n in lengths)
    top = max(bins.values())
    bars = "".join(
        f'<i style="height:{bins[b] / top * 100:.0f}%" title="{low + b * width}–{low + (b + 1) * width - 1}: {bins[b]}"></i>'
        for b in range(max(bins) + 1)
    )
    return f'<div class="n-hist" aria-hidden="true">{bars}</div>'


def _dropped(source: Source, words: Words) -> str:
    if not source.dropped:
        return ""
    reasons = Counter(d.key for d in source.dropped)
    items = "".join(f"<li>{escape(words(key))}: {n:,}</li>" for key, n in reasons.most_common())
    line = words("train.preview.dropped", count=len(source.dropped))
    return f'<p class="n-sub">{line}</p><ul class="n-sub">{items}</ul>'


def _similar(workspace: Workspace, source: Source, words: Words) -> str:
    known = [asdict(prompt) for domain in BUILTIN for prompt in prompts(domain)]
    known += [asdict(prompt) for prompt in own(workspace)]
    found = sorted({s.prompt for s in similar(source.train, known)})
    if not found:
        return ""
    text = words("train.preview.similar", count=len(found), ids=", ".join(found[:8]))
    return f'<div class="n-note warn">{escape(text)}</div>'
