"""The learning rate to begin with: by method, rank and the model's size, with where it comes from and what is known to be poor.

Covers: one rule, the measurements that it stands on, doubts about a rate that somebody picked, what to try after a run has
diverged. Does not cover: noticing a divergence (divergence.py) or words (views_rates.py).

The rule goes through every best rate of MEASURED; REPEATED has those rates over several seeds. Full fine-tuning takes 1e-4;
an adapter takes ADAPTER at rank 16 and less with the square root of a larger rank, as long as its scale (alpha / rank) is 2,
and in inverse proportion to any other scale. Everything else is extrapolated: larger models by 1 / width (the rule for hidden
matrices under Adam of Yang et al., Tensor Programs V, 2022), preferences at a twentieth, and half of it for steps that see
fewer than SMALL_STEP conversations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from finetune.divergence import slower
from finetune.memory import Shape
from finetune.spec import TrainSpec
from finetune.spec_parts import LoraSpec, Method

Basis = Literal["measured", "near", "size"]
"""This very setting on this very size; other settings on this size; another size."""


@dataclass(frozen=True)
class Point:
    """Runs of the starter model: 1,600 conversations once, 100 steps of 16, cosine, alpha = 2 rank, 300 held-out
    conversations. ``loss`` is the held-out one per answer token, the mean over ``seeds``; ``rank`` 0 where nothing has one."""

    method: Method
    rank: int
    targets: str
    rate: float
    loss: float
    seeds: int = 1


QV, ALL = "q_proj,v_proj", "all-linear"
MEASURED = (
    Point("full", 0, "", 5e-5, 1.095),
    Point("full", 0, "", 1e-4, 1.0505),
    Point("full", 0, "", 3e-4, 1.052),
    Point("lora", 8, QV, 2e-4, 1.527),
    Point("lora", 8, QV, 3e-3, 1.187),
    Point("lora", 16, ALL, 2e-3, 1.051),
    Point("lora", 64, ALL, 1e-3, 1.038),
    Point("qlora", 16, ALL, 2e-3, 1.084),
    Point("qlora", 64, ALL, 2e-4, 1.172),
    Point("qlora", 64, ALL, 5e-4, 1.099),
    Point("qlora", 64, ALL, 1e-3, 1.066),
    Point("qlora", 64, ALL, 2e-3, 1.076),
)
"""Which rate: one seed, H100, 2026-11-23."""
REPEATED = (
    Point("full", 0, "", 1e-4, 1.061, 3),
    Point("lora", 8, QV, 2e-4, 1.542, 3),
    Point("lora", 16, ALL, 2e-3, 1.065, 3),
    Point("lora", 64, ALL, 1e-3, 1.048, 2),
    Point("lora", 128, ALL, 7e-4, 1.044, 3),
    Point("qlora", 16, ALL, 2e-3, 1.094, 3),
    Point("qlora", 64, ALL, 1e-3, 1.077, 2),
    Point("qlora", 128, ALL, 7e-4, 1.069, 3),
)
"""How certain: H200, 2026-11-25, tests/gpu/presets.py. The losses before training were others there (2.046 against 2.005 in 16
bits), so that losses compare within one of the two tables only."""
WIDTH = 576  # of the starter, on which all of them were measured
FULL, ADAPTER, HIGHEST = 1e-4, 2e-3, 3e-3
PREFERENCE = 1 / 20
SMALL_STEP = 4
ROUND = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)
LOW, HIGH = 4.0, 3.5
"""Times below or above the advised rate from which a rate is doubted. A fifth cost QLoRA 10 % of its loss, half 3 %; three
times as much did full fine-tuning no harm, and more was never tried."""


@dataclass(frozen=True)
class Advice:
    rate: float
    basis: Basis
    halved: bool = False


@dataclass(frozen=True)
class Doubt:
    """A rate that is ``times`` too low or too high. ``point`` is a measured run that shows it, ``better`` the same
    setting at its best rate."""

    kind: Literal["low", "high"]
    times: float
    advised: float
    point: Point | None = None
    better: Point | None = None


def advise(spec: TrainSpec, shape: Shape) -> Advice:
    """The rate for this run, in one or two digits."""
    rate = base(spec.method, spec.lora) * min(1.0, WIDTH / shape.hidden)
    if spec.objective != "sft":
        rate *= PREFERENCE
    halved = spec.schedule.micro_batch * spec.schedule.accumulation < SMALL_STEP
    rate = rounded(rate / 2 if halved else rate)
    return Advice(rate, _basis(spec, shape, rate), halved)


def base(method: Method, lora: LoraSpec) -> float:
    """The rate on the starter for plain fine-tuning in steps of enough conversations, not rounded."""
    if method == "full":
        return FULL
    scale = lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)
    return min(HIGHEST, ADAPTER * math.sqrt(16 / lora.rank) * 2 / scale)


def rounded(rate: float) -> float:
    """The nearest of 1, 1.5, 2, 3, 5, 7 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10(rate))
    best = min(ROUND, key=lambda digit: abs(math.log(rate / unit / digit)))
    return float(f"{best * unit:.1e}")


def advised(spec: TrainSpec, shape: Shape) -> TrainSpec:
    """The same run at the advised rate."""
    return replace(spec, schedule=replace(spec.schedule, learning_rate=advise(spec, shape).rate))


def _basis(spec: TrainSpec, shape: Shape, rate: float) -> Basis:
    if shape.hidden != WIDTH:
        return "size"
    plain = spec.objective == "sft" and not (spec.lora.dora or spec.lora.rslora)
    scaled = spec.method == "full" or spec.lora.alpha == 2 * spec.lora.rank
    enough = spec.schedule.micro_batch * spec.schedule.accumulation >= SMALL_STEP
    known = any(math.isclose(point.rate, rate) for point in _like(spec, (*MEASURED, *REPEATED)))
    return "measured" if plain and scaled and enough and known else "near"


def _like(spec: TrainSpec, among: Sequence[Point] = MEASURED) -> list[Point]:
    """Measured runs with the same method, rank and targets."""
    if spec.method == "full":
        return [point for point in among if point.method == "full"]
    wanted = (spec.method, spec.lora.rank, targets(spec.lora))
    return [point for point in among if (point.method, point.rank, set(point.targets.split(","))) == wanted]


def targets(lora: LoraSpec) -> set[str]:
    return {name.strip() for name in lora.targets.split(",") if name.strip()}


def doubt(spec: TrainSpec, shape: Shape) -> Doubt | None:
    """Why the run's rate is known, or has to be feared, to be a poor one; None when nothing speaks against it."""
    rate, good = spec.schedule.learning_rate, advise(spec, shape).rate
    if rate > good * HIGH:
        return Doubt("high", rate / good, good)
    if rate * LOW > good:
        return None
    same = _like(spec) if shape.hidden == WIDTH and spec.objective == "sft" else []
    point = next((p for p in same if math.isclose(p.rate, rate)), None)
    better = min(same, key=lambda p: p.loss) if point else None
    return Doubt("low", good / rate, good, point, better)


def narrow(spec: TrainSpec) -> float | None:
    """By how much more than full fine-tuning an adapter on q and v alone lost at its best rate, as a share of the loss; None
    for runs that adapt more."""
    if spec.method == "full" or not targets(spec.lora) <= set(QV.split(",")):
        return None
    return lowest("lora", QV).loss / lowest("full", "").loss - 1


def lowest(method: Method, on: str) -> Point:
    """The best measured run of a method on these targets."""
    return min((p for p in MEASURED if p.method == method and p.targets == on), key=lambda p: p.loss)


def calmer(spec: TrainSpec, shape: Shape | None) -> float:
    """What to try when a run went wrong at its rate: half of it, or what is advised where that is lower still."""
    half = slower(spec.schedule.learning_rate)
    return half if shape is None else min(half, advise(spec, shape).rate)


def shape_in(config: dict[str, Any]) -> Shape | None:
    """A model's shape from its config.json; None where it is no decoder of the usual kind."""
    try:
        return Shape.from_config(config)
    except KeyError:
        return None
