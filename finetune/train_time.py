"""A trainer that keeps to its time: fewer steps when they would not fit, and an end that evaluates and saves.

Covers: measuring steps, evaluations and saves, shortening the run and the course of its learning rate, what is told. Does
not cover: the rule (budget.py). All ranks do what rank 0's clock says.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from assets.files import read_json
from finetune import train_ranks as ranks
from finetune.budget import Clock, Look, deadline
from finetune.spec import BudgetSpec, TrainSpec

DEADLINE = "NARANHI_DEADLINE"


def deadline_of(spec: TrainSpec) -> float | None:
    """What the supervisor counts from (a run may be at its second try), or from now for a run by hand."""
    if DEADLINE in os.environ:
        return float(os.environ[DEADLINE])
    now = time.time()
    return deadline(spec.budget.minutes, spec.budget.until, now, now)


def as_before(spec: TrainSpec, checkpoint: Path | None) -> TrainSpec:
    """A run with a time limit goes on to the number of steps that its learning rate's course has been made for."""
    if checkpoint is None or spec.budget == BudgetSpec():
        return spec
    total = int(read_json(checkpoint / "trainer_state.json")["max_steps"])
    return replace(spec, schedule=replace(spec.schedule, steps=total))


class InTime(TrainerCallback):  # type: ignore[misc]
    """Comes after the callback that writes steps down, so that an evaluation's sample answers are in its seconds.

    ``ended`` is what came of it: asked and done steps, and whether it ended in the middle; None for a run that did all.
    """

    def __init__(self, until: float, spec: TrainSpec, watch: Any, report: Any) -> None:
        self._until = until
        self._spec = spec
        self._watch = watch
        self._report = report
        self._asked = self._total = 0
        self._cut = False
        self._mark = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What others measured before the first step, they measure again after the last one."""
        self._asked = self._total = state.max_steps
        every, spread = int(state.eval_steps or args.eval_steps), self._spec.watch.every == 0
        before = time.monotonic() - self._mark
        self._clock = Clock(self._until, state.max_steps, every, spread, before)
        self._mark = self._began = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        self._mark = time.monotonic()
        if self._watch.stopped or state.global_step >= state.max_steps:
            return
        seconds = self._mark - self._began
        look = ranks.agreed(self._clock.step(state.global_step, seconds, time.time(), bool(control.should_save)))
        if look.end and self._watch.moved:  # an adapter that never moved is no result
            self._cut = True
            control.should_training_stop = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        elif not look.end and look.total != state.max_steps:
            self._shorten(state, look, lr_scheduler)

    def _shorten(self, state: Any, look: Look, lr_scheduler: Any) -> None:
        state.max_steps = self._total = look.total
        state.eval_steps = state.save_steps = look.every
        warm = max(1, round(self._spec.schedule.warmup * look.total)) if self._spec.schedule.warmup else 0
        shorten_course(lr_scheduler, look.total, warm)
        self._report.write("facts", total_steps=look.total, eval_every=look.every, asked_steps=self._asked)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        self._clock.evaluated(now - self._mark)
        self._mark = now

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.saved(time.monotonic() - self._mark)

    def ended(self, step: int) -> dict[str, Any] | None:
        """Also writes the note. None when the run did all it was asked for, or ended for another reason."""
        if self._watch.stopped or step >= self._asked or not (self._cut or step >= self._total):
            return None
        told = {"step": step, "asked": self._asked}
        self._report.note("train.time.cut" if self._cut else "train.time.shortened", **told)
        return {**told, "cut": self._cut, "deadline": self._until}


def shorten_course(scheduler: Any, total: int, warm: int) -> None:
    """Let the learning rate reach the end of its course at step ``total``. A constant one has none."""
    scheduler = getattr(scheduler, "scheduler", scheduler)
    for place, rule in enumerate(scheduler.lr_lambdas):
        if isinstance(rule, functools.partial) and "num_training_steps" in rule.keywords:
            changed = {"num_training_steps": total, "num_warmup_steps": warm}
            scheduler.lr_lambdas[place] = functools.partial(rule.func, **{**rule.keywords, **changed})
