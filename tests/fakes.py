"""Fakes that behave like the real thing as far as the page and the worker can tell."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import Lease, acquire
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


class ScriptedEngine:
    """An Engine without a model. The last message of a conversation is its script.

    "slow" writes a word every 10 ms up to ``max_new_tokens``; "hang" never answers; "crash" raises in mid-answer;
    "exit" ends the process; anything else is answered word by word with the same words. A base called "missing" cannot
    be loaded, "hang" never finishes loading and "broken" raises something unforeseen; "gpu" needs the lease "gpu-0".
    """

    def __init__(self, workspace: Workspace | None = None, pause: float = 0.01) -> None:
        self.workspace = workspace
        self.loaded: Loaded | None = None
        self._lease: Lease | None = None
        self._pause = pause
        self._cancelled = threading.Event()

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        self.loaded = None
        yield Phase("engine.phase.read")
        for arm in spec.arms:
            if arm.base == "missing":
                raise UserError("engine.adapter_not_found", adapter=arm.base)
            if arm.base == "gpu" and self.workspace is not None and self._lease is None:
                self._lease = acquire(self.workspace, ("gpu-0",), {"kind": "engine"})
                if self._lease is None:
                    raise UserError("engine.gpu_busy", name="x")
            if arm.base == "broken":
                raise ZeroDivisionError("unforeseen")
            while arm.base == "hang":
                time.sleep(0.01)
        yield Phase("engine.phase.check", 0.5)
        changed = self.workspace is not None and (self.workspace.root / "other").exists()
        infos = {
            a.key: ArmInfo("0" * 16, f"local:{int(changed)}", "f" * 64 if a.adapter else None, 8) for a in spec.arms
        }
        self.loaded = Loaded("cpu", 1 << 20, infos, PaneCheck(0.0, 0.0, 0.5, 0.05), {"pid": str(os.getpid())})
        yield self.loaded

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        if self.loaded is None:
            raise UserError("engine.not_loaded")
        self._cancelled = threading.Event()
        return self._stream({arm: messages[-1]["content"] for arm, messages in turns.items()}, sampling)

    def _stream(self, scripts: Mapping[str, str], sampling: Sampling) -> Iterator[Delta | Done]:
        cancelled, left = self._cancelled, dict(scripts)
        words = {arm: ["말 "] * sampling.max_new_tokens if s == "slow" else s.split() for arm, s in scripts.items()}
        for place in range(sampling.max_new_tokens + 1):
            for arm, script in list(left.items()):
                while script == "hang" and not cancelled.is_set():
                    time.sleep(0.005)
                if script == "exit":
                    os._exit(3)
                if script == "crash" and place == 1:
                    raise ZeroDivisionError("unforeseen")
                if cancelled.is_set() or place >= len(words[arm]):
                    del left[arm]
                    yield Done(arm, "cancelled" if cancelled.is_set() else "stop", place, 0.01, 50.0)
                else:
                    yield Delta(arm, words[arm][place])
            if not left:
                return
            time.sleep(self._pause)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        if asked.reference == "exit":
            os._exit(3)
        yield Changes((), None, None)

    def rest(self) -> None:
        self.unload()

    def cancel(self) -> None:
        self._cancelled.set()

    def unload(self) -> None:
        self.loaded = None
