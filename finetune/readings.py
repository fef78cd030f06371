"""Data and tokenizer of a spec, read once and kept while the form is moved about.

Covers: a small cache for plan, preview and start. Does not cover: reading (sources.py) or what is shown (preview.py).
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assets import preferences
from assets.catalog import STARTER
from assets.chat import ChatFormat
from assets.files import Workspace
from assets.hub import locate
from finetune.data import Example
from finetune.sources import Source, load, upload_path
from finetune.spec import DataSpec, ModelSpec, TrainSpec

COUNTED = 1000  # conversations that are tokenised for the counts; beyond that they are scaled up
KEPT = 12  # sources, tokenizers and counts together


@dataclass(frozen=True)
class Counts:
    """Tokens of a sample of the conversations. ``marks`` says per token whether it is learnt; ``factor`` scales up."""

    marks: list[list[bool]]
    factor: float

    @cached_property
    def lengths(self) -> list[int]:
        return [len(marks) for marks in self.marks]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def trained(self, limit: int) -> int:
        """Tokens that are learnt when every conversation ends after ``limit`` tokens."""
        return sum(sum(marks[:limit]) for marks in self.marks)


@dataclass(frozen=True)
class Reading:
    """What one model learns from one source."""

    source: Source
    chat: ChatFormat
    counts: Counts


class Readings:
    """The last few readings. Thread-safe; who asks for what somebody else is reading waits for that."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._turns: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, spec: TrainSpec) -> Reading:
        """UserErrors of reading data and model. A file that changed on disk is read again."""
        data, model = _data_key(self._workspace, spec.data), _model_key(self._workspace, spec.model)
        source: Source = self._once(data, lambda: load(self._workspace, spec.data))
        chat: ChatFormat = self._once(model, lambda: open_chat(self._workspace, spec))
        key = ("counts", data, model, spec.data.system)
        counts: Counts = self._once(key, lambda: count(chat, source.train, spec))
        return Reading(source, chat, counts)

    def ready(self, spec: TrainSpec) -> bool:
        """Whether ``get`` has everything at hand."""
        data, model = _data_key(self._workspace, spec.data), _model_key(self._workspace, spec.model)
        with self._lock:
            return ("counts", data, model, spec.data.system) in self._kept

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            try:
                made = make()
            finally:
                with self._lock:
                    self._turns.pop(key, None)
            with self._lock:
                self._kept[key] = made
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return made


def open_chat(workspace: Workspace, spec: TrainSpec) -> ChatFormat:
    """The model's own template, from its small files alone."""
    files = locate(workspace, spec.model.id, spec.model.revision, weights=False)
    return ChatFormat.from_folder(files.folder, spec.model.template)


def count(chat: ChatFormat, examples: list[Example], spec: TrainSpec) -> Counts:
    """Which tokens are learnt in a sample of ``examples``, uncut."""
    sample = examples[:COUNTED]
    return Counts([tokens(chat, example, spec)[1] for example in sample], len(examples) / max(1, len(sample)))


def tokens(chat: ChatFormat, example: Example, spec: TrainSpec) -> tuple[list[int], list[bool]]:
    """Ids and marks of one example, whole."""
    if example.text:
        ids: list[int] = chat.tokenizer(example.text)["input_ids"]
        return ids, [True] * len(ids)
    said = [*example.messages, *(example.chosen or example.rejected)]
    trained = chat.encode_training(said, spec.data.system or None)
    return trained.ids, trained.trained


def _data_key(workspace: Workspace, data: DataSpec) -> Hashable:
    asked = json.dumps({**asdict(data), "system": ""}, sort_keys=True)
    if data.kind == "preferences":
        return ("data", asked, _stamp(preferences.folder(workspace) / f"{data.id}.jsonl"))
    return ("data", asked, _stamp(upload_path(workspace, data.id)) if data.kind == "file" else None)


def _model_key(workspace: Workspace, model: ModelSpec) -> Hashable:
    """A local folder is looked at again each time; a Hub model stays what it was when it was first asked for."""
    if model.id != STARTER and not os.path.isdir(os.path.expanduser(model.id)):
        return ("chat", model.id, model.revision, model.template)
    folder = locate(workspace, model.id, model.revision, weights=False).folder
    files = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    return ("chat", str(folder), model.template, *(_stamp(folder / name) for name in files))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
