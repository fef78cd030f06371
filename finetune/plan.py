"""From what to train and what there is to the command that does it.

Covers: placement (one process, data parallel, FSDP2 shards, offload), precision, the accelerate configuration, argv
and environment, as data that prints as a command to copy. Does not cover: starting it (jobs.py) or secrets (never in
a plan).
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.leases import CPU
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Estimate, Shape, estimate, on_cpu
from finetune.spec import TrainSpec

VERSION = 1
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
    reason: str = ""
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
    tuples = {k: tuple(values[k]) for k in ("gpus", "devices", "argv")}
    return LaunchPlan(**{**values, **tuples})


def make(spec: TrainSpec, machine: Machine, shape: Shape, folder: Path) -> LaunchPlan:
    """The plan for ``spec`` on ``machine`` with its files in ``folder``. UserError when the wish cannot be met."""
    gpus = _wanted(spec, machine)
    if not gpus:
        return _cpu_plan(spec, machine, shape, folder)
    placement, chosen, guess, offload = _place(spec, gpus, shape)
    free = min(g.free for g in chosen) - RESERVE
    processes = len(chosen) if placement != "single" else 1
    env = {"CUDA_VISIBLE_DEVICES": ",".join(str(g.index) for g in chosen), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return LaunchPlan(
        placement=placement,
        processes=processes,
        gpus=tuple(g.index for g in chosen),
        devices=tuple(g.device for g in chosen),
        precision=_precision(spec, chosen),
        offload=offload,
        argv=_argv(folder, processes > 1 or offload),
        env=env,
        files={"accelerate.yaml": _accelerate(placement, processes, offload)} if processes > 1 or offload else {},
        fit=_fit(guess, free),
        parts=guess.parts,
        available=free,
        host=guess.host,
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


def _place(spec: TrainSpec, gpus: tuple[Gpu, ...], shape: Shape) -> tuple[str, tuple[Gpu, ...], Estimate, bool]:
    """One GPU when it fits and is alone, copies when it fits each, shards when it does not, offload where asked."""
    best = tuple(sorted(gpus, key=lambda g: -g.free))
    whole = estimate(shape, spec)
    shards = estimate(shape, spec, len(gpus), sharded=True)
    free = min(g.free for g in gpus) - RESERVE
    wish = spec.hardware.placement
    if wish == "auto":
        fits_one = whole.total <= best[0].free - RESERVE
        fits_each = whole.total <= free
        wish = "single" if len(gpus) == 1 or (fits_one and not fits_each) else "ddp" if fits_each else "fsdp"
    if wish == "single":
        return "single", best[:1], whole, False
    if len(gpus) < 2:
        raise UserError("plan.needs_gpus", placement=wish)
    return wish, gpus, whole if wish == "ddp" else shards, spec.hardware.offload and wish == "fsdp"


def _precision(spec: TrainSpec, gpus: tuple[Gpu, ...]) -> str:
    if spec.hardware.precision != "auto":
        return spec.hardware.precision
    return "bfloat16" if all(g.bfloat16 for g in gpus) else "float16"


def _fit(guess: Estimate, available: int) -> str:
    if guess.high <= available:
        return "fits"
    return "tight" if guess.total <= available else "too_big"


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
        parts=guess.parts,
        available=machine.memory_free,
        host=guess.host,
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
    return (*start, *script)


def _accelerate(placement: str, processes: int, offload: bool) -> str:
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {'FSDP' if placement == 'fsdp' else 'MULTI_GPU'}",
        f"num_processes: {processes}",
        "num_machines: 1",
        "mixed_precision: 'no'",
        "main_process_port: 0",
    ]
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
