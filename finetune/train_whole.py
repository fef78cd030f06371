"""A whole model as a folder that other programs open: what full fine-tuning and merging end in.

Covers: checkpoints of all weights, the final folder in 16 bits (safetensors shards with their index, configuration,
generation settings, tokenizer and template), reading it again, room on the disk. Does not cover: adapters (train_save.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from assets.errors import UserError
from finetune import outcome
from finetune.spec import WatchSpec
from finetune.train_save import trained_weights

WEIGHTS = "model.safetensors"
BITS = torch.bfloat16
SHARD = "4GB"
SMALL = ("*.json", "*.jinja", "*.model", "*.txt")
NOT_OF_A_MODEL = ("trainer_state.json", "complete.json", "origin.json", "best.json", "model.safetensors.index.json")


def tells_its_ends(model: Any, stop_ids: tuple[int, ...]) -> None:
    """Everything after which an answer is over goes into the generation settings: many bases name only some of it."""
    settings = model.generation_config
    settings.eos_token_id = list(stop_ids)
    settings.pad_token_id = settings.pad_token_id if settings.pad_token_id is not None else stop_ids[0]
    if not settings.do_sample:  # transformers refuses to write sampling values that greedy decoding ignores
        settings.temperature = settings.top_p = settings.top_k = None


def save_checkpoint(model: Any, tokenizer: Any, folder: Path, main: bool) -> None:
    """Every weight as it is trained, in float32. All ranks must call it."""
    weights = trained_weights(model, main)
    if not main:
        return
    temporary = _fresh(folder)
    save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
    _save_settings(model, tokenizer, temporary)
    _place(temporary, folder)


def save_final(model: Any, tokenizer: Any, folder: Path, main: bool) -> None:
    """The model in 16 bits as one folder, put in place by a rename once it reads well. All ranks must call it."""
    weights = trained_weights(model, main)
    if main:
        write(weights, model, tokenizer, folder)


def write(weights: Mapping[str, torch.Tensor], model: Any, tokenizer: Any, folder: Path) -> None:
    """Shards of at most SHARD, configuration and tokenizer. UserError("train.bad_model") for weights that are no numbers."""
    temporary = _fresh(folder)
    _save_shards(weights, temporary)
    _save_settings(model, tokenizer, temporary)
    verify(temporary)
    _place(temporary, folder)


def finish(checkpoint: Path, folder: Path) -> None:
    """A checkpoint of ``save_checkpoint`` as a final folder."""
    temporary = _fresh(folder)
    for pattern in SMALL:
        for path in checkpoint.glob(pattern):
            if path.name not in NOT_OF_A_MODEL:
                shutil.copyfile(path, temporary / path.name)
    _save_shards(load_file(checkpoint / WEIGHTS), temporary)
    _place(temporary, folder)


def verify(folder: Path) -> int:
    """Numbers in a saved model, reopened. UserError("train.bad_model") when some of them are none, or nothing is there."""
    numbers = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in list(file.keys()):
                tensor = file.get_tensor(name)
                numbers += tensor.numel()
                if not torch.isfinite(tensor).all():
                    raise UserError("train.bad_model", reason=f"NaN: {name}")
    if not numbers:
        raise UserError("train.bad_model", reason="0 tensors")
    return numbers


def check_memory(base: Path, device: torch.device, share: int) -> None:
    """UserError("train.full_too_large") when weights, gradients and both moments of Adam, in float32 and divided among
    ``share`` processes, are more than what is free. Before anything is loaded: a host that runs out ends other programs."""
    need = numbers_of(base) * 16 // share
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if need <= free and share > 1:  # every rank reads the whole model on the host before it is cut into shards
        need = numbers_of(base) * 4 * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        free = psutil.virtual_memory().available
    if need > free:
        raise UserError("train.full_too_large", need=f"{need / 2**30:.1f}", have=f"{free / 2**30:.1f}")


def check_disk(model: Any, folder: Path, watch: WatchSpec) -> None:
    """UserError("train.full_disk") when the checkpoints that are kept at the same time (float32 weights, Adam's moments)
    and the final model do not fit; those that are there already count."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/*/*") if file.is_file())
    outcome.check_room(folder, numbers * (12 * (watch.keep + 1 + watch.keeps_best) + 2) - there, "train.full_disk")


def numbers_of(folder: Path) -> int:
    """Weights of a checkpoint, from its headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in list(file.keys()))
    return total


def _save_shards(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    cast = {name: tensor.to(BITS) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_torch_state_dict(cast, folder, max_shard_size=SHARD, metadata={"format": "pt"})


def _save_settings(model: Any, tokenizer: Any, folder: Path) -> None:
    config = deepcopy(model.config)
    config.dtype = BITS
    config.use_cache = True  # training switches it off
    config.architectures = [type(model).__name__.removeprefix("FSDP")]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fresh(folder: Path) -> Path:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def _place(temporary: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
