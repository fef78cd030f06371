"""What a run leaves in its folder: an adapter, or the whole model when all of its weights were trained.

Covers: names, whether it is there, whether the disk has room for it. Does not cover: what is in it (train_save.py,
train_whole.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from assets.errors import UserError
from finetune.spec import TrainSpec

ADAPTER, MODEL = "adapter", "model"
SPARE = 64 * 2**20  # tokenizer, configuration, index
_MARKS = {ADAPTER: "adapter_model.safetensors", MODEL: "config.json"}


def name_of(spec: TrainSpec) -> str:
    """The folder that a run of this method saves into, below its own."""
    return MODEL if spec.method == "full" else ADAPTER


def made(folder: Path) -> Path | None:
    """What the run in ``folder`` has made, None while there is nothing."""
    return next((folder / name for name, mark in _MARKS.items() if (folder / name / mark).is_file()), None)


def check_room(folder: Path, need: int, key: str) -> None:
    """UserError(``key``) with what is needed and what is free, in GB, when ``need`` bytes do not fit beside ``folder``."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if need + SPARE > free:
        raise UserError(key, need=f"{(need + SPARE) / 2**30:.1f}", have=f"{free / 2**30:.1f}")
