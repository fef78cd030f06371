"""Making the answers of a study with the pair that is loaded.

Covers: asking for what is missing prompt by prompt, keeping whole answers only, stopping and going on, the time left.
Does not cover: loading (desk.py), which answers there must be (study_items.py).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock, Timeout

from assets.errors import UserError
from compare.desk import KEYS, Candidate, Desk, Pair, Ticket, Waiting
from compare.engine import Delta, Done
from compare.names import names_leaked
from compare.provenance import provenance
from compare.study import Study
from compare.study_items import WHOLE, Answer, Answers, Items, Task, missing, needed
from compare.study_store import Studies

# So many prompts in a row without an answer mean that something is wrong with the models and not with a prompt.
FAILURES = 3


@dataclass(frozen=True)
class Making:
    """How far the answers are. ``seconds_left`` is None until a first prompt was measured; ``place`` people come first
    in the line. ``ended``: "" while it runs, "done", "stopped", or "partly" when other models (``left``: their arm
    keys) or prompts that ``failed`` remain; ``error`` is what the last of those ended with."""

    done: int
    total: int
    seconds_left: float | None = None
    place: int = 0
    prompt_id: str = ""
    ended: str = ""
    left: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    error: UserError | None = None


def generate(studies: Studies, study_id: str, desk: Desk, pair: Pair, ticket: Ticket) -> Iterator[Making]:
    """Ask the loaded pair for every missing answer of its arms. ``desk.cancel(ticket)`` stops it; calling again goes on.

    UserErrors: "study.generating_already" while another page or process does it, "study.arms_not_loaded" for a pair
    that is not of this study, "study.has_answers_only" for a copy without models or one that is open already, and those
    of the engine once FAILURES prompts in a row got no answer.
    """
    study = studies.get(study_id)
    if study.packed or study.state not in ("draft", "generating"):
        raise UserError("study.has_answers_only")
    arms = _arms(study, pair)
    with _alone(studies.folder(study_id) / "making"):
        items = studies.items(study_id)
        items.mend()
        studies.set_state(study_id, "generating")
        yield from _Run(study, items, desk, pair, ticket, arms).events()


def next_candidates(study: Study, answers: Answers) -> tuple[Candidate, Candidate] | None:
    """What to load next: two arms with answers missing, or the last such arm beside another; None when all are there."""
    lacking = {task.arm for task in missing(study, answers)}
    if not lacking:
        return None
    order = sorted(study.arms, key=lambda arm: arm.key not in lacking)[:2]
    first, second = (arm for arm in study.arms if arm in order)
    return first.candidate(), second.candidate()


def forecast(study: Study, answers: Answers, seconds_per_prompt: float | None = None) -> float | None:
    """Seconds for what is missing, two arms at a time; measured on the answers there are unless the pace is given."""
    pace = seconds_per_prompt if seconds_per_prompt is not None else _pace(answers)
    if pace is None:
        return None
    rounds = -(-len(study.arms) // 2)
    share = len(missing(study, answers)) / max(1, len(needed(study)))
    return pace * rounds * len({(task.prompt_id, task.sample) for task in needed(study)}) * share


def _pace(answers: Answers) -> float | None:
    seconds = [float(a.timing["seconds"]) for a in answers.values() if "seconds" in a.timing]
    return median(seconds) if seconds else None


def _arms(study: Study, pair: Pair) -> dict[str, str]:
    """Engine key -> arm key of those candidates that the study compares."""
    keys = {arm.model: arm.key for arm in study.arms}
    found = {k: keys[c.model] for k, c in zip(KEYS, pair.candidates, strict=True) if c.model in keys}
    if len(set(found.values())) < len(found) or not found:
        raise UserError("study.arms_not_loaded")
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A page's generator moves from thread to thread, so the lock must not belong to one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(f"{path}.lock", timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        raise UserError("study.generating_already") from error
    try:
        yield
    finally:
        held.release()


class _Run:
    """One pass over what is missing."""

    def __init__(
        self, study: Study, items: Items, desk: Desk, pair: Pair, ticket: Ticket, arms: Mapping[str, str]
    ) -> None:
        self.study, self.items, self.desk, self.pair, self.ticket, self.arms = study, items, desk, pair, ticket, arms
        self.total = len(needed(study))
        self.paces: list[float] = []
        self.failed: list[str] = []
        self.error: UserError | None = None

    def events(self) -> Iterator[Making]:
        mine = [task for task in missing(self.study, self.items.read()) if task.arm in self.arms.values()]
        if not self.pair.together:  # one model after the other, so that they change places once and not at every prompt
            mine.sort(key=lambda task: task.arm)
        apart = not self.pair.together
        groups = [(k, list(tasks)) for k, tasks in groupby(mine, lambda t: (t.prompt_id, t.sample, apart and t.arm))]
        in_a_row = 0
        for place, ((prompt_id, *_), tasks) in enumerate(groups):
            yield self._state(len(groups) - place, prompt_id)
            kept = yield from self._ask(tasks, len(groups) - place)
            if self.ticket.cancelled:
                yield self._state(len(groups) - place, ended="stopped")
                return
            in_a_row = 0 if kept else in_a_row + 1
            if not kept:
                self.failed.append(prompt_id)
            if in_a_row == FAILURES:
                raise self.error or UserError("study.no_answer")
        left = tuple(dict.fromkeys(task.arm for task in missing(self.study, self.items.read())))
        yield self._state(0, ended="partly" if left else "done", left=left)

    def _ask(self, tasks: list[Task], groups_left: int) -> Generator[Making, None, bool]:
        """Generator that returns whether every answer came."""
        texts: dict[str, list[str]] = {k: [] for k, arm in self.arms.items() if any(t.arm == arm for t in tasks)}
        prompt = self.study.prompt(tasks[0].prompt_id)
        sampling = replace(self.study.sampling, seed=tasks[0].seed(self.study))
        kept, began = 0, time.monotonic()
        try:
            events = self.desk.answers(
                self.pair, self.ticket, dict.fromkeys(texts, prompt.messages), self.study.system or None, sampling
            )
            for event in events:
                if isinstance(event, Waiting):
                    yield self._state(groups_left, prompt.id, place=event.place)
                    began = time.monotonic()
                elif isinstance(event, Delta):
                    texts[event.arm].append(event.text)
                elif event.reason in WHOLE:
                    self._keep(event, "".join(texts[event.arm]), tasks[0], sampling.seed, began)
                    kept += 1
                elif event.error:
                    self.error = UserError(event.error)
        except UserError as error:
            if error.key in ("compare.pair_changed", "engine.not_loaded"):
                raise
            self.error = error
        if kept:
            self.paces.append(time.monotonic() - began)
        return kept == len(texts)

    def _keep(self, done: Done, text: str, task: Task, seed: int, began: float) -> None:
        arm = self.arms[done.arm]
        record = provenance(self.pair)
        side = record.pop("model_a" if done.arm == KEYS[0] else "model_b")
        record = {key: value for key, value in record.items() if key not in ("model_a", "model_b")}
        timing: dict[str, Any] = {
            "reason": done.reason,
            "tokens": done.tokens,
            "seconds_to_first": round(done.seconds_to_first, 3),
            "tokens_per_second": round(done.tokens_per_second, 2),
            "seconds": round(time.monotonic() - began, 3),
        }
        sampling = {name: value for name, value in asdict(self.study.sampling).items() if name != "seed"}
        named = names_leaked(text, self.study.arms)
        self.items.append(
            Answer(
                task.prompt_id,
                arm,
                text,
                task.sample,
                done.reason,
                seed,
                sampling,
                {"arm": side} | record,
                timing,
                named,
            )
        )

    def _state(
        self, groups_left: int, prompt_id: str = "", place: int = 0, ended: str = "", left: tuple[str, ...] = ()
    ) -> Making:
        done = self.total - len(missing(self.study, self.items.read()))
        pace = median(self.paces) if self.paces else None
        seconds = None if pace is None else pace * groups_left
        return Making(done, self.total, seconds, place, prompt_id, ended, left, tuple(self.failed), self.error)
