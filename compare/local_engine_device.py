"""Which devices the comparison computes on, and the leases that keep training jobs off them.

Covers: the first GPU that nobody holds, most free memory first; several free ones for what is larger than one; names as
training knows them. Does not cover: how leases work (assets/leases.py), how layers are dealt out (spread.py). A CPU is
shared and needs no lease.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import Lease, acquire, holder
from compare.decode_stages import Stage
from compare.local_engine_model import pick_device
from compare.spread import Layout, Sizes, chain, spread

HOLDER = {"kind": "engine"}
Stages = tuple[Stage, ...]


@dataclass(frozen=True)
class Gpu:
    """A GPU as the planner sees it. ``name`` is its lease's; bytes."""

    index: int
    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Taken:
    """Where each model goes, in their order, and the lease of all cards together."""

    stages: tuple[Stages, ...]
    lease: Lease | None

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device once."""
        return tuple(dict.fromkeys(stage.device for stages in self.stages for stage in stages))


def take_devices(
    workspace: Workspace, wanted: str, models: Sequence[Callable[[], Sizes]], together: bool = True
) -> Taken:
    """Devices for ``models``: "auto", "cpu", "cuda:1", or several by name, "cuda:0,cuda:1", to spread every model over.

    ``models`` are asked for their sizes where there is a choice. ``together`` False: one is in memory at a time.
    UserErrors: "engine.gpu_busy" while others hold what is needed, "engine.no_memory_cards" when named devices are too
    small.
    """
    named = wanted.split(",")
    if len(named) > 1:
        return _take_named(workspace, [pick_device(name) for name in named], [model() for model in models], together)
    device = pick_device(wanted)
    if device.type != "cuda":
        return Taken(((Stage(device, 0),),) * len(models), None)
    if wanted != "auto" or torch.cuda.device_count() == 1:
        lease = take(workspace, [lease_name(device.index or 0)])
        return Taken(((Stage(device, 0),),) * len(models), lease)
    return take_free(workspace, [_gpu(i) for i in range(torch.cuda.device_count())], [m() for m in models], together)


def take_free(workspace: Workspace, gpus: Sequence[Gpu], models: Sequence[Sizes], together: bool = True) -> Taken:
    """As few of ``gpus`` as will do. Where all of them are too small, the emptiest free one: reading says so then.

    UserError("engine.gpu_busy", name=…) when the models would fit but for what others hold.
    """
    free = [gpu for gpu in gpus if holder(workspace, gpu.name) is None]
    layouts = plan(models, [gpu.free for gpu in free], together)
    if layouts is None and plan(models, [gpu.free if gpu in free else gpu.total for gpu in gpus], together):
        raise busy(workspace, [gpu.name for gpu in gpus if gpu not in free])
    if layouts is None:
        order = sorted(gpus, key=lambda gpu: gpu.total - gpu.free)
        lease = take(workspace, [gpu.name for gpu in order])
        index = next(gpu.index for gpu in gpus if gpu.name == lease.devices[0])
        return Taken(((Stage(torch.device("cuda", index), 0),),) * len(models), lease)
    stages = tuple(_stages(layout, [torch.device("cuda", gpu.index) for gpu in free]) for layout in layouts)
    names = tuple(gpu.name for i, gpu in enumerate(free) if any(part.card == i for own in layouts for part in own))
    return Taken(stages, _acquire(workspace, names))


def plan(models: Sequence[Sizes], free: Sequence[int], together: bool) -> tuple[Layout, ...] | None:
    """A layout per model, sharing the cards or each with all of them to itself."""
    if together:
        return spread(models, free)
    found = [spread([model], free) for model in models]
    return None if any(one is None for one in found) else tuple(one[0] for one in found if one is not None)


def take(workspace: Workspace, names: Sequence[str]) -> Lease:
    """The first of these leases that is free. UserError("engine.gpu_busy", name=…) when all are held."""
    for name in names:
        lease = acquire(workspace, (name,), HOLDER)
        if lease is not None:
            return lease
    raise busy(workspace, names)


def busy(workspace: Workspace, names: Sequence[str]) -> UserError:
    """Who holds these."""
    held = [holder(workspace, name) or {} for name in names]
    named = next((str(h["name"]) for h in held if h.get("name")), "")
    return UserError("engine.gpu_busy", name=named) if named else UserError("engine.gpu_busy_engine")


def lease_name(index: int) -> str:
    """As finetune/gpu.py names it, from the driver's own identifier: "gpu-GPU-6f1c…"."""
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return f"gpu-{uuid if uuid.startswith(('GPU-', 'MIG-')) else 'GPU-' + uuid}"


def _take_named(
    workspace: Workspace, devices: Sequence[torch.device], models: Sequence[Sizes], together: bool
) -> Taken:
    """Every model over all of these devices, filled alike."""
    free = [_free(device) for device in devices]
    cards = range(len(devices))
    found = [chain(models, free, cards)] if together else [chain([model], free, cards) for model in models]
    if any(layouts is None for layouts in found):
        raise UserError("engine.no_memory_cards")
    stages = tuple(_stages(layout, devices) for layouts in found for layout in layouts or ())
    names = tuple(lease_name(device.index or 0) for device in devices if device.type == "cuda")
    return Taken(stages, _acquire(workspace, names) if names else None)


def _acquire(workspace: Workspace, names: tuple[str, ...]) -> Lease:
    lease = acquire(workspace, names, HOLDER)
    if lease is None:
        raise busy(workspace, names)
    return lease


def _stages(layout: Layout, devices: Sequence[torch.device]) -> Stages:
    return tuple(Stage(devices[part.card], part.layers) for part in layout)


def _gpu(index: int) -> Gpu:
    free, total = torch.cuda.mem_get_info(index)
    return Gpu(index, lease_name(index), int(free), int(total))


def _free(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else psutil.virtual_memory().available
