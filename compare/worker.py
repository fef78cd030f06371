"""The local engine in a process of its own, so that a CUDA fault or an out-of-memory kill costs one answer.

Covers: starting the process, a pipe of typed messages, cancelling, noticing its death, starting again with what was
loaded. Does not cover: what the engine does; this module never imports torch, only its child does. POSIX only.

Requests are (number, method, arguments), answers (number, event); the event None ends a request and a UserError fails
it. Answers to requests nobody waits for any more are skipped.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from assets.errors import UserError
from assets.files import Workspace
from assets.priority import step_back
from compare.engine import Changes, ChangesAsked, Delta, Done, Loaded, LoadSpec, Message, Phase, Sampling
from compare.turn import turn
from compare.worker_process import Child, Died

Health = Literal["stopped", "loading", "answering", "ready"]
LOCAL_ENGINE = "compare.local_engine:LocalEngine"
_PR_SET_PDEATHSIG = 1


class WorkerEngine:
    """Engine in a child process. Thread-safe: one load or stream at a time, the others wait; ``cancel`` from anywhere.

    ``log`` gets the child's output. ``target`` names the child's engine class as "module:class"; it is called with the
    workspace. A dead child is replaced at the next request, with the same things loaded.
    """

    def __init__(self, workspace: Workspace, log: Path, target: str = LOCAL_ENGINE) -> None:
        self._workspace, self._log, self._target = workspace, log, target
        self._numbers = itertools.count(1)
        self._busy = threading.Lock()
        self._state = threading.Lock()
        self._child: Child | None = None
        self._doing: tuple[Literal["loading", "answering"], int] | None = None
        self._spec: LoadSpec | None = None
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded | None:
        """What the next stream answers with; it stays when the child dies, as it comes back by itself."""
        return self._loaded

    @property
    def health(self) -> Health:
        doing, child = self._doing, self._child
        if doing is not None:
            return doing[0]
        return "ready" if child is not None and child.alive and self._loaded is not None else "stopped"

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        child = self._child
        return child.process.pid if child is not None and child.alive else None

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """See Engine. Closing early or ``cancel`` kills the child; the latter raises "engine.load_cancelled"."""
        with turn(self._busy):
            self._forget()
            try:
                yield from self._load(spec)
            except Died as death:
                self._forget()
                self._drop()
                raise UserError(death.key or "engine.load_cancelled") from death
            except GeneratorExit:
                self._drop()
                raise

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        """See Engine. When the child dies each open answer ends in Done("error", "engine.died" or "…out_of_memory")."""
        with turn(self._busy):
            open_ = dict.fromkeys(turns)
            try:
                self._bring_back()
                for event in self._ask("answering", "stream", dict(turns), system, sampling):
                    if isinstance(event, Done):
                        del open_[event.arm]
                    yield event
            except Died as death:
                self._drop()
                for arm in open_:
                    yield Done(arm, "error", error=death.key) if death.key else Done(arm, "cancelled")

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        """See Engine. UserError("engine.died") when the child dies over it."""
        with turn(self._busy):
            try:
                self._bring_back()
                yield from self._ask("answering", "changes", asked)
            except Died as death:
                self._drop()
                raise UserError(death.key or "engine.not_loaded") from death

    def cancel(self) -> None:
        with self._state:
            child, doing = self._child, self._doing
        if child is None or doing is None:
            return
        if doing[0] == "loading":
            child.kill()
        elif child.alive:
            try:
                child.send(doing[1], "cancel", ())
            except Died:
                return  # whoever waits for the answer learns of it from the pipe

    def rest(self) -> None:
        """End the child, as ``unload`` does, and load the same things again at the next request."""
        child = self._child
        if child is not None:
            child.kill()

    def unload(self) -> None:
        """End the child: the system takes all its memory back. Running answers end as cancelled."""
        self._forget()
        self.rest()

    def _load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        yield Phase("engine.phase.start")
        child = self._running()
        child.holds = None
        for event in self._ask("loading", "load", spec):
            if isinstance(event, Loaded):
                child.holds = spec
                with self._state:
                    self._spec, self._loaded = spec, event
            yield event

    def _bring_back(self) -> None:
        """Load again what a child that is gone had loaded. UserError when it is not the same any more."""
        spec, before = self._spec, self._loaded
        if spec is None or before is None:
            raise UserError("engine.not_loaded")
        if self._running().holds is spec:
            return
        for _ in self._load(spec):
            pass
        if self._loaded is not None and self._loaded.arms != before.arms:
            self.unload()
            raise UserError("engine.files_changed")

    def _forget(self) -> None:
        with self._state:
            self._spec, self._loaded = None, None

    def _ask(self, doing: Literal["loading", "answering"], method: str, *arguments: Any) -> Iterator[Any]:
        """One request and its events. Died when the child goes away; closing early tells it to stop."""
        child, number = self._running(), next(self._numbers)
        with self._state:
            self._doing = (doing, number)
        try:
            child.send(number, method, arguments)
            while True:
                answered, event = child.receive()
                if answered != number:
                    continue
                if event is None:
                    return
                if isinstance(event, UserError):
                    raise event
                yield event
        except GeneratorExit:
            self.cancel()
            raise
        finally:
            with self._state:
                self._doing = None

    def _running(self) -> Child:
        with self._state:
            if self._child is not None and not self._child.alive:
                self._child.close()
                self._child = None
            if self._child is None:
                self._child = Child(self._target, self._workspace, self._log)
            return self._child

    def _drop(self) -> None:
        with self._state:
            child, self._child = self._child, None
        if child is not None:
            child.close()


class _Server:
    """The child's side: requests one after the other, cancelling from a thread that only listens."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._requests: queue.SimpleQueue[tuple[int, str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._current = 0
        self._cancelled: set[int] = set()

    def listen(self) -> None:
        """Until the parent is gone; then so is this process, whatever it was doing."""
        while True:
            try:
                number, method, arguments = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if method != "cancel":
                self._requests.put((number, method, arguments))
                continue
            with self._lock:
                self._cancelled.add(number)
                if self._current == number:
                    self._engine.cancel()

    def serve(self, engine: Any) -> None:
        self._engine = engine
        while True:
            number, method, arguments = self._requests.get()
            try:
                with self._lock:
                    events = getattr(engine, method)(*arguments)
                    self._current = number
                    if number in self._cancelled:
                        engine.cancel()
                for event in events:
                    self._pipe.send((number, event))
                self._pipe.send((number, None))
            except UserError as error:
                self._pipe.send((number, error))
            finally:
                with self._lock:
                    self._current = 0
                    self._cancelled.discard(number)


def main(descriptor: int, target: str) -> None:
    """The child. Whatever the engine does not handle ends this process, with the traceback in the log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    step_back()
    server = _Server(Connection(descriptor))
    threading.Thread(target=server.listen, name="listen", daemon=True).start()
    module, name = target.split(":")
    server.serve(getattr(importlib.import_module(module), name)(Workspace.from_environment()))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
