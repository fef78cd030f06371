"""From the data part of a spec to conversations, split into what is trained and what is held out.

Covers: built-in sets, uploaded files and Hub datasets behind one call, the split. Does not cover: reading files and
recognising shapes (data.py) or tokens (assets/chat.py). Page and training script both come through here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from assets import preferences
from assets.catalog import datasets, read_dialogues
from assets.errors import UserError
from assets.files import Workspace
from finetune import data as reading
from finetune import preference_data
from finetune.data import Dropped, Example, Mapping, Note
from finetune.data_similar import normalised
from finetune.spec import DataSpec

HUB_ROWS = 100_000  # the first rows of a Hub split; more than a run here would see


@dataclass(frozen=True)
class Source:
    """Conversations ready for a template. ``mapping`` is what was recognised or asked for; None for built-in sets."""

    train: list[Example]
    heldout: list[Example]
    sha256: str
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    mapping: Mapping | None = None
    domain: str = "general"


def load(workspace: Workspace, spec: DataSpec) -> Source:
    """All of it, or a UserError that says what is wrong with the data."""
    if spec.kind == "builtin":
        return _builtin(spec)
    table = _table(workspace, spec)
    mapping = Mapping(spec.shape, dict(spec.columns)) if spec.shape else reading.guess(table)
    converted = reading.usable(reading.convert(table, mapping))
    train, heldout = _sides(converted.examples, spec)
    notes = [*table.notes, *converted.notes, *_overlap(train, heldout)]
    return Source(
        train,
        heldout,
        reading.data_sha256(converted.examples),
        converted.dropped,
        notes,
        mapping,
    )


def _sides(examples: list[Example], spec: DataSpec) -> tuple[list[Example], list[Example]]:
    if any(map(preference_data.is_preference, examples)):
        return preference_data.split(examples, spec.heldout, spec.kind == "preferences")
    return split(examples, spec.heldout)


def _overlap(train: list[Example], heldout: list[Example]) -> list[Note]:
    """A note on held-out rows that are trained as well. UserError("train.heldout_is_train") when all of them are."""
    learnt = set(map(_text, train))
    count = sum(_text(example) in learnt for example in heldout)
    if heldout and count == len(heldout):
        raise UserError("train.heldout_is_train", count=count)
    return [Note("train.heldout_overlaps", {"count": count, "total": len(heldout)})] if count else []


def _table(workspace: Workspace, spec: DataSpec) -> reading.Table:
    if spec.kind == "preferences":
        return reading.read_file(preferences.read(workspace, spec.id).path)
    if spec.kind == "hub":
        return reading.read_hub(spec.id, spec.split, spec.revision, limit=HUB_ROWS)
    return reading.read_file(upload_path(workspace, spec.id))


def upload_path(workspace: Workspace, name: str) -> Path:
    """An uploaded file by name, or a file anywhere by its absolute path when the spec is run by hand."""
    path = Path(name)
    if path.is_absolute():
        return path
    inside = (workspace.uploads / name).resolve()
    if workspace.uploads.resolve() not in inside.parents:
        raise UserError("data.outside", name=name)
    return inside


def _builtin(spec: DataSpec) -> Source:
    card = next((d for d in datasets() if d.id == spec.id and d.kind == "builtin"), None)
    if card is None or card.file is None or card.heldout is None:
        raise UserError("data.unknown_builtin", id=spec.id)
    train = [Example(messages=tuple(row["messages"])) for row in read_dialogues(card.file)]
    heldout = [Example(messages=tuple(row["messages"])) for row in read_dialogues(card.heldout)]
    return Source(train, heldout, reading.data_sha256([*train, *heldout]), domain=card.domain)


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """The same rows go to the same side every time, wherever they stand in the file: chosen by hash, not by place."""
    count = round(len(examples) * share)
    if share > 0:
        count = max(0, min(max(count, 1), len(examples) - 1))
    ranked = sorted(range(len(examples)), key=lambda i: _rank(examples[i]))
    held = set(ranked[:count])
    return [e for i, e in enumerate(examples) if i not in held], [examples[i] for i in sorted(held)]


def _rank(example: Example) -> str:
    text = json.dumps([example.messages, example.chosen, example.text], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _text(example: Example) -> str:
    """All that a row says, to find it again on the other side: equal rows were dropped, those that differ in spaces, marks or
    case are as good as equal."""
    said = [example.messages, example.chosen, example.rejected, example.text, example.label]
    return normalised(json.dumps(said, ensure_ascii=False))
