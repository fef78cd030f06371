"""What to train, as plain data.

Covers: TrainSpec and its parts, what must hold between them, and the YAML that a person can read, edit and run. Does
not cover: where it runs (plan.py) or whether it fits (memory.py).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from assets.errors import UserError
from finetune import spec_rules
from finetune.budget import is_time
from finetune.spec_parts import (
    LOSSES,
    BudgetSpec,
    ClusterSpec,
    DataKind,
    DataSpec,
    HardwareSpec,
    LoraSpec,
    Loss,
    Method,
    ModelSpec,
    Objective,
    Placement,
    Precision,
    PreferenceSpec,
    RescueSpec,
    Scheduler,
    ScheduleSpec,
    WatchSpec,
)

__all__ = [
    "BudgetSpec",
    "ClusterSpec",
    "DataKind",
    "DataSpec",
    "HardwareSpec",
    "LOSSES",
    "LoraSpec",
    "Loss",
    "Method",
    "ModelSpec",
    "Objective",
    "Placement",
    "Precision",
    "PreferenceSpec",
    "RECIPES",
    "RescueSpec",
    "ScheduleSpec",
    "Scheduler",
    "TrainSpec",
    "VERSION",
    "WatchSpec",
    "from_dict",
    "from_yaml",
    "get_args",
    "recipes",
    "renamed",
    "with_recipe",
]

VERSION = 1


@dataclass(frozen=True)
class TrainSpec:
    """One run. Building it checks what must hold; UserError("spec.…") names the first thing that does not.

    ``start`` is the adapter to go on from, a folder below the workspace or an absolute one; "" begins with a fresh one.
    Learning from preferences holds the model to it, or to the plain base.
    """

    model: ModelSpec
    data: DataSpec
    name: str = ""
    method: Method = "qlora"
    lora: LoraSpec = LoraSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    watch: WatchSpec = WatchSpec()
    hardware: HardwareSpec = HardwareSpec()
    cluster: ClusterSpec = ClusterSpec()
    objective: Objective = "sft"
    start: str = ""
    preference: PreferenceSpec = PreferenceSpec()
    budget: BudgetSpec = BudgetSpec()
    rescue: RescueSpec = RescueSpec()
    version: int = VERSION

    def __post_init__(self) -> None:
        if not self.model.id.strip():
            raise UserError("spec.no_model")
        if not self.data.id.strip():
            raise UserError("spec.no_data")
        for value, allowed, key in _choices(self):
            if value not in allowed:
                raise UserError("spec.choice", field=key, value=value, allowed=", ".join(allowed))
        for number, low, high, key in _ranges(self):
            if not math.isfinite(number) or not low <= number <= high:
                raise UserError("spec.range", field=key, value=number, low=f"{low:g}", high=f"{high:g}")
        if not self.schedule.steps and self.schedule.epochs <= 0:
            raise UserError("spec.no_length")
        if self.budget.until and not is_time(self.budget.until):
            raise UserError("spec.until", until=self.budget.until)
        spec_rules.check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_yaml(self) -> str:
        return yaml.dump(self.to_dict(), Dumper=_Dumper, allow_unicode=True, sort_keys=False)

    @property
    def loss(self) -> str:
        """The loss by TRL's name, "auto" resolved."""
        chosen = self.preference.loss
        return chosen if chosen != "auto" else {"dpo": "sigmoid", "kto": "kto"}.get(self.objective, "nll")

    @property
    def tokens_per_step(self) -> int:
        """The most tokens one optimiser step of one process sees."""
        return self.schedule.micro_batch * self.schedule.accumulation * self.schedule.max_length


class _Dumper(yaml.SafeDumper):
    """Quotes text with line ends other than \\n, which come back changed from plain YAML."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if {"\x85", "\u2028", "\u2029"} & set(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _choices(spec: TrainSpec) -> list[tuple[str, tuple[str, ...], str]]:
    return [
        (spec.method, get_args(Method), "method"),
        (spec.objective, get_args(Objective), "objective"),
        (spec.preference.loss, get_args(Loss), "loss"),
        (spec.data.kind, get_args(DataKind), "data"),
        (spec.hardware.placement, get_args(Placement), "placement"),
        (spec.hardware.precision, get_args(Precision), "precision"),
        (spec.schedule.scheduler, get_args(Scheduler), "scheduler"),
    ]


def _ranges(spec: TrainSpec) -> list[tuple[float, float, float, str]]:
    lora, schedule, watch, preference = spec.lora, spec.schedule, spec.watch, spec.preference
    return [
        (preference.beta, 1e-4, 10, "beta"),
        (preference.noise, 1e-4, 0.49, "noise"),
        (preference.sft_weight, 0, 100, "sft_weight"),
        (preference.desirable_weight, 0.01, 100, "desirable_weight"),
        (preference.undesirable_weight, 0.01, 100, "undesirable_weight"),
        (preference.max_prompt, 0, 1_048_576, "max_prompt"),
        (schedule.learning_rate, 1e-8, 0.1, "learning_rate"),
        (lora.rank, 1, 1024, "rank"),
        (lora.alpha, 1, 4096, "alpha"),
        (lora.dropout, 0, 0.9, "dropout"),
        (schedule.steps, 0, 1_000_000, "steps"),
        (schedule.epochs, 0, 1000, "epochs"),
        (schedule.micro_batch, 1, 512, "micro_batch"),
        (schedule.accumulation, 1, 4096, "accumulation"),
        (schedule.max_length, 16, 1_048_576, "max_length"),
        (schedule.warmup, 0, 0.9, "warmup"),
        (schedule.weight_decay, 0, 10, "weight_decay"),
        (schedule.max_grad_norm, 1e-6, 1e6, "max_grad_norm"),
        (schedule.seed, 0, 2**31 - 1, "seed"),
        (spec.data.heldout, 0, 0.9, "heldout"),
        (watch.every, 0, 1_000_000, "every"),
        (watch.examples, 1, 100_000, "examples"),
        (watch.samples, 0, 32, "samples"),
        (watch.sample_tokens, 1, 2048, "sample_tokens"),
        (watch.keep, 1, 100, "keep"),
        (watch.patience, 0, 1000, "patience"),
        (spec.budget.minutes, 0, 100_000, "minutes"),
        (spec.rescue.tries, 1, 10, "tries"),
        (spec.cluster.machines, 1, 1024, "machines"),
        (spec.cluster.rank, 0, spec.cluster.machines - 1, "cluster.rank"),
        (spec.cluster.port, 1, 65535, "port"),
    ]


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            raise UserError("spec.unknown_field", field=f"{where}{key}")
    ready = dict(values)
    for name, part in _PARTS.items() if kind is TrainSpec else ():
        if name in ready and not isinstance(ready[name], dict):
            raise UserError("spec.not_entries", field=name)
        if name in ready:
            ready[name] = _build(part, ready[name], f"{name}.")
    for name, value in ready.items():
        ready[name] = _cast(value, str(known[name].type), f"{where}{name}")
    return kind(**ready)


def _cast(value: Any, annotation: str, where: str) -> Any:
    """YAML reads 1e-3 as text and 1 as a whole number; both will do where a number is meant, as 0 does for a GPU."""
    if is_dataclass(value):
        return value
    try:
        if annotation == "float":
            return float(value)
        if annotation == "int":
            if isinstance(value, float) and not value.is_integer():
                raise ValueError(value)
            return int(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError("spec.not_a_number", field=where, value=value) from None
    if annotation == "bool" and not isinstance(value, bool):
        raise UserError("spec.choice", field=where, value=value, allowed="true, false")
    if annotation.startswith("dict"):
        return _texts(value, where)
    if annotation.startswith("str") and not (value is None and annotation.endswith("None")):
        return _text(value, where)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError("spec.not_text", field=where, value=value)
    return str(value)


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UserError("spec.not_entries", field=where)
    return {_text(k, where): _text(v, f"{where}.{k}") for k, v in value.items()}


_PARTS: dict[str, type[Any]] = {
    "model": ModelSpec,
    "data": DataSpec,
    "lora": LoraSpec,
    "preference": PreferenceSpec,
    "schedule": ScheduleSpec,
    "watch": WatchSpec,
    "hardware": HardwareSpec,
    "cluster": ClusterSpec,
    "budget": BudgetSpec,
    "rescue": RescueSpec,
}


def from_dict(values: dict[str, Any]) -> TrainSpec:
    """A spec from what ``to_dict`` made, of this or an older version. UserError on anything unknown or out of range."""
    version = values.get("version", VERSION)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise UserError("spec.version", version=version, known=VERSION)
    for part in ("model", "data"):
        if not isinstance(values.get(part), dict) or "id" not in values[part]:
            raise UserError(f"spec.no_{part}")
    return TrainSpec(**vars(_build(TrainSpec, {**values, "version": VERSION}, "")))


def from_yaml(text: str) -> TrainSpec:
    """A spec from YAML. UserError("spec.yaml") when the text is not a YAML mapping."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError("spec.yaml", reason=str(error)) from error
    if not isinstance(values, dict):
        raise UserError("spec.yaml", reason=type(values).__name__)
    return from_dict(values)


RECIPES = Path(__file__).parent / "recipes"


@cache
def recipes() -> dict[str, dict[str, Any]]:
    """The presets by name, in the order they are offered: the values that each one sets."""
    found = {f.stem: yaml.safe_load(f.read_text(encoding="utf-8")) for f in RECIPES.glob("*.yaml")}
    ordered = sorted(found, key=lambda name: found[name]["order"])
    return {name: {k: v for k, v in found[name].items() if k != "order"} for name in ordered}


def with_recipe(name: str, model: ModelSpec, data: DataSpec) -> TrainSpec:
    """A preset applied to a model and data."""
    return from_dict({**recipes()[name], "model": asdict(model), "data": asdict(data)})


def renamed(spec: TrainSpec, name: str) -> TrainSpec:
    return replace(spec, name=name)
