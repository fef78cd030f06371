"""How long a run will take, from what this machine has done before.

Covers: a range of seconds from what the run will see and how fast earlier runs here were: the same model with the same
settings, the same model, another model by its arithmetic; before the first run from the card's data sheet, or for the starter
on CPUs a speed per core; the steps that fit a time. Does not cover: downloads (needs.py). None means: nothing comparable
has run here yet, on a card that nobody knows.

How far off these are is measured: tests/bench/bench_forecast.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from assets.catalog import STARTER, find_model
from finetune.forecast_card import rate as card_rate
from finetune.gpu import Machine
from finetune.history import Ran
from finetune.memory import Shape, sequences
from finetune.plan import LaunchPlan
from finetune.spec import TrainSpec

STARTER_PER_CORE = 75.0  # tokens a second and core, NF4 with rank 16 (2 cores of an AVX-512 server CPU, 2026-11-23)
EVALUATION = 3.0  # held-out tokens go about this much faster than trained ones
ANSWERING = 6.0  # and tokens of answers, one after the other, this much slower
START = 25.0  # seconds to import, load and quantise a small model, and to save at the end
WORK = {"sft": 3.0, "dpo": 4.0, "kto": 6.0}
"""Passes per token, a backward one counting twice: DPO adds the reference, KTO two more of each for its baseline."""
SPREAD = {
    "same": (0.8, 1.3),
    "like": (0.7, 1.5),
    "other": (0.5, 2.0),
    "usual": (0.6, 1.8),
    "card": (0.4, 2.0),
}
"""Where the speed comes from -> the range around it."""
FEW = 5  # runs beyond the newest few tell more of how the machine was than of how it is


@dataclass(frozen=True)
class Speed:
    """Tokens a second of all processes. ``basis`` is a key of SPREAD, ``runs`` what it was taken from."""

    rate: float
    basis: str
    runs: tuple[Ran, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """Seconds as a range around ``middle``; ``step`` and ``evaluation`` are the seconds of one, ``around`` the rest."""

    low: float
    middle: float
    high: float
    steps: int
    step: float
    evaluation: float
    around: float
    basis: str

    @property
    def span(self) -> tuple[float, float]:
        return self.low, self.high

    def steps_within(self, seconds: float) -> int:
        """How many of the steps end, with an evaluation and a save, within that time; 0 when none does."""
        room = seconds - self.around - 6 * self.evaluation
        return min(self.steps, max(0, int(room / self.step)))


@dataclass(frozen=True)
class Rows:
    """What a run will see: how many rows, and the lengths of a sample of them in tokens."""

    count: int
    lengths: Sequence[int]
    heldout: int | None = None

    def mean_length(self, limit: int) -> float:
        return mean(min(length, limit) for length in self.lengths) if self.lengths else 0.0


def speed(
    history: Sequence[Ran], spec: TrainSpec, plan: LaunchPlan, shape: Shape, machine: Machine, length: float
) -> Speed | None:
    """From the runs most like this one; of runs with another objective by how much more or less they do per token.
    ``length`` is the mean one of a conversation, in tokens."""
    placed = [r for r in history if r.placement == plan.placement and r.processes == plan.processes]
    same_model = [r for r in placed if r.spec.model.id == spec.model.id and r.spec.method == spec.method]
    alike = tuple(r for r in same_model if _settings(r.spec) == _settings(spec))[:FEW]
    if alike:
        return Speed(_usual([r.rate for r in alike]), "same", alike)
    if same_model:
        found = tuple(same_model[:FEW])
        return Speed(_usual([_for(spec, r.spec, r.rate) for r in found]), "like", found)
    if spec.model.id == STARTER and plan.placement == "cpu":
        return Speed(STARTER_PER_CORE * machine.cores * WORK["sft"] / WORK[spec.objective], "usual")
    return _by_arithmetic(placed, spec, shape) or _by_card(spec, plan, shape, machine, length)


def _by_arithmetic(placed: Sequence[Ran], spec: TrainSpec, shape: Shape) -> Speed | None:
    """From other models: a token costs as many multiplications as the model has weights that it passes through."""
    known = [(r, find_model(r.spec.model.id)) for r in placed if r.spec.method == spec.method]
    rates = [
        _for(spec, r.spec, r.rate) * passed(Shape.of(card.shape, card.model_type)) / passed(shape)
        for r, card in known[:FEW]
        if card is not None
    ]
    return Speed(_usual(rates), "other") if rates else None


def _by_card(spec: TrainSpec, plan: LaunchPlan, shape: Shape, machine: Machine, length: float) -> Speed | None:
    names = [gpu.name for gpu in machine.gpus if gpu.index in plan.gpus]
    found = card_rate(names, spec, shape, passed(shape), min(length, spec.schedule.max_length))
    return Speed(found, "card") if found else None


def passed(shape: Shape) -> int:
    """Weights that every token is multiplied with: the blocks and the head."""
    return shape.linear + shape.vocab * shape.hidden


def _usual(rates: Sequence[float]) -> float:
    """The newest run says most about how the machine is now, and no single one is trusted."""
    return (rates[0] + median(rates)) / 2


def _for(spec: TrainSpec, other: TrainSpec, rate: float) -> float:
    checkpointing = (4 / 3 if other.schedule.checkpointing else 1.0) / (4 / 3 if spec.schedule.checkpointing else 1.0)
    return rate * checkpointing * WORK[other.objective] / WORK[spec.objective]


def _settings(spec: TrainSpec) -> tuple[object, ...]:
    """What the speed per token depends on."""
    schedule = spec.schedule
    return spec.objective, schedule.micro_batch, schedule.max_length, schedule.packing, schedule.checkpointing


def forecast(spec: TrainSpec, rows: Rows, found: Speed | None, processes: int = 1) -> Forecast | None:
    """The range for a run over ``rows``. A preference pair is a row whose length is that of one of its answers with the
    prompt."""
    if found is None or not rows.count:
        return None
    length = rows.mean_length(spec.schedule.max_length) * sequences(spec)
    schedule = spec.schedule
    batch = schedule.micro_batch * schedule.accumulation * processes
    steps = schedule.steps or max(1, round(-(-rows.count // batch) * schedule.epochs))
    step = batch * length / found.rate
    evaluation = _evaluation(spec, rows, length, found)
    around = _around(found)
    every = spec.watch.every or max(1, steps // 5)
    middle = around + steps * step + (steps // every + 1 + (steps % every > 0)) * evaluation
    low, high = _spread(found)
    return Forecast(middle * low, middle, middle * high, steps, step, evaluation, around, found.basis)


def _evaluation(spec: TrainSpec, rows: Rows, length: float, found: Speed) -> float:
    """Seconds of one, by the rule of thumb, times what that rule was off by in the runs that are like this one."""
    examples = spec.watch.examples if rows.heldout is None else min(spec.watch.examples, rows.heldout)
    off = [
        r.evaluation / guess
        for r in found.runs
        if r.evaluation and (guess := thumb(r.spec, min(r.spec.watch.examples, r.heldout), r.length, r.rate)) > 0
    ]
    return thumb(spec, examples, length, found.rate) * (median(off) if off else 1.0)


def thumb(spec: TrainSpec, examples: int, length: float, rate: float) -> float:
    """Seconds of an evaluation as a rule of thumb."""
    answers = spec.watch.samples * spec.watch.sample_tokens
    return examples * length / (rate * EVALUATION) + answers * ANSWERING / rate


def _around(found: Speed) -> float:
    known = [r.around for r in found.runs if r.around is not None]
    return median(known) if known else START


def _spread(found: Speed) -> tuple[float, float]:
    """Wider where the runs behind it differ more among themselves."""
    low, high = SPREAD[found.basis]
    rates = [r.rate for r in found.runs]
    if found.basis == "same" and len(rates) >= 3:
        return min(low, found.rate / max(rates)), max(high, found.rate / min(rates))
    return low, high
