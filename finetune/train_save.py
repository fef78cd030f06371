"""Write adapters and checkpoints so that what is on disk is whole, and prove that a saved adapter is usable.

Covers: the adapter folder (gathered from shards, renamed into place, reopened), which checkpoint is complete. Does not
cover: the optimizer's files, which the trainer writes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from assets.errors import UserError
from assets.files import read_json, write_json

MARK = "complete.json"
WEIGHTS = "adapter_model.safetensors"


def file_name(name: str) -> str:
    """A parameter's name in an adapter file: without the adapter's own name, DoRA's lengths without ".weight"."""
    plain = name.replace(".default.", ".").replace(".ref.", ".")
    return plain.removesuffix(".weight") if plain.endswith("lora_magnitude_vector.weight") else plain


def trained(model: Any) -> dict[str, Any]:
    """Parameters that are trained, by the names that adapter files use."""
    return {file_name(n): p for n, p in model.named_parameters() if p.requires_grad}


def whole(tensor: Any) -> Any:
    """A tensor with all of its shards. Collective for sharded ones."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def trained_weights(model: Any, keep: bool) -> dict[str, torch.Tensor]:
    """Every trained tensor, whole, under the names of files. All ranks must call it; who ``keep``s, gets copies."""
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in trained(model).items():
        tensor = whole(parameter.detach())
        if keep:
            weights[name] = tensor.cpu().contiguous().clone()
    return weights


def save_adapter(model: Any, tokenizer: Any, folder: Path, main: bool, final: bool) -> None:
    """The adapter, its configuration and the tokenizer as one folder, put in place by a rename.

    A ``final`` one must be usable (``verify_adapter``); a checkpoint's may still be what it began as.
    """
    weights = trained_weights(model, main)
    if not main:
        return
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"]
    training, config.inference_mode = config.inference_mode, True
    config.save_pretrained(temporary)
    config.inference_mode = training
    tokenizer.save_pretrained(temporary)
    if final:
        verify_adapter(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def verify_adapter(folder: Path) -> dict[str, int]:
    """Reopen a saved adapter: not empty, finite, some lora_B not zero. UserError("train.bad_adapter") says why."""
    moved = numbers = 0
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
        for name in names:
            tensor = file.get_tensor(name)
            numbers += tensor.numel()
            if not torch.isfinite(tensor).all():
                raise UserError("train.bad_adapter", reason="NaN")
            moved += "lora_B" in name and bool(tensor.any())
    if not names:
        raise UserError("train.bad_adapter", reason="0 tensors")
    if not moved:
        raise UserError("train.bad_adapter", reason="lora_B = 0")
    return {"tensors": len(names), "parameters": numbers, "moved": moved}


def mark_complete(checkpoint: Path) -> None:
    """Note every file's size as the very last act of a save."""
    files = {str(f.relative_to(checkpoint)): f.stat().st_size for f in checkpoint.rglob("*") if f.is_file()}
    write_json(checkpoint / MARK, {"version": 1, "files": files})


def is_complete(checkpoint: Path) -> bool:
    if not (checkpoint / MARK).exists():
        return False
    files = read_json(checkpoint / MARK)["files"]
    return all((checkpoint / n).exists() and (checkpoint / n).stat().st_size == size for n, size in files.items())


def checkpoints(folder: Path) -> list[Path]:
    """All of them, newest first, whole or not."""
    return sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[-1]), reverse=True)


def last_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and the names of newer ones that are cut short."""
    broken: list[str] = []
    for checkpoint in checkpoints(folder):
        if is_complete(checkpoint):
            return checkpoint, broken
        broken.append(checkpoint.name)
    return None, broken


def rotate(folder: Path, keep: int, spare: int | None = None) -> int:
    """Remove all but the newest ``keep`` whole checkpoints and that of step ``spare``, once the newest is whole. The bytes
    that are left."""
    whole = [c for c in checkpoints(folder) if is_complete(c)]
    for old in whole[keep:]:
        if old.name != f"checkpoint-{spare}":
            shutil.rmtree(old)
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
