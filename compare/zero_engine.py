"""The engine on ZeroGPU, which lends a GPU for the length of one call of a function that it knows from the start.

Covers: weights and adapters in this process's memory, from which every call's process is forked; one call for both
answers and how long it may take; cancelling; what ZeroGPU refuses, as sentences. Does not cover: what is computed
(zero_room.py), where it is used (assets/place.py). This module never imports torch; the room it makes does.

As read in the source of `spaces` 0.51.3: a call runs in a fork of this process, made then or left from an earlier call
while the GPU stayed lent. Its arguments and what it yields cross as pickles, of an exception only the name does, and
nothing that it loads is there in the next one. So models are read here, outside of any call and of anybody's quota, and
a fork that is older than they are ends itself and is replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import mmap
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from assets.errors import UserError
from assets.files import Workspace
from compare.engine import (
    Changes,
    ChangesAsked,
    Delta,
    Done,
    Loaded,
    LoadSpec,
    Message,
    Phase,
    Sampling,
)
from compare.turn import turn

log = logging.getLogger(__name__)
# Bytes of the half card that is lent by default, as ZeroGPU itself counts before it lends a whole one.
MEMORY = 42 * 2**30
LEAST, MOST = 15, 180  # seconds
_WATCH = 0.05
_STALE = "stale"
_TITLE = "ZeroGPU"
_AGAIN = re.compile(r"Try again in ([0-9][0-9 a-z,:]*)")
_KEYS = {
    "ZeroGPU quota exceeded": "zero.quota",
    "ZeroGPU pending credits exceeded": "zero.pending",
    "ZeroGPU illegal duration": "zero.too_long",
    "ZeroGPU queue timeout": "zero.no_gpu",
    "ZeroGPU client error": "zero.no_gpu",
}
_NO_GPU = "No GPU was available"
_ABORTED = "GPU task aborted"


class Room(Protocol):
    """Where it is computed. ``load`` fills this process's memory, all others run in the process that has the GPU."""

    @property
    def weight_bytes(self) -> int: ...

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]: ...

    def settle(self) -> Iterator[Loaded]: ...

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]: ...

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]: ...

    def cancel(self) -> None: ...

    def unload(self) -> None: ...


@dataclass(frozen=True)
class Call:
    """What crosses to the process with the GPU. ``pair`` is the number of the loading that it is about."""

    number: int
    pair: int
    method: Literal["settle", "stream", "changes"]
    arguments: tuple[Any, ...]
    seconds: int


class _StaleWorker(Exception):
    """The fork is older than the models; raising it makes `spaces` let go of it."""


class ZeroEngine:
    """Engine in this process. Thread-safe: one request at a time, the others wait; ``cancel`` from anywhere.

    ``gpu`` is ``spaces.GPU``; it must be given before the app is launched, which is when ZeroGPU looks for functions.
    Whose quota a call uses is known from gradio's request: threads that call must carry its context.
    """

    def __init__(
        self, workspace: Workspace, gpu: Callable[..., Any], room: Callable[[Workspace], Room] | None = None
    ) -> None:
        self._workspace, self._make = workspace, room or _room
        self._call: Callable[[Call], Generator[Any, None, None]] = gpu(duration=_seconds)(self._run)
        self._numbers = itertools.count(1)
        self._pairs = itertools.count(1)
        self._busy = threading.Lock()
        self._cancelled = _Shared()
        self._running = 0
        self._reading = threading.Event()
        self._pair = 0
        self._room: Room | None = None
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """See Engine. Reading takes nothing of the quota, the check at its end a few seconds."""
        with turn(self._busy):
            self._forget()
            self._reading = threading.Event()
            yield Phase("engine.phase.start")
            try:
                loaded = yield from self._load(spec)
            except BaseException:  # also when it is closed: half a pair must not answer
                self._forget()
                raise
            self._loaded = loaded
            yield loaded

    def _load(self, spec: LoadSpec) -> Generator[Phase, None, Loaded]:
        room = self._make(self._workspace)
        for event in room.load(spec):
            if self._reading.is_set():
                raise UserError("engine.load_cancelled")
            if isinstance(event, Phase):
                yield event
        if room.weight_bytes > MEMORY:
            raise UserError("zero.too_large")
        self._room, self._pair = room, next(self._pairs)
        yield Phase("engine.phase.check")
        seconds = call_seconds("settle", room.weight_bytes, 0)
        found = [event for event in self._ask("settle", (), seconds) if isinstance(event, Loaded)]
        if self._reading.is_set() or not found:
            raise UserError("engine.load_cancelled")
        return found[-1]

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        """See Engine. UserError("zero.…") when no GPU is lent; one that is taken away ends the answers as errors. The wait
        for a GPU counts as part of the wait for an answer."""
        with turn(self._busy):
            seconds = call_seconds("stream", self._bytes(), sampling.max_new_tokens)
            open_ = dict.fromkeys(turns)
            begun, started, first = False, time.monotonic(), dict[str, float]()
            events = self._ask("stream", (dict(turns), system, sampling), seconds)
            try:
                for event in events:
                    begun = True
                    waited = first.setdefault(event.arm, time.monotonic() - started)
                    if isinstance(event, Done):
                        open_.pop(event.arm, None)
                        event = replace(event, seconds_to_first=waited if event.tokens else 0.0)
                    yield event
            except UserError as error:
                if not begun:
                    raise
                log.warning("a call ended early: %s", error.key)
                for arm in open_:
                    yield Done(arm, "error", error="engine.failed" if error.key == "engine.failed" else "zero.aborted")
            finally:
                events.close()

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        with turn(self._busy):
            yield from self._ask("changes", (asked,), call_seconds("changes", self._bytes(), 0))

    def cancel(self) -> None:
        self._reading.set()
        self._cancelled.value = self._running

    def rest(self) -> None:
        """Nothing to give back: between calls no GPU is held, and reading the weights again would take minutes."""

    def unload(self) -> None:
        self.cancel()
        self._forget()

    def _forget(self) -> None:
        room, self._room, self._loaded, self._pair = self._room, None, None, 0
        if room is not None:
            room.unload()

    def _bytes(self) -> int:
        if self._room is None or self._loaded is None:
            raise UserError("engine.not_loaded")
        return self._room.weight_bytes

    def _ask(
        self, method: Literal["settle", "stream", "changes"], arguments: tuple[Any, ...], seconds: int
    ) -> Generator[Any, None, None]:
        """One call and its events. A fork that is too old is replaced once, by one that is not."""
        self._running = next(self._numbers)
        call = Call(self._running, self._pair, method, arguments, seconds)
        try:
            if not (yield from self._events(call)) and not (yield from self._events(call)):
                raise UserError("zero.failed", reason=_StaleWorker.__name__)
        finally:
            self._running = 0

    def _events(self, call: Call) -> Generator[Any, None, bool]:
        """False for a fork that is older than the pair. UserErrors for what ZeroGPU refuses or breaks off."""
        with contextlib.closing(self._call(call)) as events:
            try:
                for event in events:
                    if event == _STALE:
                        return False
                    if isinstance(event, UserError):
                        raise event
                    yield event
            except GeneratorExit:
                self._cancelled.value = call.number
                raise
            except UserError:
                raise
            except Exception as error:
                raise refusal(error) from error
        return True

    def _run(self, call: Call) -> Generator[Any, None, None]:
        """In the process that has the GPU: everything of this engine is as it was when that was forked."""
        if call.pair != self._pair or self._room is None:
            yield _STALE
            _end_soon()
            raise _StaleWorker
        with self._watched(call.number, self._room.cancel):
            try:
                yield from getattr(self._room, call.method)(*call.arguments)
            except UserError as error:  # as a value: raised, only its name would arrive
                yield error

    @contextmanager
    def _watched(self, number: int, cancel: Callable[[], None]) -> Iterator[None]:
        """Call ``cancel`` as soon as the app's process has cancelled this call."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_WATCH):
                if self._cancelled.value == number:
                    cancel()

        thread = threading.Thread(target=watch, name="watch-cancel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Shared:
    """A number that forks see change. Without a lock: one that dies over it would leave it taken for good."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int(struct.unpack_from("=q", self._bytes)[0])

    @value.setter
    def value(self, number: int) -> None:
        struct.pack_into("=q", self._bytes, 0, number)


def call_seconds(method: str, weight_bytes: int, tokens: int) -> int:
    """How long to ask a GPU for: a process and CUDA, the weights' way onto the card, the check, a step per token.

    ``tokens`` of one answer, as both are drawn in the same steps. Rounded up to five seconds, at least LEAST and at most
    MOST. What is not used is given back; the parts are guesses on the slow side until a live Space has been timed
    (tests/live_space.py prints what its calls took).
    """
    start, move, check = 8.0, weight_bytes / 2e9, (10.0 if method == "settle" else 0.0)
    step = 0.02 + weight_bytes / 200e9
    return max(LEAST, min(MOST, 5 * math.ceil((start + move + check + tokens * step) / 5)))


def _seconds(call: Call) -> int:
    return call.seconds


def refusal(error: Exception) -> UserError:
    """What ZeroGPU raised, as a sentence. It raises gradio's errors with English texts, told apart by their titles."""
    title, said = str(getattr(error, "title", "")), str(getattr(error, "message", "") or error)
    if not title.startswith(_TITLE):
        log.error("ZeroGPU failed", exc_info=error)
        return UserError("zero.failed", reason=f"{type(error).__name__}: {error}")
    log.warning("%s: %s", title, said)
    if _NO_GPU in said:
        return UserError("zero.no_gpu")
    again = _AGAIN.search(said)
    if title == "ZeroGPU quota exceeded" and again:
        return UserError("zero.quota_until", wait=again[1].strip())
    if title in _KEYS:
        return UserError(_KEYS[title])
    return UserError("zero.aborted" if said == _ABORTED else "engine.failed")  # else the name of what was raised there


def _end_soon() -> None:
    """This fork would keep its share of the GPU's memory; it ends once what it has said is on its way."""
    timer = threading.Timer(1.0, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _room(workspace: Workspace) -> Room:
    from compare.zero_room import ZeroRoom

    return ZeroRoom(workspace)
