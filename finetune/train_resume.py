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
from finetune.train_save import WEIGHTS, last_checkpoint, trained, whole
from finetune.train_whole import WEIGHTS as WHOLE

ORIGIN = "origin.json"
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"


def origin(spec: TrainSpec, revision: str, data_sha256: str, template_hash: str) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on, and how its batches were made up."""
    schedule = spec.schedule
    lora = {} if spec.method == "full" else {k: v for k, v in asdict(spec.lora).items() if k != "dora" or v}
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
            **{f"lora.{k}": v for k, v in lora.items()},
        },
        "ranks": ranks.world(),
        "batch": schedule.micro_batch * schedule.accumulation * ranks.world(),
    }


def go_on(spec: TrainSpec, folder: Path, origin: dict[str, Any], report: Any) -> tuple[TrainSpec, Path | None]:
    """The newest whole checkpoint, and the spec with the accumulation that makes steps as large as its were on this
    number of ranks: steps, order of conversations and learning rates stay what they were. ``origin`` takes the
    checkpoint's batch. UserError when it is another run's, or when its batch cannot be divided."""
    checkpoint, broken = last_checkpoint(folder / "checkpoints")
    for name in broken:
        report.note("train.broken_checkpoint", name=name)
    if checkpoint is None:
        return spec, None
    before = read_json(checkpoint / ORIGIN)
    was, now = before["same"], origin["same"]
    keys = dict.fromkeys([*now, *was])
    shorter = now["max_length"] < was["max_length"]  # what a run that is out of memory does to go on
    differs = [k for k in keys if was.get(k) != now.get(k) and not (k == "max_length" and shorter)]
    found = [f"{k}: {was.get(k)} → {now.get(k)}" for k in differs]
    if found:
        raise UserError("train.resume_differs", checkpoint=checkpoint.name, difference="; ".join(found))
    batch, each = before["batch"], spec.schedule.micro_batch * ranks.world()
    if batch % each:
        raise UserError("train.batch_indivisible", batch=batch, ranks=ranks.world(), each=spec.schedule.micro_batch)
    report.note("train.resumed", name=checkpoint.name)
    if shorter:
        report.note("train.resumed_shorter", before=was["max_length"], now=now["max_length"])
    if before["ranks"] != ranks.world():
        report.note("train.resumed_ranks", before=before["ranks"], now=ranks.world())
    if (rate := rate_of(checkpoint)) != spec.schedule.learning_rate:
        report.note("train.resumed_rate", before=rate, now=spec.schedule.learning_rate)
    origin["batch"] = batch
    return replace(spec, schedule=replace(spec.schedule, accumulation=batch // each)), checkpoint


def check_ranks(origin: dict[str, Any], checkpoint: Path | None) -> None:
    """UserError("train.ranks_differ") unless every rank has the same model, data and settings. Collective."""
    mine = {**origin["same"], "checkpoint": checkpoint.name if checkpoint else None}
    found = ranks.gathered(mine)
    for rank, other in enumerate(found):
        what = [f"{k}: {found[0][k]} → {v}" for k, v in other.items() if found[0][k] != v]
        if what:
            raise UserError("train.ranks_differ", rank=rank, what="; ".join(what))


def fill(target: Any, value: Any) -> None:
    """Copy a whole tensor into ``target``, or this rank's rows of it when ``target`` is a shard."""
    if isinstance(target, DTensor):
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        value = value[tuple(slice(o, o + s) for o, s in zip(offset, shape, strict=True))]
        target = target.to_local()
    target.copy_(value)


@torch.no_grad()
def load_trained(model: Any, checkpoint: Path) -> None:
    """Read a checkpoint's weights into a model that is sharded or not. KeyError when a tensor is missing."""
    saved = load_file(checkpoint / (WEIGHTS if (checkpoint / WEIGHTS).exists() else WHOLE))
    for name, parameter in trained(model).items():
        fill(parameter, saved[name])


@torch.no_grad()
def save_optimizer(optimizer: Any, model: Any, folder: Path, keep: bool) -> None:
    """Whole states under parameter names, and the groups' settings. All ranks must call it; who ``keep``s, writes."""
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


def rate_of(checkpoint: Path) -> float:
    """The learning rate that a checkpoint's course was made for."""
    return float(torch.load(checkpoint / SCHEDULER, weights_only=True)["base_lrs"][0])


def load_scheduler(scheduler: Any, optimizer: Any, checkpoint: Path, rate: float) -> None:
    """Where the learning rate was in its course, with the height of ``rate``. After ``load_optimizer``."""
    scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER, weights_only=True))
    before = float(scheduler.base_lrs[0])
    if before == rate:
        return
    scheduler.base_lrs = [rate for _ in scheduler.base_lrs]
    for group in optimizer.param_groups:
        group["initial_lr"], group["lr"] = rate, group["lr"] * rate / before
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
