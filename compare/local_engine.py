"""The engine that computes here: transformers and bitsandbytes, one decode loop per base.

Covers: loading all bases or one at a time, streaming text of all arms, a GPU's lease, recovery from errors. Does not
cover: one base (local_engine_group.py), text and times (local_engine_answer.py), a process of its own (worker.py).
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import Lease
from compare.decode_check import combine
from compare.engine import (
    ArmInfo,
    Changes,
    ChangesAsked,
    Delta,
    Done,
    Loaded,
    LoadSpec,
    Message,
    PaneCheck,
    Phase,
    Sampling,
)
from compare.local_engine_answer import Answer, Events, alternate, end_all, events_of, one_by_one
from compare.local_engine_device import lease_name, take_devices
from compare.local_engine_group import Group, groups_of
from compare.local_engine_model import memory_held

log = logging.getLogger(__name__)
LIBRARIES = ("torch", "transformers", "bitsandbytes")


class LocalEngine:
    """Engine over transformers and bitsandbytes, in this process. One request at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._groups: list[Group] = []
        self._loaded: Loaded | None = None
        self._spec: LoadSpec | None = None
        self._lease: Lease | None = None
        self._cancelled = threading.Event()

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        self.unload()
        try:
            with told():
                yield from self._load(spec)
        except BaseException:  # also when it is closed
            self.unload()
            raise

    def _load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        yield Phase("engine.phase.read")
        self._groups = groups_of(self._workspace, spec)
        taken = take_devices(self._workspace, spec.device, [group.sizes for group in self._groups], spec.together)
        self._lease = taken.lease
        for group, stages in zip(self._groups, taken.stages, strict=True):
            group.stages = stages
        checks: list[PaneCheck] = []
        infos: dict[str, ArmInfo] = {}
        for batch in [self._groups] if spec.together else [[group] for group in self._groups]:
            self._close_groups()
            for group in batch:
                yield from reading(group, self._groups.index(group), len(self._groups))
            yield Phase("engine.phase.adapters")
            for group in batch:
                group.attach()
                infos |= dict(group.infos())
            yield Phase("engine.phase.check")
            checks += [group.check() for group in batch]
        weights = "+".join(dict.fromkeys(group.weights for group in self._groups))
        self._spec = spec
        devices = taken.devices
        held = {lease_name(device.index or 0): memory_held(device) for device in devices if device.type == "cuda"}
        memory = sum(held.values()) if held else memory_held(devices[0])
        names = ",".join(map(str, devices))
        self._loaded = Loaded(names, memory, infos, combine(checks), versions(), weights, held)
        yield self._loaded

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        spec = self._ready()
        prompts = [group.encode(turns, system) for group in self._groups]
        self._cancelled = threading.Event()  # one per request: a late cancel cannot end the next one
        started = time.monotonic()
        running = [
            self._answer(group, rows, sampling, started, self._cancelled)
            for group, rows in zip(self._groups, prompts, strict=True)
            if rows
        ]
        return alternate(running) if spec.together else one_by_one(running)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        self._ready()
        wanted = {asked.base, asked.tuned}
        group = next((g for g in self._groups if wanted <= {arm.key for arm in g.arms}), None)
        if group is None:
            raise UserError("engine.not_comparable")
        self._cancelled = threading.Event()
        return self._changes(group, asked, self._cancelled)

    def _ready(self) -> LoadSpec:
        """What can be asked now. UserError when nothing can."""
        if self._loaded is None or self._spec is None:
            raise UserError("engine.not_loaded")
        return self._spec

    def _changes(self, group: Group, asked: ChangesAsked, cancelled: threading.Event) -> Iterator[Changes]:
        """Nothing when it was cancelled."""
        try:
            self._bring(group)
            found = None if cancelled.is_set() else group.changes(asked, cancelled.is_set)
        except torch.OutOfMemoryError as error:
            raise UserError("engine.out_of_memory") from error
        finally:
            _release()
        if found is not None:
            yield found

    def cancel(self) -> None:
        self._cancelled.set()

    def rest(self) -> None:
        """In this process nothing but ``unload`` gives memory back; worker.py ends the process and remembers."""
        self.unload()

    def unload(self) -> None:
        self._groups, self._loaded, self._spec = [], None, None
        _release()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _bring(self, group: Group) -> None:
        """Have this group in memory; one that is not there takes the place of the others."""
        if group.decoder is not None:
            return
        self._close_groups()
        for _ in group.read():
            if self._cancelled.is_set():
                return
        group.attach()

    def _close_groups(self) -> None:
        for group in self._groups:
            group.close()
        _release()

    def _answer(
        self,
        group: Group,
        prompts: dict[int, list[int]],
        sampling: Sampling,
        started: float,
        cancelled: threading.Event,
    ) -> Events:
        """Events per step of one base. Whatever goes wrong, every arm gets its Done and nothing is left behind."""
        formats = {row: group.formats[group.arms[row].key] for row in prompts}
        open_ = {row: Answer(group.arms[row].key, formats[row].stream(), started) for row in prompts}
        stops = {row: frozenset(formats[row].stop_ids) for row in prompts}
        steps = None
        try:
            if not cancelled.is_set():
                self._bring(group)
            if not cancelled.is_set():
                steps = group.ready.answer(prompts, sampling, stops)
                for step in steps:
                    yield events_of(step, open_)
                    if cancelled.is_set():
                        break
            yield end_all(open_, "cancelled")
        except Exception as error:
            log.exception("an answer failed")
            if _device_is_lost(error):
                raise
            _release()
            yield end_all(open_, "error", "engine.out_of_memory" if _out_of_memory(error) else "engine.failed")
        finally:
            if steps is not None:
                steps.close()


@contextmanager
def told() -> Iterator[None]:
    """Whatever goes wrong, as a sentence; but a device that is lost, which ends the process."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _device_is_lost(error):
            raise
        log.exception("loading failed")
        if _out_of_memory(error):
            raise UserError("engine.out_of_memory") from error
        raise UserError("engine.load_failed", reason=f"{type(error).__name__}: {error}") from error


def reading(group: Group, index: int, count: int) -> Generator[Phase, None, None]:
    """The weights of one base out of ``count``, and how far all of them are."""
    yield Phase("engine.phase.quantise", index / count)
    for share in group.read():
        yield Phase("engine.phase.quantise", (index + share) / count)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    """Of what computes here."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _device_is_lost(error: BaseException) -> bool:
    """A CUDA fault other than running out of memory: nothing in this process can use the device any more."""
    return isinstance(error, torch.AcceleratorError) and not _out_of_memory(error)
