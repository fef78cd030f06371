"""The parts of a training run as plain data: model, data, adapter, preferences, schedule, watching, hardware.

Covers: the fields, their defaults and the words they may take. Does not cover: what must hold between them (spec.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["qlora", "qlora8", "lora", "full"]
"""An adapter on a base in NF4, in 8 bits (LLM.int8) or in 16 bits; or every weight of the model itself."""
Objective = Literal["sft", "dpo", "kto"]
Loss = Literal["auto", "sigmoid", "ipo", "hinge", "robust", "apo_zero", "kto", "apo_zero_unpaired"]
LOSSES: dict[str, tuple[str, ...]] = {
    "sft": ("auto",),
    "dpo": ("auto", "sigmoid", "ipo", "hinge", "robust", "apo_zero"),
    "kto": ("auto", "kto", "apo_zero_unpaired"),
}
"""Objective -> the losses of TRL's trainer for it that need nothing but pairs; "auto" is the paper's own."""
DataKind = Literal["builtin", "file", "hub", "preferences"]
Placement = Literal["auto", "single", "ddp", "fsdp"]
Precision = Literal["auto", "bfloat16", "float16", "float32"]
Scheduler = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class ModelSpec:
    """The model to start from. ``id`` is a Hub id or a folder; ``template`` is a Jinja text that replaces its own."""

    id: str
    revision: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class DataSpec:
    """Where the conversations come from: a built-in name, an uploaded file, a Hub dataset, or a file made of votes."""

    id: str
    kind: DataKind = "builtin"
    split: str = "train"
    revision: str | None = None
    shape: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    heldout: float = 0.1
    system: str = ""


@dataclass(frozen=True)
class LoraSpec:
    """``targets`` is "all-linear" or module names separated by commas. ``rslora`` scales by alpha / sqrt(rank)
    (Kalajdzievski 2023), ``dora`` also learns each row's length (Liu et al. 2024). Full fine-tuning ignores all of it."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str = "all-linear"
    rslora: bool = False
    dora: bool = False


@dataclass(frozen=True)
class PreferenceSpec:
    """How to learn from preferences; plain fine-tuning ignores it.

    ``beta`` is how strongly the model is held to its reference. ``noise`` is the share of votes taken for wrong ("robust"
    only), ``sft_weight`` how much the better answer itself is learnt beside the comparison (DPO only). The two weights
    are KTO's. Pairs whose prompt is longer than ``max_prompt`` tokens are left out (0: any that leaves room to answer).
    """

    beta: float = 0.1
    loss: Loss = "auto"
    noise: float = 0.1
    sft_weight: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    max_prompt: int = 0


@dataclass(frozen=True)
class ScheduleSpec:
    """How long and how fast. ``steps`` 0: as many as ``epochs`` need. Lengths in tokens; warmup is a share of steps."""

    steps: int = 0
    epochs: float = 1.0
    micro_batch: int = 1
    accumulation: int = 8
    learning_rate: float = 2e-4
    scheduler: Scheduler = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 0.3
    max_length: int = 1024
    packing: bool = False
    checkpointing: bool = True
    seed: int = 42


@dataclass(frozen=True)
class WatchSpec:
    """What to look at on the way. ``every`` is in steps (0: five times a run); ``examples`` caps the held-out set.

    ``best`` keeps the weights of the evaluation with the lowest held-out loss instead of the last ones. ``patience``: end
    after so many evaluations without a lower one, which keeps the best, too (0: never).
    """

    every: int = 0
    examples: int = 64
    samples: int = 3
    sample_tokens: int = 96
    keep: int = 2
    best: bool = False
    patience: int = 0

    @property
    def keeps_best(self) -> bool:
        return self.best or self.patience > 0


@dataclass(frozen=True)
class BudgetSpec:
    """By when a run ends with what it has: at most ``minutes`` (0: as long as it needs), or before the time of day
    ``until``, "07:00" on this machine's clock or "07:00+09:00"."""

    minutes: float = 0.0
    until: str = ""


@dataclass(frozen=True)
class RescueSpec:
    """Whether a run that is out of memory may go on by itself with a smaller plan, and how many ``tries`` it has."""

    smaller: bool = False
    tries: int = 3


@dataclass(frozen=True)
class HardwareSpec:
    """What the person overrules; "auto" leaves it to the plan. ``gpus`` lists indices separated by commas."""

    placement: Placement = "auto"
    gpus: str = "auto"
    precision: Precision = "auto"
    offload: bool = False


@dataclass(frozen=True)
class ClusterSpec:
    """Several machines with as many GPUs each, started alike but for ``rank``; the one of rank 0 listens."""

    machines: int = 1
    rank: int = 0
    address: str = ""
    port: int = 29500
