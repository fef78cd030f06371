"""What there is to train on: GPUs, their free memory and who else uses them, CPU cores, host memory and disk.

Covers: reading the machine. Does not cover: choosing (plan.py) or holding (assets/leases.py). Without an NVIDIA driver
the list of GPUs is empty; other makers' GPUs are untested and not listed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Gpu:
    """One card; bytes are what the driver reports. ``foreign`` is memory held by processes that are not ours."""

    index: int
    uuid: str
    name: str
    total: int
    free: int
    bfloat16: bool
    foreign: int = 0
    busy: int = 0

    @property
    def device(self) -> str:
        """The lease's name."""
        return f"gpu-{self.uuid}"


@dataclass(frozen=True)
class Machine:
    """A snapshot. Memory and disk in bytes."""

    gpus: tuple[Gpu, ...]
    cores: int
    memory: int
    memory_free: int
    disk_free: int
    cpu_bfloat16: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cores() -> int:
    """CPU cores this process may use (cgroups and affinity counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read(folder: Path) -> Machine:
    """The machine now; ``folder`` says whose disk."""
    memory = psutil.virtual_memory()
    return Machine(
        gpus=_gpus(),
        cores=cores(),
        memory=memory.total,
        memory_free=memory.available,
        disk_free=shutil.disk_usage(folder).free,
        cpu_bfloat16=cpu_bfloat16(),
    )


def cpu_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without it that type is far slower than float32."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.read_text(encoding="ascii").split()))


def _gpus() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_gpu(pynvml, i) for i in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, _ = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        total=memory.total,
        free=memory.free,
        bfloat16=major >= 8,
        foreign=_foreign(nvml, handle),
        busy=nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
    )


def _foreign(nvml: Any, handle: Any) -> int:
    """Bytes of processes that do not descend from any process of ours (in containers NVML may hide them: then 0)."""
    ours = {
        process.pid for process in psutil.process_iter(["environ"]) if "NARANHI_JOB" in (process.info["environ"] or {})
    }
    running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return sum(p.usedGpuMemory or 0 for p in running if p.pid not in ours and p.pid != os.getpid())
