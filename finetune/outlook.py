"""What is said of a run before it starts: how long, by when, how many steps in the time that there is, download and disk.

Covers: putting forecast, needs and budget together for the form. Does not cover: each of them (forecast.py, needs.py,
budget.py) or the words (views_time.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from assets.errors import UserError
from finetune import budget, needs, preference_data
from finetune.forecast import SPREAD, Forecast, Rows, forecast, speed
from finetune.gpu import Machine
from finetune.memory import Shape
from finetune.needs import Needs
from finetune.plan import LaunchPlan
from finetune.services import TrainServices
from finetune.spec import TrainSpec


@dataclass(frozen=True)
class Outlook:
    """``until`` is when the run has to end (seconds since 1970), None without a budget; ``now`` when this was made."""

    forecast: Forecast | None
    needs: Needs
    now: float
    until: float | None = None

    @property
    def budget(self) -> float | None:
        return None if self.until is None else max(0.0, self.until - self.now)

    @property
    def span(self) -> tuple[float, float] | None:
        """Seconds from the start to the end, the budget counted in, downloads not."""
        if self.forecast is None:
            return None
        most = self.budget if self.budget is not None else self.forecast.high
        return min(self.forecast.low, most), min(self.forecast.high, most)

    @property
    def steps(self) -> tuple[int, int] | None:
        """How many steps the budget leaves, at least and at most; None when nobody knows."""
        if self.forecast is None or self.budget is None:
            return None
        low, high = SPREAD[self.forecast.basis]
        slow = self.budget - self.needs.seconds[1]
        fast = self.budget - self.needs.seconds[0]
        return self.forecast.steps_within(slow / high), self.forecast.steps_within(fast / low)


def look(
    spec: TrainSpec, plan: LaunchPlan, shape: Shape, machine: Machine, services: TrainServices, now: float
) -> Outlook:
    """Without the model's tokenizer at hand the time is not known. UserErrors of reading data."""
    wants = needs.needs(spec, plan, shape, services.jobs, machine.disk_free)
    until = budget.deadline(spec.budget.minutes, spec.budget.until, now, now)
    rows = _rows(spec, services)
    length = rows.mean_length(spec.schedule.max_length) if rows else 0.0
    found = speed(services.history.runs(), spec, plan, shape, machine, length)
    if found is None or rows is None:
        return Outlook(None, wants, now, until)
    return Outlook(forecast(spec, rows, found, plan.processes), wants, now, until)


def _rows(spec: TrainSpec, services: TrainServices) -> Rows | None:
    try:
        reading = services.readings.get(spec)
    except UserError as error:
        if error.key.startswith("hub."):  # a model that cannot be had (yet): what it would need is told all the same
            return None
        raise
    source = reading.source
    return Rows(preference_data.rows_of(spec, source.train), reading.counts.lengths, len(source.heldout))
