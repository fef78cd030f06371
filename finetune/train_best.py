"""Which evaluation was the best one, when there is no point in going on, and whose weights a run ends with.

Covers: the lowest held-out loss of a run (of all its attempts), its checkpoint that stays, early stopping, going back to
those weights at the end. Does not cover: evaluating, or losses that leave where they were (divergence.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from finetune import train_ranks as ranks
from finetune.progress import read
from finetune.spec import WatchSpec
from finetune.train_resume import load_trained
from finetune.train_save import is_complete


class Best(TrainerCallback):  # type: ignore[misc]
    """Keeps count of evaluations. Does nothing unless the run keeps its best (WatchSpec.keeps_best).

    Comes before ``watch``, which removes old checkpoints but for the one it is told to spare. ``early`` is the step at
    which it ended the run.
    """

    def __init__(self, folder: Path, spec: WatchSpec, watch: Any, report: Any) -> None:
        self._folder = folder
        self._spec = spec
        self._watch = watch
        self._report = report
        self._losses: dict[int, float] = {}
        self.early: int | None = None

    @property
    def step(self) -> int | None:
        """The step of the lowest loss so far, the earliest of equals; None before the first evaluation."""
        return min(self._losses, key=lambda step: (self._losses[step], step)) if self._losses else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What earlier attempts found counts on, as far as the checkpoint that is gone on from."""
        rows = read(self._folder).evals
        known = {int(row["step"]): row["loss"] for row in rows if row["loss"] is not None}
        known = ranks.agreed(known)
        self._losses = {step: loss for step, loss in known.items() if 0 < step <= state.global_step}
        self._spare()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **kwargs: Any) -> None:
        """The loss at step 0 is the base's, whose weights nobody trains for."""
        if not self._spec.keeps_best or not state.global_step:
            return
        self._losses[state.global_step] = ranks.agreed(float(metrics["eval_loss"]))
        self._spare()
        since = sum(step > self.step for step in self._losses) if self.step else 0
        if 0 < self._spec.patience <= since and state.global_step < state.max_steps:
            self.early = state.global_step
            control.should_training_stop = control.should_save = True

    def _spare(self) -> None:
        self._watch.spare = self.step if self._spec.keeps_best else None

    def restore(self, trainer: Any) -> dict[str, Any]:
        """Put the best weights back into the model if it ended with others. All ranks call it.

        For the record: ``step`` whose weights these are, ``last`` step of the run, held-out ``loss`` at ``step`` where it
        was measured, ``best`` and ``early`` as they came.
        """
        last = int(trainer.state.global_step)
        told: dict[str, Any] = {"step": last, "last": last, "best": False, "early": self.early}
        best = self.step if self._spec.keeps_best else None
        checkpoint = self._folder / "checkpoints" / f"checkpoint-{best}"
        if best is not None and best != last and ranks.agreed(is_complete(checkpoint)):
            load_trained(trainer.model, checkpoint)
            told["step"] = best
        told["best"] = best == told["step"]
        if (loss := self._losses.get(told["step"])) is not None:
            told["loss"] = loss
        if self.early is not None:
            self._report.note("train.early", step=self.early, best=told["step"], patience=self._spec.patience)
        elif told["step"] != last:
            self._report.note("train.best", step=told["step"], last=last)
        return told
