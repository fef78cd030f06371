"""Preference files: what the comparison writes from votes and training reads.

Covers: workspace/preferences/<name>.jsonl in TRL's conversational form ({"prompt", "chosen", "rejected"} or {"prompt",
"completion", "label"}) and <name>.json beside it, which says where the rows come from. Does not cover: choosing the rows
(compare/pairs.py) or training on them (finetune).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from assets.errors import UserError
from assets.files import Workspace, read_json, write_atomic, write_json

VERSION = 1
Objective = Literal["dpo", "kto"]


@dataclass(frozen=True)
class PreferenceFile:
    """One file. ``record`` is the whole side file; the other fields are taken from it.

    ``adapter`` is the compared adapter's folder (the run to go on from), ``base`` the model under it; both may be "".
    """

    name: str
    path: Path
    objective: Objective
    rows: int
    sha256: str
    created: float = 0.0
    base: str = ""
    adapter: str = ""
    system: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


def folder(workspace: Workspace) -> Path:
    return workspace.root / "preferences"


def store(
    workspace: Workspace, name: str, objective: Objective, rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]
) -> PreferenceFile:
    """Write both files and read them back; a name that is taken gets a number, and rows that stand in a file already
    (with the same votes behind them) give that one. ``about`` becomes the side file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    tidy = re.sub(r"[^\w가-힣.-]+", "-", name).strip("-.")[:60] or "votes"
    place = folder(workspace)
    digest = hashlib.sha256(text.encode()).hexdigest()
    about = json.loads(json.dumps(about, ensure_ascii=False))
    for made in listed(workspace):
        same = all(made.record.get(key) == about.get(key) for key in ("votes", "filter", "adapter"))
        if same and (made.sha256, made.objective) == (digest, objective):
            return made
    free = next(n for n in _names(tidy) if not (place / f"{n}.jsonl").exists())
    write_atomic(place / f"{free}.jsonl", text)
    record = {
        "version": VERSION,
        "objective": objective,
        "rows": text.count("\n"),
        "sha256": digest,
        "created": time.time(),
        **about,
    }
    write_json(place / f"{free}.json", record)
    return read(workspace, free)


def _names(tidy: str) -> Iterable[str]:
    yield tidy
    number = 2
    while True:
        yield f"{tidy}-{number}"
        number += 1


def file(workspace: Workspace, name: str) -> Path:
    """The rows of a file by name. UserError("preference.unknown") when it is not there or its name leads outside."""
    place = folder(workspace).resolve()
    path = (place / f"{name}.jsonl").resolve()
    if path.parent != place or not path.is_file():
        raise UserError("preference.unknown", name=name)
    return path


def read(workspace: Workspace, name: str) -> PreferenceFile:
    """A file by name. UserError: not there, a side file that is missing, broken or newer, rows that were changed."""
    path = file(workspace, name)
    try:
        record = read_json(path.with_suffix(".json"))
        known = int(record["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("preference.no_record", name=name) from error
    if known > VERSION:
        raise UserError("preference.newer", name=name, version=known)
    if hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
        raise UserError("preference.changed", name=name)
    texts = {key: str(record.get(key) or "") for key in ("base", "adapter", "system")}
    return PreferenceFile(
        name, path, record["objective"], record["rows"], record["sha256"], record["created"], record=record, **texts
    )


def listed(workspace: Workspace) -> tuple[PreferenceFile, ...]:
    """Every file that can be read, newest first."""
    found = []
    for path in folder(workspace).glob("*.jsonl"):
        try:
            found.append(read(workspace, path.stem))
        except UserError:
            continue  # it is named when somebody asks for it
    return tuple(sorted(found, key=lambda made: made.created, reverse=True))
