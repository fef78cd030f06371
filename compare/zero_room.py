"""What the engine on ZeroGPU computes with: weights that wait on the host and go to the GPU that a call has.

Covers: reading and quantising on the CPU, for a GPU; the way to the device in a fork of this process. Does not cover:
calls, forks and quota (zero_engine.py), answers, which are the local engine's (local_engine.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from assets.files import Workspace
from compare.decode_check import combine
from compare.decode_stages import Stage
from compare.engine import Loaded, LoadSpec, Phase
from compare.local_engine import LocalEngine, reading, told, versions
from compare.local_engine_group import adapter_folder, groups_of
from compare.local_engine_model import memory_held

HOST = torch.device("cpu")


class ZeroRoom(LocalEngine):
    """A LocalEngine in two halves: ``load`` in the app's process, the rest in the one that has the GPU.

    ``device`` is where the second half computes.
    """

    def __init__(self, workspace: Workspace, device: str = "cuda:0") -> None:
        super().__init__(workspace)
        self._device = torch.device(device)
        self.weight_bytes = 0

    def _load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """The weights in this process's memory. What comes from the Hub is brought here now, not in a call."""
        yield Phase("engine.phase.read")
        arms = tuple(replace(a, adapter=str(adapter_folder(a.adapter)) if a.adapter else None) for a in spec.arms)
        self._spec = replace(spec, arms=arms, together=True)
        self._groups = groups_of(self._workspace, self._spec)
        for index, group in enumerate(self._groups):
            group.stages, group.meant_for = (Stage(HOST, 0),), self._device
            yield from reading(group, index, len(self._groups))
        self.weight_bytes = sum(group.weight_bytes() for group in self._groups)

    def settle(self) -> Iterator[Loaded]:
        """Put everything on the device and prove it there."""
        with told():
            self._arrive()
            check = combine([group.check() for group in self._groups])
            infos = {key: info for group in self._groups for key, info in group.infos()}
            weights = "+".join(dict.fromkeys(group.weights for group in self._groups))
            memory = memory_held(self._device)
            self._loaded = Loaded(str(self._device), memory, infos, check, versions(), weights)
        yield self._loaded

    def _ready(self) -> LoadSpec:
        with told():
            self._arrive()
        return super()._ready() if self._spec is None else self._spec

    def _arrive(self) -> None:
        """Onto the device, unless an earlier call in this process has brought it there. UserError for what does not fit."""
        if self._device.type == "cuda":
            torch.set_num_threads(1)  # OpenMP's others did not come along into the fork: waiting would never end
        for group in self._groups:
            if group.decoder is None:
                group.move(self._device)
                group.attach()
