"""What a run tells while it trains, and how it listens for a stop.

Covers: metrics.jsonl and samples.jsonl, phases, stop requests that all ranks agree on, ending a run whose loss is no
number. Does not cover: reading those files (progress.py).
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

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import write_json
from finetune import train_ranks as ranks
from finetune.train_resume import ORIGIN
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
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        values["host_share"] = next(
            int(x.split()[1]) * 1024 for x in rollup.read_text().splitlines() if x.startswith("Pss:")
        )
    return values


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes down steps and evaluations, answers the sample prompts, and stops the run when asked."""

    def __init__(
        self,
        folder: Path,
        report: Report,
        prompts: list[list[dict[str, str]]],
        chat: ChatFormat,
        options: Any,
        origin: dict[str, Any],
    ) -> None:
        self._folder = folder
        self._origin = origin
        self._report = report
        self._prompts = prompts
        self._chat = chat
        self._options = options
        self._began = self._tokens = 0.0
        self.stopped = False
        self.best: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
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
            **memory(),
        )
        self._tokens = tokens
        self._moved = self._moved or bool(logs.get("learning_rate"))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise UserError("train.not_a_number", step=state.global_step)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any], model: Any = None, **kwargs: Any
    ) -> None:
        loss = float(metrics["eval_loss"])
        began = time.monotonic()
        self._samples(model, state.global_step)
        seconds = float(metrics["eval_runtime"]) + time.monotonic() - began
        self._report.write("eval", step=state.global_step, loss=loss, seconds=seconds)
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

    @torch.no_grad()
    def _samples(self, model: Any, step: int) -> None:
        """The fixed prompts, answered greedily by one rank; not where the weights are spread over ranks."""
        self._evaluating = False
        if ranks.sharded() or ranks.rank():
            return
        model.eval()
        for prompt in self._prompts:
            ids = torch.tensor(
                [self._chat.encode_prompt(prompt, self._options.data.system or None)], device=model.device
            )
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._options.watch.sample_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=list(self._chat.stop_ids),
                pad_token_id=self._chat.stop_ids[0],
            )
            text = self._chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            self._report.sample(step=step, prompt=prompt[-1]["content"], answer=text.strip())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark a checkpoint whole once every rank has written its part; only then may older ones go."""
        ranks.wait()
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(checkpoint / ORIGIN, self._origin)
            mark_complete(checkpoint)
            self._report.write("facts", checkpoint_bytes=rotate(checkpoint.parent, self._options.watch.keep))


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
