"""What tests.gpu.presets measures: methods, ranks, rates, seeds and data, in the order of what they teach; and its table.

Covers: points as plain data, the spec of each, the table from measured rows. Does not cover: running them (presets.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from finetune import rates
from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec
from finetune.spec_parts import Method

SEEDS = (0, 1, 2)
BATCH, LENGTH, HELDOUT = 16, 256, 300
SYSTEM = "너는 다정한 친구야. 한국어로 짧게 답해."
HEAD = "| setting | learning rate | held-out loss | seeds | against full | forgetting | trained M | peak GB | s |"
RULE = "|---|---:|---:|---:|---:|---:|---:|---:|---:|"


@dataclass(frozen=True)
class Setting:
    """One way to train. ``rates``: the advised one first. ``compensated``: the adapter begins as what NF4 took away."""

    name: str
    method: Method
    rates: tuple[float, ...]
    lora: LoraSpec = LoraSpec()
    compensated: bool = False


def _adapter(name: str, method: Method, rank: int, more: tuple[float, ...] = (0.5, 2.0), **lora: Any) -> Setting:
    """At the advised rate and at multiples of it."""
    compensated = bool(lora.pop("compensated", False))
    shape = LoraSpec(rank, 2 * rank, **lora)
    rate = rates.rounded(rates.base(method, shape))
    return Setting(name, method, (rate, *(rates.rounded(rate * factor) for factor in more)), shape, compensated)


SETTINGS: tuple[Setting, ...] = (
    Setting("full", "full", (1e-4, 5e-5, 3e-4)),
    _adapter("qlora-r64", "qlora", 64, (0.2, 0.5, 2.0)),
    _adapter("lora-r64", "lora", 64),
    Setting("lora-r8-qv", "lora", (2e-4, 3e-3), LoraSpec(8, 16, targets=rates.QV)),
    _adapter("qlora-r16", "qlora", 16),
    _adapter("lora-r16", "lora", 16),
    _adapter("qlora-r128", "qlora", 128),
    _adapter("lora-r128", "lora", 128),
    _adapter("qlora-r64-compensated", "qlora", 64, compensated=True),
    _adapter("qlora-r128-compensated", "qlora", 128, compensated=True),
    _adapter("qlora-r64-rslora", "qlora", 64, (2.0, 5.0), rslora=True),
    _adapter("qlora-r64-dora", "qlora", 64, dora=True),
    _adapter("lora-r64-dora", "lora", 64, dora=True),
)
DATA: tuple[tuple[str, int], ...] = (("chatbot", 1), ("emotion", 2), ("science", 2), ("chatbot", 3))
"""Data and passes over it."""


@dataclass(frozen=True)
class Point:
    data: str
    passes: int
    setting: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-x{self.passes}-{self.setting}-{self.rate:g}-s{self.seed}"


def points(data: Iterable[str], seeds: Sequence[int] = SEEDS, only: Sequence[str] = ()) -> list[Point]:
    """The advised rates with all seeds on every data set first, then the other rates. ``only`` those with one of the words
    in their name."""
    there = [(name, passes) for name, passes in DATA if name in set(data)]
    depth = max(len(setting.rates) for setting in SETTINGS)
    every = [
        Point(name, passes, setting.name, setting.rates[nth], seed)
        for nth in range(depth)
        for name, passes in there
        for seed in seeds
        for setting in SETTINGS
        if nth < len(setting.rates)
    ]
    return [point for point in every if not only or any(word in point.name for word in only)]


def setting_of(point: Point) -> Setting:
    return next(setting for setting in SETTINGS if setting.name == point.setting)


def spec_of(point: Point, model: str, tiny: bool = False) -> TrainSpec:
    """The run of a point. ``tiny``: ranks and steps that a model of two layers can take, whose figures mean nothing."""
    setting = setting_of(point)
    lora = setting.lora
    if tiny:
        lora = LoraSpec(**{**asdict(lora), "rank": max(1, lora.rank // 8), "alpha": max(2, lora.alpha // 8)})
    schedule = ScheduleSpec(
        steps=2 if tiny else 0,
        epochs=point.passes,
        micro_batch=2 if tiny else BATCH,
        accumulation=1,
        learning_rate=point.rate,
        warmup=0.05,
        max_grad_norm=1.0,
        max_length=128 if tiny else LENGTH,
        checkpointing=False,
        seed=point.seed,
    )
    return TrainSpec(
        ModelSpec(model),
        data_of(point.data, tiny),
        name=point.name,
        method=setting.method,
        lora=lora,
        schedule=schedule,
        watch=WatchSpec(every=10**6 if not tiny else 2, examples=4 if tiny else HELDOUT, samples=0, keep=1),
    )


def data_of(name: str, tiny: bool) -> DataSpec:
    if tiny or name == "chatbot":
        share = 0.25 if tiny else HELDOUT / (HELDOUT + 1600)
        return DataSpec(f"{name}.jsonl", "file", heldout=share, system=SYSTEM)
    return DataSpec(f"naranhi/{name}-ko")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One table per data set and number of passes: mean and spread over seeds, the best full fine-tuning as 100 %."""
    measured = [row for row in rows if "loss" in row]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in measured:
        groups[row["data"], row["passes"]].append(row)
    parts = [_one(f"{data}, {passes} passes", found) for (data, passes), found in groups.items()]
    failed = [f"failed: {row['name']}: {row['why']}" for row in rows if "why" in row]
    return "\n\n".join([*parts, *(["\n".join(failed)] if failed else [])])


def _one(title: str, rows: Sequence[dict[str, Any]]) -> str:
    by: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by[row["setting"], row["rate"]].append(row)
    losses = {key: mean(row["loss"] for row in found) for key, found in by.items()}
    full = min((loss for (name, _), loss in losses.items() if name == "full"), default=None)
    order = {setting.name: place for place, setting in enumerate(SETTINGS)}
    keys = sorted(by, key=lambda key: (order.get(key[0], len(order)), key[1]))
    lines = [_line(key, by[key], losses[key], full) for key in keys]
    return "\n".join([f"{title}{_before(rows)}", "", HEAD, RULE, *lines])


def _before(rows: Sequence[dict[str, Any]]) -> str:
    """The losses of the untouched model, which four bits change; an adapter that begins with a correction is another."""
    plain = [row for row in rows if "lost" not in row]
    four = [row["untouched"] for row in plain if row["setting"].startswith("qlora")]
    whole = [row["untouched"] for row in plain if not row["setting"].startswith("qlora")]
    told = [f"{name} {mean(found):.3f}" for name, found in (("16 bits", whole), ("NF4", four)) if found]
    return f" (before training: {', '.join(told)})" if told else ""


def _line(key: tuple[str, float], rows: Sequence[dict[str, Any]], loss: float, full: float | None) -> str:
    spread = f" ± {stdev(row['loss'] for row in rows):.3f}" if len(rows) > 1 else ""
    against = "" if full is None else f"{(loss / full - 1) * 100:+.1f} %"
    forgot = [change for row in rows for change in row["forgot"].values()]
    cells = [
        key[0],
        f"{key[1]:g}",
        f"{loss:.3f}{spread}",
        str(len(rows)),
        against,
        f"{mean(forgot) * 100:+.1f} %" if forgot else "",
        f"{rows[0]['trained'] / 1e6:.1f}",
        f"{max(row['memory'] for row in rows) / 1e9:.1f}",
        f"{mean(row['seconds'] for row in rows):.0f}",
    ]
    return f"| {' | '.join(cells)} |"
