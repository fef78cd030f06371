"""The answers of a study, made before anyone rates: which there must be, and the file that holds them.

Covers: items.jsonl (one line per answer, a torn last line is no line), what is missing, the pool of same-model pairs,
what an owner should know before starting. Does not cover: asking an engine (study_make.py), serving (study_serve.py).
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from assets.files import append_line, end_line
from compare.csv_store import to_json
from compare.rating import now
from compare.study import Study

WHOLE = ("stop", "length")


class Task(NamedTuple):
    """An answer to make. ``sample`` 1 is a second, differently drawn answer of the same model."""

    prompt_id: str
    arm: str
    sample: int

    def seed(self, study: Study) -> int:
        """The same for every arm of a prompt, so that answers differ by their weights and not by luck."""
        return random.Random(f"{study.seed}\0{self.prompt_id}\0{self.sample}").getrandbits(31)


@dataclass(frozen=True)
class Answer:
    """One whole answer. ``reason`` is "stop" or "length"; ``named`` are the names by which it gives a model away."""

    prompt_id: str
    arm: str
    text: str
    sample: int = 0
    reason: str = "stop"
    seed: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    created_at: str = ""

    @property
    def task(self) -> Task:
        return Task(self.prompt_id, self.arm, self.sample)


@dataclass(frozen=True)
class Item:
    """Two answers to put side by side: arms ``a`` and ``b`` (equal ones for a same-model pair) on one prompt."""

    prompt_id: str
    a: str
    b: str

    @classmethod
    def of(cls, item_id: str) -> Item:
        """The item of an id. ValueError for what is none."""
        prompt_id, colon, pair = item_id.rpartition(":")
        a, dash, b = pair.partition("-")
        if not (colon and dash and prompt_id and a and b):
            raise ValueError(item_id)
        return cls(prompt_id, a, b)

    @property
    def id(self) -> str:
        return f"{self.prompt_id}:{self.a}-{self.b}"

    @property
    def same(self) -> bool:
        return self.a == self.b

    @property
    def tasks(self) -> tuple[Task, Task]:
        return Task(self.prompt_id, self.a, 0), Task(self.prompt_id, self.b, 1 if self.same else 0)


@dataclass(frozen=True)
class ItemsReport:
    """What there is of ``total`` answers. ``named`` give a model away (no pair with one is served), ``cut`` ended at the
    length limit, ``equal`` pairs of different models have the same text on both sides."""

    total: int
    done: int
    named: int
    cut: int
    equal: int


Answers = Mapping[Task, Answer]


class Items:
    """studies/<id>/items.jsonl. One process appends at a time (study_make.py sees to it); any number reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._seen: tuple[tuple[int, ...], Answers] = ((), {})

    def read(self) -> Answers:
        """Every answer by its task, the first of each; read again only when the file has changed."""
        with self._guard:
            try:
                stat = self.path.stat()
            except FileNotFoundError:
                return {}
            sign = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._seen[0] != sign:
                self._seen = (sign, _read(self.path, stat.st_size))
            return self._seen[1]

    def append(self, answer: Answer) -> None:
        """Add an answer; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        values = {f.name: getattr(answer, f.name) for f in fields(Answer)}
        append_line(self.path, to_json(values | {"created_at": answer.created_at or now()}))

    def mend(self) -> None:
        """Before the first append: close a line that a killed writer left torn."""
        end_line(self.path)


def _read(path: Path, size: int) -> Answers:
    with path.open("rb") as file:
        return parse_items(file.read(size))


def parse_items(data: bytes) -> Answers:
    """The answers in the whole lines of ``data``; a line that a killed writer left torn is none."""
    known = {f.name for f in fields(Answer)}
    found: dict[Task, Answer] = {}
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        try:
            row = json.loads(line)
            values = {k: v for k, v in row.items() if k in known} | {"named": tuple(row.get("named", ()))}
            answer = Answer(**values)
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if all(isinstance(value, str) for value in (answer.prompt_id, answer.arm, answer.text)):
            found.setdefault(answer.task, answer)
    return found


def same_pool(study: Study) -> tuple[Item, ...]:
    """The same-model pairs of a study, as many for each arm as can be; away from the overlap prompts while they last.

    Three times what a list holds: a prompt that is on many lists this way would get too few other votes.
    """
    per_list = count_same(study)
    if not per_list:
        return ()
    rest = [prompt.id for prompt in study.prompts if prompt.id not in overlap_ids(study)]
    shared = list(overlap_ids(study))
    random.Random(f"{study.seed}\0same").shuffle(rest)
    wanted = max(3 * per_list, round(study.same_share * len(study.prompts)))
    keys = [arm.key for arm in study.arms]
    chosen = (rest + shared)[:wanted]
    return tuple(Item(prompt, keys[n % len(keys)], keys[n % len(keys)]) for n, prompt in enumerate(chosen))


def count_same(study: Study) -> int:
    """Same-model pairs on one rater's list: the share, rounded, and at least one when there is a share."""
    if not study.same_share:
        return 0
    return min(max(1, round(study.same_share * study.list_length)), len(study.prompts), study.list_length - 1)


def overlap_ids(study: Study) -> tuple[str, ...]:
    """The prompts that everyone sees."""
    ids = list(study.prompt_ids)
    random.Random(f"{study.seed}\0overlap").shuffle(ids)
    return tuple(ids[: study.overlap])


def needed(study: Study) -> tuple[Task, ...]:
    """Every answer the study needs, prompt by prompt."""
    second = {item.tasks[1] for item in same_pool(study)}
    return tuple(
        task
        for prompt in study.prompts
        for sample in (0, 1)
        for arm in study.arms
        if not (task := Task(prompt.id, arm.key, sample)).sample or task in second
    )


def missing(study: Study, answers: Answers) -> tuple[Task, ...]:
    return tuple(task for task in needed(study) if task not in answers)


def report(study: Study, answers: Answers) -> ItemsReport:
    there = [answers[task] for task in needed(study) if task in answers]
    equal = sum(
        1
        for prompt in study.prompt_ids
        for a, b in study.pairs
        if (one := answers.get(Task(prompt, a, 0)))
        and (two := answers.get(Task(prompt, b, 0)))
        and one.text == two.text
    )
    return ItemsReport(
        total=len(needed(study)),
        done=len(there),
        named=sum(bool(answer.named) for answer in there),
        cut=sum(answer.reason == "length" for answer in there),
        equal=equal,
    )


def servable(item: Item, answers: Answers) -> bool:
    """Whether both answers are there and neither gives its model away."""
    return all(task in answers and not answers[task].named for task in item.tasks)
