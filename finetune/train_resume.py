"""Checkpoints that go on under another number of processes: states by name, and what a checkpoint belongs to.

Covers: the optimizer's state as whole tensors under parameter names, adapter weights read back into shards, the record
that says which run a checkpoint is from. Does not cover: which checkpoint is whole (train_save.py); scheduler, scaler
and random state, which the trainer keeps in files of its own.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from assets.errors import UserError
from assets.files import read_json
from finetune import train_ranks as ranks
from finetune.spec import TrainSpec

ORIGIN = "origin.json"
OPTIMIZER = "optimizer.pt"


def origin(spec: TrainSpec, revision: str, data_sha256: str, template_hash: str) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on, and how its batches were made up."""
    schedule = spec.schedule
    return {
        "version": 1,
        "same": {
            "base": spec.model.id,
            "revision": revision,
            "data": data_sha256,
            "heldout": spec.data.heldout,
            "system": spec.data.system,
            "template": template_hash,
            "method": spec.method,
            "max_length": schedule.max_length,
            "packing": schedule.packing,
            "seed": schedule.seed,
            **{f"lora.{k}": v for k, v in asdict(spec.lora).items()},
        },
        "ranks": ranks.world(),
        "batch": schedule.micro_batch * schedule.accumulation * ranks.world(),
    }


def check_origin(checkpoint: Path, now: dict[str, Any]) -> None:
    """UserError("train.resume_differs") naming every difference between a checkpoint's run and this one."""
    before = read_json(checkpoint / ORIGIN)["same"]
    found = [f"{k}: {before.get(k)} → {v}" for k, v in now["same"].items() if before.get(k) != v]
    if found:
        raise UserError("train.resume_differs", checkpoint=checkpoint.name, difference="; ".join(found))


def same_batch(spec: TrainSpec, checkpoint: Path | None) -> TrainSpec:
    """The spec with the accumulation at which this number of ranks makes steps as large as the checkpoint's were.

    Steps, their order of conversations and the learning rates then stay what they were. UserError when it cannot be.
    """
    if checkpoint is None:
        return spec
    batch = int(read_json(checkpoint / ORIGIN)["batch"])
    each = spec.schedule.micro_batch * ranks.world()
    if batch % each:
        raise UserError(
            "train.batch_indivisible", batch=batch, ranks=ranks.world(), micro_batch=spec.schedule.micro_batch
        )
    return replace(spec, schedule=replace(spec.schedule, accumulation=batch // each))


def trained(model: Any) -> dict[str, Any]:
    """Parameters that are trained, by the names that adapter files use."""
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def whole(tensor: Any) -> Any:
    """A tensor with all of its shards. Collective for sharded ones."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(target: Any, value: Any) -> None:
    """Copy a whole tensor into ``target``, or this rank's rows of it when ``target`` is a shard."""
    if isinstance(target, DTensor):
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        value = value[tuple(slice(o, o + s) for o, s in zip(offset, shape, strict=True))]
        target = target.to_local()
    target.copy_(value)


@torch.no_grad()
def load_adapter(model: Any, checkpoint: Path) -> None:
    """Read a checkpoint's adapter into a model that is sharded or not. KeyError when a tensor is missing."""
    saved = load_file(checkpoint / "adapter_model.safetensors")
    for name, parameter in trained(model).items():
        fill(parameter, saved[name])


@torch.no_grad()
def save_optimizer(optimizer: Any, model: Any, folder: Path, keep: bool) -> None:
    """Whole states under parameter names, and the groups' settings. All ranks must call it; those that ``keep`` write."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    states: dict[str, dict[str, Any]] = {}
    for name, parameter in trained(model).items():
        state = {key: whole(value) for key, value in optimizer.state[parameter].items()}
        if keep:
            states[name] = {key: value.cpu() for key, value in state.items()}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    if keep:
        torch.save({"version": 1, "states": states, "groups": groups}, folder / OPTIMIZER)


@torch.no_grad()
def load_optimizer(optimizer: Any, model: Any, folder: Path) -> None:
    """The reverse, into an optimizer whose parameters may be sharded otherwise."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    saved = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    for group, values in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update(values)
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for name, parameter in trained(model).items():
        state = optimizer.state[parameter]
        for key, value in saved["states"][name].items():
            if key == "step":
                state[key] = value.to(parameter.device if fused else "cpu")
            else:
                state[key] = torch.zeros_like(parameter)
                fill(state[key], value)
