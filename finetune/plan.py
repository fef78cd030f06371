"""From what to train and what there is to the command that does it.

Covers: placement (one process, data parallel, FSDP2 shards, offload), precision, the accelerate configuration, argv
and environment, as data that prints as a command to copy. Does not cover: starting it (jobs.py) or secrets (never in
a plan).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from assets.catalog import find_model
from assets.errors import UserError
from assets.leases import CPU
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Estimate, Shape, estimate, on_cpu
from finetune.spec import ClusterSpec, TrainSpec

VERSION = 1
FITS = ("fits", "tight", "too_big")
RESERVE = int(0.4 * GIB)  # what a display or the driver takes


@dataclass(frozen=True)
class LaunchPlan:
    """What will be run. ``devices`` are the leases it needs; ``files`` are written into the job's folder first."""

    placement: str
    processes: int
    gpus: tuple[int, ...]
    devices: tuple[str, ...]
    precision: str
    offload: bool
    argv: tuple[str, ...]
    env: dict[str, str]
    files: dict[str, str]
    fit: str
    parts: dict[str, int] = field(default_factory=dict)
    available: int = 0
    host: int = 0
    foreign: dict[str, int] = field(default_factory=dict)  # bytes that other programs hold, by GPU
    low: int = 0  # the range in which the peak should lie
    high: int = 0
    gpu_fit: str = ""
    host_parts: dict[str, int] = field(default_factory=dict)
    host_available: int = 0
    host_fit: str = ""
    version: int = VERSION

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def command(self) -> str:
        """The same as text for a POSIX shell, to be run from the folder of app.py."""
        env = [f"{k}={shlex.quote(v)}" for k, v in sorted(self.env.items())]
        return " ".join([*env, *(shlex.quote(a) for a in self.argv)])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shown(plan: LaunchPlan) -> str:
    """The command as a person would type it: the interpreter by its plain name, the YAML by the name of the guide."""
    text = plan.command().replace(shlex.quote(sys.executable), "python")
    return text.replace("workspace/jobs/my-run/spec.yaml", "my-run.yaml")


def from_dict(values: dict[str, Any]) -> LaunchPlan:
    """A plan.json of this version; fields that are no longer there are left out."""
    values = {k: v for k, v in values.items() if k in LaunchPlan.__dataclass_fields__}
    tuples = {k: tuple(values[k]) for k in ("gpus", "devices", "argv")}
    return LaunchPlan(**{**values, **tuples})


def make(spec: TrainSpec, machine: Machine, shape: Shape, folder: Path) -> LaunchPlan:
    """The plan for ``spec`` on ``machine`` with its files in ``folder``. UserError when the wish cannot be met."""
    gpus = _wanted(spec, machine)
    if spec.cluster.machines > 1 and not spec.cluster.address.strip():
        raise UserError("plan.no_address")
    if not gpus:
        return _cpu_plan(spec, machine, shape, folder)
    placement, chosen, guess, offload = _place(spec, gpus, shape, machine)
    free = min(_free(g) for g in chosen)
    processes = len(chosen) * spec.cluster.machines if placement != "single" else 1
    env = {"CUDA_VISIBLE_DEVICES": ",".join(str(g.index) for g in chosen), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    launcher = placement != "single"
    return LaunchPlan(
        placement=placement,
        processes=processes,
        gpus=tuple(g.index for g in chosen),
        devices=tuple(g.device for g in chosen),
        precision=_precision(spec, chosen),
        offload=offload,
        argv=_argv(folder, launcher),
        env=env,
        files={"accelerate.yaml": _accelerate(placement, processes, offload, spec.cluster)} if launcher else {},
        fit=max(_fit(guess, free), _host_fit(guess, machine), key=FITS.index),
        foreign={str(g.index): g.foreign for g in gpus if g.foreign},
        gpu_fit=_fit(guess, free),
        **_figures(guess, free, machine),
    )


def _wanted(spec: TrainSpec, machine: Machine) -> tuple[Gpu, ...]:
    if spec.hardware.gpus == "auto":
        return machine.gpus
    if spec.hardware.gpus.strip() in ("", "cpu"):
        return ()
    known = {str(g.index): g for g in machine.gpus}
    wanted = list(dict.fromkeys(index.strip() for index in spec.hardware.gpus.split(",")))
    for index in wanted:
        if index not in known:
            raise UserError("plan.no_such_gpu", index=index, count=len(known))
    return tuple(known[index] for index in wanted)


Placed = tuple[str, tuple[Gpu, ...], Estimate, bool]


def _place(spec: TrainSpec, gpus: tuple[Gpu, ...], shape: Shape, machine: Machine) -> Placed:
    """What the person wishes, or: copies on the GPUs that each hold all of it (one process when only one does), shards
    when none does, the host's memory when nothing else fits. Memory that other programs hold is not there."""
    count = spec.cluster.machines
    wish = spec.hardware.placement
    if wish == "auto":
        shards = _shards(spec, gpus, shape, machine) if spec.method != "qlora8" else None
        return _copies(spec, gpus, shape) or shards or _nothing(spec, gpus, shape)
    if wish == "single":
        return "single", (max(gpus, key=lambda g: g.free),), estimate(shape, spec), False
    offload = spec.hardware.offload and wish == "fsdp"
    if len(gpus) * count < 2 and not offload:
        raise UserError("plan.needs_gpus", placement=wish)
    guess = estimate(shape, spec, len(gpus) * count, sharded=wish == "fsdp", here=len(gpus))
    return wish, gpus, guess, offload


def _copies(spec: TrainSpec, gpus: tuple[Gpu, ...], shape: Shape) -> Placed | None:
    ranks = len(gpus) * spec.cluster.machines
    alone = estimate(shape, spec)
    copy = estimate(shape, spec, ranks, here=len(gpus))
    enough = tuple(g for g in gpus if copy.total <= _free(g))
    if len(enough) * spec.cluster.machines > 1:
        return "ddp", enough, copy, False
    best = max(gpus, key=lambda g: g.free)
    fits = alone.total <= _free(best) and spec.cluster.machines == 1
    return ("single", (best,), alone, False) if fits else None


def _shards(spec: TrainSpec, gpus: tuple[Gpu, ...], shape: Shape, machine: Machine) -> Placed | None:
    """On as many of the emptiest GPUs as hold their part; offloaded only if that fails and the host has the room."""
    emptiest = sorted(gpus, key=lambda g: -g.free)
    plain = replace(spec, hardware=replace(spec.hardware, offload=False))
    wishes = [(plain, 2)]
    if spec.method != "full":  # whose embeddings are trained, which the loss wants on the GPU
        wishes.append((replace(spec, hardware=replace(spec.hardware, offload=True)), 1))
    for wish, least in wishes:
        for count in range(len(gpus), 0, -1):
            ranks = count * spec.cluster.machines
            guess = estimate(shape, wish, ranks, sharded=True, here=count)
            if ranks < least or guess.total > _free(emptiest[count - 1]):
                continue
            if wish.hardware.offload and guess.host > machine.memory_free:
                continue
            chosen = tuple(g for g in gpus if g in emptiest[:count])
            return "fsdp", chosen, guess, wish.hardware.offload
    return None


def _nothing(spec: TrainSpec, gpus: tuple[Gpu, ...], shape: Shape) -> Placed:
    """The plan that comes closest, to show by how much it does not fit."""
    ranks = len(gpus) * spec.cluster.machines
    if ranks == 1 or spec.method == "qlora8":
        return "single", (max(gpus, key=lambda g: g.free),), estimate(shape, spec), False
    return "fsdp", gpus, estimate(shape, spec, ranks, sharded=True, here=len(gpus)), False


def _free(gpu: Gpu) -> int:
    return gpu.free - RESERVE


def _precision(spec: TrainSpec, gpus: tuple[Gpu, ...]) -> str:
    """UserError("plan.no_float16") for architectures that overflow in it."""
    chosen: str = spec.hardware.precision
    if chosen == "auto":
        chosen = "bfloat16" if all(g.bfloat16 for g in gpus) else "float16"
    card = find_model(spec.model.id)
    if chosen == "float16" and card is not None and card.model_type.startswith("gemma"):
        raise UserError("plan.no_float16", model=card.name)
    return chosen


def _fit(guess: Estimate, available: int) -> str:
    if guess.high <= available:
        return "fits"
    return "tight" if guess.total <= available else "too_big"


def _host_fit(guess: Estimate, machine: Machine) -> str:
    """Pages of a mapped file can be dropped and read again: tight without room for them, and slow."""
    if guess.host <= machine.memory_free:
        return "fits"
    return "tight" if guess.host - guess.mapped <= machine.memory_free else "too_big"


def _figures(guess: Estimate, available: int, machine: Machine) -> dict[str, Any]:
    """The estimate as the plan holds it."""
    return {
        "parts": guess.parts,
        "low": guess.low,
        "high": guess.high,
        "available": available,
        "host": guess.host,
        "host_parts": guess.host_parts,
        "host_available": machine.memory_free,
        "host_fit": _host_fit(guess, machine),
    }


def _cpu_plan(spec: TrainSpec, machine: Machine, shape: Shape, folder: Path) -> LaunchPlan:
    if spec.hardware.placement in ("ddp", "fsdp"):
        raise UserError("plan.needs_gpus", placement=spec.hardware.placement)
    guess = on_cpu(shape, spec)
    return LaunchPlan(
        placement="cpu",
        processes=1,
        gpus=(),
        devices=(CPU,),
        precision=_cpu_precision(spec, machine),
        offload=False,
        argv=_argv(folder, launcher=False),
        env={"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(machine.cores), "OMP_WAIT_POLICY": "PASSIVE"},
        files={},
        fit=_fit(guess, machine.memory_free),
        **_figures(guess, machine.memory_free, machine),
    )


def _cpu_precision(spec: TrainSpec, machine: Machine) -> str:
    if spec.hardware.precision != "auto":
        return spec.hardware.precision
    return "bfloat16" if machine.cpu_bfloat16 else "float32"


def _argv(folder: Path, launcher: bool) -> tuple[str, ...]:
    script = ("-m", "finetune.train", "--spec", str(folder / "spec.yaml"), "--out", str(folder))
    if not launcher:
        return (sys.executable, *script)
    start = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / "accelerate.yaml"))
    quiet = ("--log_dir", os.devnull)  # else each launch leaves a folder in the machine's temporary one
    return (*start, *quiet, *script)


def _accelerate(placement: str, processes: int, offload: bool, cluster: ClusterSpec) -> str:
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {'FSDP' if placement == 'fsdp' else 'MULTI_GPU'}",
        f"num_processes: {processes}",
        f"num_machines: {cluster.machines}",
        "mixed_precision: 'no'",
    ]
    if cluster.machines > 1:
        address = json.dumps(cluster.address.strip())
        lines += [
            f"machine_rank: {cluster.rank}",
            f"main_process_ip: {address}",
            f"main_process_port: {cluster.port}",
            "rdzv_backend: static",
            "same_network: true",
        ]
    else:
        lines += ["main_process_port: 0"]
    if placement == "fsdp":
        lines += [
            "fsdp_config:",
            "  fsdp_version: 2",
            "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
            "  fsdp_reshard_after_forward: true",
            f"  fsdp_offload_params: {str(offload).lower()}",
            "  fsdp_cpu_ram_efficient_loading: false",
            "  fsdp_state_dict_type: FULL_STATE_DICT",
            "  fsdp_activation_checkpointing: false",
        ]
    return "\n".join(lines) + "\n"
