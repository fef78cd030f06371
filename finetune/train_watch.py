"""What a run tells while it trains, and how it listens for a stop.

Covers: metrics.jsonl and samples.jsonl, phases, stop requests that all ranks agree on, ending a run that goes wrong. Does
not cover: reading those files (progress.py) or what goes wrong means (divergence.py).
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from assets.files import write_json
from finetune import train_ranks as ranks
from finetune.divergence import Losses, Trouble
from finetune.train_back import GoneWrong
from finetune.train_resume import ORIGIN
from finetune.train_samples import Samples
from finetune.train_save import mark_complete, rotate


class Report:
    """Appends events to a job's files; only the main rank writes."""

    def __init__(self, folder: Path, main: bool) -> None:
        self._folder = folder
        self._main = main

    def write(self, event: str, **values: Any) -> None:
        self._append("metrics.jsonl", {"event": event, "time": time.time(), **values})

    def phase(self, name: str) -> None:
        self.write("phase", phase=name)

    def note(self, key: str, **values: Any) -> None:
        self.write("note", key=key, values=values)

    def sample(self, **values: Any) -> None:
        self._append("samples.jsonl", {"time": time.time(), **values})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        if not self._main:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean, ensure_ascii=False) + "\n")


def memory() -> dict[str, int]:
    """Bytes this process holds on the host and, where there is one, at most so far on its GPU."""
    values = {"host_memory": psutil.Process().memory_info().rss}
    if torch.cuda.is_available():
        values["gpu_memory"] = torch.cuda.max_memory_reserved()
    return values


def peaks() -> dict[str, int]:
    """For the record: the most bytes this rank held on its GPU, and its share of host memory now (pages that several
    ranks map are divided among them)."""
    values = memory()
    if torch.cuda.is_available():
        values["gpu_allocated"] = torch.cuda.max_memory_allocated()
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        values["host_share"] = next(
            int(x.split()[1]) * 1024 for x in rollup.read_text().splitlines() if x.startswith("Pss:")
        )
    return values


def rewards(logs: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """What DPO and KTO tell beside the loss: how far better and worse answers have moved from the reference (in nats,
    times beta), the gap between them, and the share of pairs on the right side of it."""
    names = {"chosen": "reward_chosen", "rejected": "reward_rejected", "margins": "margin", "accuracies": "accuracy"}
    found = {ours: logs.get(f"{prefix}rewards/{theirs}") for theirs, ours in names.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes down steps and evaluations, has the sample prompts answered, and stops the run when asked. ``spare`` is the
    step of a checkpoint that stays."""

    def __init__(
        self,
        folder: Path,
        report: Report,
        samples: Samples,
        keep: int,
        origin: dict[str, Any],
        scaled: bool = False,
    ) -> None:
        self._folder = folder
        self._origin = origin
        self._report = report
        self._samples = samples
        self._keep = keep
        self._losses = Losses(scaled)
        self._began = self._tokens = 0.0
        self.stopped = False
        self.spare: int | None = None
        self.best: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._samples.begin(model)
        self._report.write("facts", total_steps=state.max_steps, eval_every=args.eval_steps)
        self._report.phase("train")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds = time.monotonic() - self._began
        if self._asked_to_stop():
            self.stopped = control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def _asked_to_stop(self) -> bool:
        """One rank looks, all ranks hear the same: a signal to each would leave some of them in a collective."""
        return ranks.agreed((self._folder / "stop").exists())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        tokens = float(logs.get("num_tokens") or 0.0)
        self._report.write(
            "step",
            step=state.global_step,
            epoch=state.epoch,
            loss=loss,
            learning_rate=logs.get("learning_rate"),
            grad_norm=norm,
            seconds=self._seconds,
            tokens_per_second=max(0.0, tokens - self._tokens) / self._seconds,
            **rewards(logs),
            **memory(),
        )
        self._tokens = tokens
        self._moved = self._moved or bool(logs.get("learning_rate"))
        self._end_if(self._losses.look(state.global_step, loss, norm))

    def _end_if(self, trouble: Trouble | None) -> None:
        """What rank 0 sees counts: all ranks leave the loop at the same step or none."""
        trouble = ranks.agreed(trouble)
        if trouble is not None:
            raise GoneWrong(trouble)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any], model: Any = None, **kwargs: Any
    ) -> None:
        loss = float(metrics["eval_loss"])
        began = time.monotonic()
        self._evaluating = False
        self._samples.answer(model, args, state.global_step)
        seconds = float(metrics["eval_runtime"]) + time.monotonic() - began
        self._report.write("eval", step=state.global_step, loss=loss, seconds=seconds, **rewards(metrics, "eval_"))
        self._end_if(self._losses.evaluated(state.global_step, loss))
        self.best.setdefault("first", loss)
        self.best["last"] = loss
        self._report.phase("train")
        if 0 < state.global_step < state.max_steps and self._asked_to_stop():  # at 0 there is nothing to save
            self.stopped = control.should_training_stop = control.should_save = True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._evaluating:
            self._evaluating = True
            self._report.phase("evaluate")

    @property
    def moved(self) -> bool:
        """Whether any step had a learning rate above zero; warm-up begins at zero."""
        return self._moved

    _evaluating = _moved = False
    _seconds = 1.0

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark a checkpoint whole once every rank has written its part; only then may older ones go."""
        ranks.wait()
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(checkpoint / ORIGIN, self._origin)
            mark_complete(checkpoint)
            keep = 10**9 if self._losses.suspicious else self._keep
            self._report.write("facts", checkpoint_bytes=rotate(checkpoint.parent, keep, self.spare))


def watch_parents() -> None:
    """End with the supervisor and with the launcher: a rank that nobody would reap must not hold a GPU."""
    import threading

    parents = {os.getppid(), int(os.environ["NARANHI_SUPERVISOR"])}
    watched = [psutil.Process(pid) for pid in parents]

    def look() -> None:
        while all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in watched):
            time.sleep(1)
        os._exit(70)

    threading.Thread(target=look, daemon=True).start()
