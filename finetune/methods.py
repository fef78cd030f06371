"""What a method cannot do with this model or on this machine, said before anything starts.

Covers: a rank larger than a matrix, targets that the model does not have, full fine-tuning that does not fit. Does not
cover: settings that exclude each other (spec_rules.py); the training script checks against the real layers again.
"""

from __future__ import annotations

from assets.catalog import find_model
from assets.errors import UserError
from finetune.memory import GIB, Shape
from finetune.plan import LaunchPlan
from finetune.spec import TrainSpec

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def check(spec: TrainSpec, shape: Shape) -> None:
    """UserErrors: "methods.no_targets" (only for models of the catalogue, whose layers have these names),
    "train.rank_too_large"."""
    if spec.method == "full":
        return
    named = [name.strip() for name in spec.lora.targets.split(",") if name.strip()]
    unknown = [name for name in named if name not in LAYERS]
    if spec.lora.targets != "all-linear" and find_model(spec.model.id) is not None and (unknown or not named):
        raise UserError("methods.no_targets", names=", ".join(unknown) or "–", known=", ".join(LAYERS))
    wanted = LAYERS if spec.lora.targets == "all-linear" else named
    limits = {name: min(sides) for name, sides in zip(LAYERS, shape.matrices, strict=True) if name in wanted}
    narrow = min(limits, key=lambda name: limits[name], default=None)
    if narrow is not None and spec.lora.rank > limits[narrow]:
        raise UserError("train.rank_too_large", rank=spec.lora.rank, limit=limits[narrow], module=narrow)


def check_room(spec: TrainSpec, plan: LaunchPlan) -> None:
    """UserError("train.full_too_large"). An adapter that is said not to fit may still be tried: estimates err, and it is
    small beside its base. A whole model that does not fit by this estimate does not fit."""
    if spec.method != "full" or plan.fit != "too_big":
        return
    need, have = plan.total, plan.available
    if need <= have:  # it is the host that has no room: every rank reads the whole model there first
        need, have = plan.host, plan.host_available
    raise UserError("train.full_too_large", need=f"{need / GIB:.1f}", have=f"{max(0, have) / GIB:.1f}")
