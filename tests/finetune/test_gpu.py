"""What is read of a machine, from a driver that is a fake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune import gpu

GIB = 2**30


class Driver:
    """NVML with one card; ``running`` is (pid, bytes or None where the driver hides them)."""

    class NVMLError(Exception): ...

    def __init__(self, running: list[tuple[int, int | None]], capability: tuple[int, int] = (9, 0)) -> None:
        self._running = running
        self._capability = capability

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=24 * GIB, free=10 * GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self._capability

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-1"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "card"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._running]


def seen(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> gpu.Gpu:
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    return gpu._gpus()[0]


def test_memory_of_other_programs_is_seen_and_our_own_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, env={"NARANHI_JOB": "j"})
    other = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, env={})
    try:
        running = [(own.pid, 3 * GIB), (other.pid, 8 * GIB), (os.getpid(), GIB), (2**22 + 5, None)]
        card = seen(monkeypatch, Driver(running))
    finally:
        for process in (own, other):
            process.communicate(b"\n")
    assert (card.foreign, card.free, card.total, card.busy) == (8 * GIB, 10 * GIB, 24 * GIB, 37)
    assert card.device == "gpu-GPU-1"


@pytest.mark.parametrize(("capability", "has"), [((6, 1), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_begins_with_ampere(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has: bool) -> None:
    assert seen(monkeypatch, Driver([], capability)).bfloat16 is has


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Missing(Driver):
        def nvmlInit(self) -> None:
            raise self.NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", Missing([]))
    machine = gpu.read(tmp_path)
    assert machine.gpus == () and machine.cores >= 1 and machine.disk_free > 0 < machine.memory_free <= machine.memory
