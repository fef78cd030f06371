"""Who holds which GPU (or the CPUs), as OS file locks.

Covers: taking, passing on, joining and reading leases. A lease belongs to the open file, so a training rank that inherits
or joins it keeps the device taken until the very last process is gone, even after ``kill -9``. Does not cover: processes
of other programs on the same GPU (finetune/gpu.py counts those). POSIX only.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.files import Workspace, read_json, write_json

CPU = "cpu"


@dataclass(frozen=True)
class Lease:
    """Held devices. ``handles`` are file descriptors to pass to child processes (``pass_fds``)."""

    devices: tuple[str, ...]
    handles: tuple[int, ...]

    def release(self) -> None:
        for handle in self.handles:
            os.close(handle)


def _file(workspace: Workspace, device: str) -> Path:
    return workspace.leases / f"{device}.lease"


def acquire(workspace: Workspace, devices: tuple[str, ...], holder: dict[str, Any]) -> Lease | None:
    """All of the devices or none. ``holder`` (kind, id, name) is what others see; None when one of them is taken."""
    handles: list[int] = []
    for device in sorted(devices):
        handles.append(os.open(_file(workspace, device), os.O_RDWR | os.O_CREAT, 0o644))
        if not _locked(handles[-1]) or _joined(workspace, device):
            Lease((), tuple(handles)).release()
            return None
    for device in devices:
        write_json(workspace.leases / f"{device}.json", {"since": time.time(), "pid": os.getpid(), **holder})
    return Lease(tuple(sorted(devices)), tuple(handles))


def join(workspace: Workspace, devices: tuple[str, ...]) -> Lease:
    """Hold what a parent has acquired, in a process that did not inherit its handles (launchers close them)."""
    handles = tuple(os.open(_members(workspace, device), os.O_RDWR | os.O_CREAT, 0o644) for device in devices)
    for handle in handles:
        fcntl.flock(handle, fcntl.LOCK_SH)  # whoever looks holds it for an instant only
    return Lease(devices, handles)


def _members(workspace: Workspace, device: str) -> Path:
    return workspace.leases / f"{device}.members.lease"


def _joined(workspace: Workspace, device: str) -> bool:
    """Whether a process that joined is still there."""
    path = _members(workspace, device)
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """``holder`` takes the lock for an instant to look, so one refusal is not an answer."""
    for _ in range(10):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def holder(workspace: Workspace, device: str) -> dict[str, Any] | None:
    """Who holds a device now, or None when it is free."""
    path = _file(workspace, device)
    if not path.exists() or not (_taken(path) or _joined(workspace, device)):
        return None
    note = workspace.leases / f"{device}.json"
    return dict(read_json(note)) if note.exists() else {}


def _taken(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see each other
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
