"""The engine that computes here: transformers and bitsandbytes, one decode loop per base.

Covers: loading arms by base, streaming text of all arms at the same time, time and reasons, recovery from errors. Does
not cover: a process of its own (worker.py puts this class into one).
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from assets.chat import ChatFormat, TextStream
from assets.errors import UserError
from assets.files import Workspace
from assets.hub import ModelFiles, locate, readable_errors
from assets.quantised import find_copy, source_of
from compare.decode import CHUNK, Decoder, Step
from compare.decode_check import PROMPT, check_panes, combine
from compare.engine import Arm, ArmInfo, Delta, Done, Loaded, LoadSpec, Message, Phase, Reason, Sampling
from compare.local_model import load_model, memory_held, pick_device
from compare.row_lora import Adapter, read_adapter

log = logging.getLogger(__name__)
CPU_CHUNK = 64
LIBRARIES = ("torch", "transformers", "bitsandbytes")


@dataclass
class _Group:
    """The arms of one base. Row i answers for ``arms[i]``."""

    files: ModelFiles
    arms: list[Arm]
    formats: dict[str, ChatFormat] = field(default_factory=dict)
    adapters: list[Adapter | None] = field(default_factory=list)
    decoder: Decoder | None = None


class _Answer:
    """Text and times of one arm's answer while it is being written."""

    def __init__(self, arm: str, text: TextStream, started: float) -> None:
        self.arm = arm
        self._text = text
        self._started = started
        self._first = self._last = started
        self._tokens = 0

    def push(self, token: int) -> list[Delta | Done]:
        self._last = time.monotonic()
        if self._tokens == 0:
            self._first = self._last
        self._tokens += 1
        return self._deltas(self._text.push(token))

    def end(self, reason: Reason, error: str | None = None) -> list[Delta | Done]:
        text = self._text.flush()
        rest = self._deltas(text if reason == "stop" else text.rstrip("\ufffd"))  # a limit may cut a syllable in two
        spent = self._last - self._first
        speed = (self._tokens - 1) / spent if spent > 0 else 0.0
        first = self._first - self._started
        return [*rest, Done(self.arm, reason, self._tokens, first, speed, error)]

    def _deltas(self, text: str) -> list[Delta | Done]:
        return [Delta(self.arm, text)] if text else []


class LocalEngine:
    """Engine over transformers and bitsandbytes, in this process. One request at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._groups: list[_Group] = []
        self._loaded: Loaded | None = None
        self._cancelled = threading.Event()

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        self.unload()
        try:
            yield from self._load(spec)
        except (UserError, GeneratorExit):
            self.unload()
            raise
        except Exception as error:
            self.unload()
            if _device_is_lost(error):
                raise
            log.exception("loading failed")
            if _out_of_memory(error):
                raise UserError("engine.out_of_memory") from error
            raise UserError("engine.load_failed", reason=f"{type(error).__name__}: {error}") from error

    def _load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        device = pick_device(spec.device)
        yield Phase("engine.phase.read")
        self._groups = [_Group(locate(self._workspace, base), arms) for base, arms in _by_base(spec.arms).items()]
        for group in self._groups:
            for arm in group.arms:
                group.formats[arm.key] = ChatFormat.from_folder(group.files.folder, spec.templates.get(arm.key))
        models = []
        for i, group in enumerate(self._groups):
            yield Phase("engine.phase.quantise", i / len(self._groups))
            reading = load_model(_weights(self._workspace, group.files, spec.quantise), spec.quantise, device)
            models.append((yield from _phases(reading, i, len(self._groups))))
        yield Phase("engine.phase.adapters")
        for group, model in zip(self._groups, models, strict=True):
            read: dict[str | None, Adapter | None] = {None: None}
            for arm in group.arms:
                if arm.adapter not in read:
                    folder = _adapter_folder(str(arm.adapter))
                    read[arm.adapter] = read_adapter(folder, model, _adapter_dtype(model, device))
            group.adapters = [read[arm.adapter] for arm in group.arms]
            group.decoder = Decoder(model, group.adapters, CHUNK if device.type == "cuda" else CPU_CHUNK)
            if group.decoder.unknown_layers:
                raise UserError("engine.unknown_architecture", model=group.files.id)
        yield Phase("engine.phase.check")
        checks = [
            check_panes(_decoder(group), group.adapters, group.formats[group.arms[0].key].encode_prompt(PROMPT))
            for group in self._groups
        ]
        infos = {arm.key: info for group in self._groups for arm, info in _infos(group)}
        self._loaded = Loaded(str(device), memory_held(device), infos, combine(checks), _versions())
        yield self._loaded

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        if self._loaded is None:
            raise UserError("engine.not_loaded")
        prompts = [self._encode(group, turns, system) for group in self._groups]
        self._cancelled = threading.Event()  # one per request: a late cancel cannot end the next one
        started = time.monotonic()
        running = [
            self._answer(group, rows, sampling, started, self._cancelled)
            for group, rows in zip(self._groups, prompts, strict=True)
            if rows
        ]
        return _alternate(running)

    def cancel(self) -> None:
        self._cancelled.set()

    def unload(self) -> None:
        self._groups, self._loaded = [], None
        _release()

    def _encode(
        self, group: _Group, turns: Mapping[str, Sequence[Message]], system: str | None
    ) -> dict[int, list[int]]:
        prompts = {}
        for row, arm in enumerate(group.arms):
            if arm.key not in turns:
                continue
            ids = group.formats[arm.key].encode_prompt([dict(turn) for turn in turns[arm.key]], system)
            if not ids:
                raise UserError("engine.empty_prompt")
            if len(ids) >= _decoder(group).context:
                raise UserError("engine.prompt_too_long", tokens=len(ids), limit=_decoder(group).context)
            prompts[row] = ids
        return prompts

    def _answer(
        self,
        group: _Group,
        prompts: dict[int, list[int]],
        sampling: Sampling,
        started: float,
        cancelled: threading.Event,
    ) -> Generator[list[Delta | Done], None, None]:
        """Events per step of one base. Whatever goes wrong, every arm gets its Done and nothing is left behind."""
        formats = {row: group.formats[group.arms[row].key] for row in prompts}
        open_ = {row: _Answer(group.arms[row].key, formats[row].stream(), started) for row in prompts}
        stops = {row: frozenset(formats[row].stop_ids) for row in prompts}
        steps = _decoder(group).answer(prompts, sampling, stops)
        try:
            for step in steps:
                yield _events(step, open_)
                if cancelled.is_set():
                    break
            yield _end_all(open_, "cancelled")
        except Exception as error:
            log.exception("an answer failed")
            if _device_is_lost(error):
                raise
            _release()
            yield _end_all(open_, "error", "engine.out_of_memory" if _out_of_memory(error) else "engine.failed")
        finally:
            steps.close()


def _events(step: Step, open_: dict[int, _Answer]) -> list[Delta | Done]:
    events = [event for row, token in step.tokens.items() for event in open_[row].push(token)]
    for row, reason in step.ended.items():
        events += open_.pop(row).end(reason)
    return events


def _end_all(open_: dict[int, _Answer], reason: Reason, error: str | None = None) -> list[Delta | Done]:
    events = [event for answer in open_.values() for event in answer.end(reason, error)]
    open_.clear()
    return events


def _alternate(running: Sequence[Generator[list[Delta | Done], None, None]]) -> Iterator[Delta | Done]:
    """One step of each in turn, so that all of them stream at the same time."""
    left = list(running)
    try:
        while left:
            for answers in list(left):
                events = next(answers, None)
                if events is None:
                    left.remove(answers)
                else:
                    yield from events
    finally:
        for answers in running:
            answers.close()


def _phases(reading: Generator[float, None, Any], index: int, count: int) -> Generator[Phase, None, Any]:
    try:
        while True:
            try:
                share = next(reading)
            except StopIteration as end:
                return end.value
            yield Phase("engine.phase.quantise", (index + share) / count)
    finally:
        reading.close()


def _by_base(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    bases: dict[str, list[Arm]] = {}
    for arm in arms:
        bases.setdefault(arm.base, []).append(arm)
    return bases


def _decoder(group: _Group) -> Decoder:
    assert group.decoder is not None
    return group.decoder


def _adapter_dtype(model: Any, device: torch.device) -> torch.dtype:
    dtype: torch.dtype = model.dtype if device.type == "cuda" else torch.float32
    return dtype


def _adapter_folder(name: str) -> Path:
    """A folder, or a download of the few files of an adapter. UserError when there is no such thing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise UserError("engine.adapter_not_found", adapter=folder.name)
    from huggingface_hub import snapshot_download

    with readable_errors(name):
        return Path(snapshot_download(name, allow_patterns=["adapter_*.safetensors", "adapter_config.json"]))


def _weights(workspace: Workspace, files: ModelFiles, quantise: bool) -> ModelFiles:
    """The copy in 4 bits that training made of this very model, if there is one: the bytes it was trained against."""
    copy = find_copy(workspace, files) if quantise else None
    return replace(files, folder=copy) if copy else files


def _infos(group: _Group) -> Iterator[tuple[Arm, ArmInfo]]:
    revision = source_of(group.files)
    for arm, adapter in zip(group.arms, group.adapters, strict=True):
        template = group.formats[arm.key].template_hash
        proof = (adapter.sha256, adapter.parameters) if adapter else (None, 0)
        yield arm, ArmInfo(template, revision, *proof)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return versions


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _device_is_lost(error: BaseException) -> bool:
    """A CUDA fault other than running out of memory: nothing in this process can use the device any more."""
    return isinstance(error, torch.AcceleratorError) and not _out_of_memory(error)
