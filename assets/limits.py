"""How often somebody may do something.

Covers: token buckets by key, with a bound on how many keys are remembered. Does not cover: who somebody is (access.py,
gate.py).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

_KEYS = 20_000


@dataclass
class Limit:
    """``burst`` at once, ``rate`` per second in the long run, for each key apart. Thread-safe."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def take(self, key: str) -> float:
        """0 when it is allowed (and counted), else the seconds until the next one is."""
        return self._ask(key, 1.0)

    def wait(self, key: str) -> float:
        """As ``take``, without counting."""
        return self._ask(key, 0.0)

    def _ask(self, key: str, cost: float) -> float:
        now = self.clock()
        with self._lock:
            left, since = self._left.pop(key, (self.burst, now))
            left = min(self.burst, left + (now - since) * self.rate)
            allowed = left >= 1
            self._left[key] = (left - cost if allowed else left, now)
            while len(self._left) > _KEYS:
                self._left.popitem(last=False)
            return 0.0 if allowed else (1 - left) / self.rate


@dataclass(frozen=True)
class Limits:
    """For people who are not the owner. ``answers``: each address; ``all_answers``: all of them together, so that
    addresses that are easy to come by do not take the machine; ``calls``: requests of an address, a room full of raters
    behind one router included; ``attempts``: guesses of the owner's password."""

    answers: Limit
    all_answers: Limit
    calls: Limit
    attempts: Limit

    @classmethod
    def usual(cls, per_minute: float = 6) -> Limits:
        """``per_minute``: comparisons that a visitor may ask for."""
        return cls(
            answers=Limit(per_minute / 60, max(1.0, per_minute)),
            all_answers=Limit(per_minute * 5 / 60, max(1.0, per_minute * 5)),
            calls=Limit(40, 400),
            attempts=Limit(5 / 60, 5),
        )

    def answer(self, who: str) -> float:
        """0 when this visitor may have the models answer now, else the seconds to wait."""
        return self.answers.take(who) or self.all_answers.take("")
