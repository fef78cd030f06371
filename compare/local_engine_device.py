"""Which device the comparison computes on, and the lease that keeps a training job off it.

Covers: the first GPU that nobody holds, most free memory first; its name as training knows it. Does not cover: how
leases work (assets/leases.py), memory (local_engine_model.py). A CPU is shared and needs no lease.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import Lease, acquire, holder
from compare.local_engine_model import pick_device

HOLDER = {"kind": "engine"}


def take_device(workspace: Workspace, wanted: str) -> tuple[torch.device, Lease | None]:
    """The device for "auto", "cpu" or "cuda:1", and its lease. UserError("engine.gpu_busy") while others hold it."""
    device = pick_device(wanted)
    if device.type != "cuda":
        return device, None
    count = torch.cuda.device_count()
    indices = [device.index or 0] if wanted != "auto" or count == 1 else sorted(range(count), key=_used)
    lease = take(workspace, [lease_name(index) for index in indices])
    return torch.device("cuda", indices[[lease_name(i) for i in indices].index(lease.devices[0])]), lease


def take(workspace: Workspace, names: Sequence[str]) -> Lease:
    """The first of these leases that is free. UserError("engine.gpu_busy", name=…) when all are held."""
    for name in names:
        lease = acquire(workspace, (name,), HOLDER)
        if lease is not None:
            return lease
    held = [holder(workspace, name) or {} for name in names]
    named = next((str(h["name"]) for h in held if h.get("name")), "")
    raise UserError("engine.gpu_busy", name=named) if named else UserError("engine.gpu_busy_engine")


def lease_name(index: int) -> str:
    """As finetune/gpu.py names it, from the driver's own identifier: "gpu-GPU-6f1c…"."""
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return f"gpu-{uuid if uuid.startswith(('GPU-', 'MIG-')) else 'GPU-' + uuid}"


def _used(index: int) -> int:
    free, total = torch.cuda.mem_get_info(index)
    return int(total - free)
