"""Go back to the last good checkpoint of a run that has gone wrong.

Covers: which checkpoint is good, removing the bad ones, offering the good one's adapter, what is told. Does not cover:
noticing (divergence.py) or going on from there (train_resume.py), which a person asks for.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import write_json
from finetune import train_ranks as ranks
from finetune import train_whole
from finetune.divergence import Trouble
from finetune.train_save import WEIGHTS, checkpoints, is_complete, verify_adapter

NOT_OF_AN_ADAPTER = ("*.pt", "*.pth", "*.bin", "trainer_state.json", "complete.json", "origin.json")


class GoneWrong(Exception):
    """Ends the training loop of every rank at the same step."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"{trouble.kind} at step {trouble.step}")
        self.trouble = trouble


def go_back(folder: Path, trouble: Trouble, rate: float, report: Any) -> dict[str, Any]:
    """Key and values of the sentence that says to where; error.json holds them too, for whoever supervises the run. ``rate`` is
    the learning rate to go on with (rates.calmer).

    Collective. UserError on every rank when there is no good checkpoint.
    """
    back = ranks.agreed(_offer_last_good(folder, trouble) if ranks.rank() == 0 else None)
    if back is None:
        raise trouble.error(rate)
    values = {"step": trouble.step, "back": back, "rate": rate}
    told = {"key": f"train.back.{trouble.kind}", "values": values}
    report.note(f"train.back.{trouble.kind}", **values)
    if ranks.rank() == 0:
        write_json(folder / "error.json", {**told, "time": time.time()})
    return told


def _offer_last_good(folder: Path, trouble: Trouble) -> int | None:
    """The step of the newest good checkpoint, whose weights become the run's, or None. Newer ones are removed."""
    for checkpoint in checkpoints(folder / "checkpoints"):
        step = int(checkpoint.name.rsplit("-", 1)[-1])
        if step + 1 < trouble.since and is_complete(checkpoint) and _usable(checkpoint):
            if (checkpoint / WEIGHTS).exists():
                _offer(checkpoint, folder / "adapter")
            else:
                train_whole.finish(checkpoint, folder / "model")
            return step
        shutil.rmtree(checkpoint)
    return None


def _usable(checkpoint: Path) -> bool:
    try:
        verify_adapter(checkpoint) if (checkpoint / WEIGHTS).exists() else train_whole.verify(checkpoint)
    except UserError:
        return False
    return True


def _offer(checkpoint: Path, adapter: Path) -> None:
    temporary = adapter.with_name(f".{adapter.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns(*NOT_OF_AN_ADAPTER))
    shutil.rmtree(adapter, ignore_errors=True)
    temporary.rename(adapter)
