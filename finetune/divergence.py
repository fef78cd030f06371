"""When a run has gone wrong: a loss that is no number, or one that leaves where it was and does not come back.

Covers: the rule, step by step, and how much slower the next attempt should learn. Does not cover: what is done about it
(train_back.py). Plain numbers: no torch.

The rule: a step is bad when its loss is above ``FACTOR`` times the median of the last ``WINDOW`` good ones and above the
first loss of the run; ``PATIENCE`` bad steps one after the other are a divergence, fewer are noise. In float16 the
gradients of single steps overflow by design (the scaler leaves such a step out and halves its scale), so there only
``OVERFLOWS`` in a row count.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from assets.errors import UserError

FACTOR = 2.0
WINDOW = 25
PATIENCE = 5
OVERFLOWS = 20


@dataclass(frozen=True)
class Trouble:
    """``kind`` is "not_a_number" or "diverged"; ``since`` the first step whose loss was bad: the weights before that step
    are bad already, so checkpoints up to ``since`` - 2 are good."""

    kind: str
    step: int
    since: int
    loss: float = math.nan
    usual: float = math.nan

    def error(self, rate: float) -> UserError:
        """For a run that has nothing to go back to; ``rate`` is the learning rate to begin again with."""
        if self.kind == "diverged":
            seen = {"loss": f"{self.loss:.2f}", "usual": f"{self.usual:.2f}"}
            return UserError("train.diverged", step=self.step, rate=rate, **seen)
        return UserError("train.not_a_number", step=self.step, rate=rate)


class Losses:
    """The losses of a run as they come."""

    def __init__(self, scaled: bool = False) -> None:
        self._allowed = OVERFLOWS if scaled else 0
        self._overflows = 0
        self._good: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None
        self._bad = 0
        self._since = 0

    @property
    def suspicious(self) -> bool:
        """Whether the newest steps are bad, so that older checkpoints must not be thrown away."""
        return self._bad > 0 or self._overflows > 0

    def look(self, step: int, loss: float, norm: float) -> Trouble | None:
        """One step's loss and gradient norm."""
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        if not math.isfinite(loss) or self._overflows > self._allowed:
            return Trouble("not_a_number", step, step)
        self._first = loss if self._first is None else self._first
        usual = median(self._good) if self._good else loss
        if loss <= FACTOR * usual or loss <= self._first:
            self._good.append(loss)
            self._bad = 0
            return None
        self._bad += 1
        self._since = step if self._bad == 1 else self._since
        return Trouble("diverged", step, self._since, loss, usual) if self._bad >= PATIENCE else None

    def evaluated(self, step: int, loss: float) -> Trouble | None:
        """The held-out loss with the weights after ``step``."""
        return None if math.isfinite(loss) else Trouble("not_a_number", step, step + 1)


def slower(rate: float) -> float:
    """Half the learning rate, in two digits."""
    return float(f"{rate / 2:.1e}")
