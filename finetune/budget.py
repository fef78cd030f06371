"""A run's time: by when it has to end, and how many steps fit until then.

Covers: the moment that a budget means, and the rule by which a run shortens itself and ends in time. Does not cover: how
long a run would take (forecast.py) or the trainer that is told (train_time.py). Plain numbers: no torch, no files.

The rule: once ``MEASURED`` steps are known, after twice as many, and so on up to ten times a run, the number of steps becomes
what fits before the deadline with the last evaluation and save, never more than were asked for; the learning rate's course
ends there. A run that is about to overrun all the same ends at once, with that evaluation and save.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from statistics import mean

MEASURED = 4
RECENT = 200
STALLED = 0.05  # share of the slowest steps that do not count when planning: a machine that was held up for a moment
EARLY = 0.2  # of the run; later on it only becomes shorter, since the learning rate would jump up
MARGIN = 1.25  # the last evaluation and save may take this much longer than those before
LEAST_END = 3.0  # seconds for an end that was never measured
SPARE = 0.98
EVALUATIONS = 5


def is_time(text: str) -> bool:
    try:
        time.fromisoformat(text)
    except ValueError:
        return False
    return True


def moment(until: str, now: float) -> float:
    """When it is next ``until`` o'clock, in seconds since 1970. ValueError for what is no time of day."""
    clock = time.fromisoformat(until)
    here = datetime.fromtimestamp(now, clock.tzinfo)
    found = here.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return (found if found > here else found + timedelta(days=1)).timestamp()


def deadline(minutes: float, until: str, asked: float, began: float) -> float | None:
    """When a run has to be over that was ``asked`` for and ``began`` at these moments; None: whenever it is done."""
    found = [moment(until, asked)] if until else []
    return min([*found, began + 60 * minutes]) if minutes else min(found, default=None)


@dataclass(frozen=True)
class Look:
    """What a run does after a step: end now, or go on to ``total`` steps with an evaluation every ``every``."""

    end: bool
    total: int
    every: int


class Clock:
    """The seconds a run has taken so far, and what follows from them. Times are seconds since 1970."""

    def __init__(self, deadline: float, total: int, every: int, spread: bool, at_end: float = 0.0) -> None:
        """``spread``: evaluations are spread over the run (five of them), not every so many steps. ``at_end``: seconds
        of what else comes after the last step."""
        self._deadline = deadline
        self._asked = self._total = total
        self._every = every
        self._spread = spread
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._seen = 0
        self._next = MEASURED
        self._at_end = at_end
        self._evaluation = self._save = 0.0

    def evaluated(self, seconds: float) -> None:
        self._evaluation = max(seconds, self._evaluation * 0.7)

    def saved(self, seconds: float) -> None:
        self._save = max(seconds, self._save * 0.7)

    def step(self, number: int, seconds: float, now: float, evaluates: bool) -> Look:
        """After step ``number``, which took ``seconds``; ``evaluates``: an evaluation and a save come next anyway."""
        self._seen += 1
        if self._seen != 2 or len(self._steps) != 1:
            self._steps.append(seconds)
        else:  # the first step compiles, allocates and fills caches
            self._steps[0] = seconds
        left = self._deadline - now - self._end()
        after = left - (self._evaluation + self._save if evaluates else 0.0)
        if after < max(list(self._steps)[-10:]) * 1.1 and number < self._total:
            return Look(True, number, self._every)
        if self._seen >= self._next:
            self._next = self._seen + max(1, min(self._seen, self._total // 10))
            self._plan(number, left)
        return Look(False, self._total, self._every)

    def _end(self) -> float:
        return max(LEAST_END, (self._evaluation + 2 * self._save + self._at_end) * MARGIN)

    def _plan(self, number: int, left: float) -> None:
        """What fits. Early in the run a total that was cut may grow back, by a tenth or more."""
        kept = sorted(self._steps)[: max(1, len(self._steps) - round(STALLED * len(self._steps)))]
        each = mean(kept)
        between = self._evaluation + self._save
        if self._spread:
            room = max(0.0, left - (EVALUATIONS - 1) * between)
            dense = room > 0.6 * left
            fits = number + int((room if dense else left) * SPARE / each)
        else:
            dense = True
            fits = number + int(left * SPARE / (each + between / self._every))
        total = min(self._asked, max(fits, number + 1))
        if total < self._total or (total > 1.1 * self._total and number < EARLY * self._total):
            self._total = total
            if self._spread:
                self._every = max(1, total // EVALUATIONS) if dense else total
