"""A scriptable engine for tests of the page. It keeps the protocol of the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from assets.errors import UserError
from compare.engine import (
    PHASES,
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
    Reason,
    Sampling,
    TokenChange,
)


@dataclass
class FakeEngine:
    """An Engine that says what it is told to.

    ``answers`` are the texts by arm key, said syllable by syllable with ``pause`` seconds between; ``reasons`` how they
    end. ``load_error`` and ``stream_error`` are raised instead. ``asked`` and ``specs`` keep every request.
    """

    answers: dict[str, str] = field(default_factory=lambda: {"a": "원본의 답이에요.", "b": "튜닝한 답이에요."})
    reasons: dict[str, Reason] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    load_pause: float = 0.0
    load_error: Exception | None = None
    stream_error: Exception | None = None
    asked: list[tuple[dict[str, list[Message]], str | None, Sampling]] = field(default_factory=list)
    specs: list[LoadSpec] = field(default_factory=list)
    compared: list[ChangesAsked] = field(default_factory=list)
    rests: int = 0
    running: int = 0
    most_running: int = 0
    _loaded: Loaded | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        self._loaded = None
        self._cancelled.clear()
        self.specs.append(spec)
        for key in PHASES:
            yield Phase(key, 0.5)
            if self._cancelled.wait(self.load_pause):
                raise UserError("engine.load_cancelled")
        if self.load_error is not None:
            raise self.load_error
        infos = {
            arm.key: ArmInfo("0123456789abcdef", "rev1", "f" * 64 if arm.adapter else None, 1000 if arm.adapter else 0)
            for arm in spec.arms
        }
        check = PaneCheck(base_error=1e-6, adapter_error=2e-6, difference=0.3, tolerance=1e-3)
        self._loaded = Loaded("cpu", 300 * 2**20, infos, check, {"torch": "2.13.0"})
        yield self._loaded

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        if self._loaded is None:
            raise UserError("engine.not_loaded")
        if self.stream_error is not None:
            raise self.stream_error
        self.asked.append(({key: list(messages) for key, messages in turns.items()}, system, sampling))
        self._cancelled.clear()
        return self._stream(list(turns))

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        """Every letter is a token; those that both answers share are as likely under both."""
        if self._loaded is None:
            raise UserError("engine.not_loaded")
        self.compared.append(asked)
        base, tuned = asked.answers[asked.base], asked.answers[asked.tuned]
        same = [i < len(base) and base[i] == letter for i, letter in enumerate(tuned)]
        tokens = tuple(
            TokenChange(letter, 0.01 if alike else 1.5, 0.2, 0.2 if alike else 0.9)
            for letter, alike in zip(tuned, same, strict=True)
        )
        yield Changes(tokens, None if base == tuned else (*same, False).index(False), (9.0, 4.5))

    def rest(self) -> None:
        self.rests += 1

    def cancel(self) -> None:
        self._cancelled.set()

    def unload(self) -> None:
        self._loaded = None
        self._cancelled.set()

    def _stream(self, arms: list[str]) -> Iterator[Delta | Done]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        left = {arm: list(self.answers.get(arm, "")) for arm in arms}
        spoken = dict.fromkeys(arms, 0)
        started = time.monotonic()
        try:
            while left:
                if self._cancelled.wait(self.pause) if self.pause else self._cancelled.is_set():
                    yield from (Done(arm, "cancelled", spoken[arm]) for arm in left)
                    return
                for arm in list(left):
                    if left[arm]:
                        yield Delta(arm, left[arm].pop(0))
                        spoken[arm] += 1
                        continue
                    del left[arm]
                    speed = spoken[arm] / max(time.monotonic() - started, 1e-3)
                    yield Done(arm, self.reasons.get(arm, "stop"), spoken[arm], 0.4, speed, self.errors.get(arm))
        finally:
            self.running -= 1
