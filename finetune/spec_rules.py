"""What cannot be combined in one run, each with what to do instead.

Covers: rules that the settings alone decide. Does not cover: what depends on the model's shape (methods.py), the data
(preference_data.py) or the machine (plan.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.errors import UserError
from finetune.spec_parts import LOSSES

if TYPE_CHECKING:
    from finetune.spec import TrainSpec


def check(spec: TrainSpec) -> None:
    """UserError("spec.…") for the first combination that does not work."""
    if spec.method == "full":
        _full(spec)
    if spec.method == "qlora8":
        _eight_bit(spec)
    if spec.objective != "sft":
        _preference(spec)


def _full(spec: TrainSpec) -> None:
    """Every weight is trained, so there is no adapter to go on from, to shape, or to switch off for the reference."""
    if spec.start:
        raise UserError("spec.full_start")
    if spec.lora.dora or spec.lora.rslora:
        raise UserError("spec.full_lora", name="DoRA" if spec.lora.dora else "rsLoRA")
    if spec.objective != "sft":
        raise UserError("spec.full_preference", objective=spec.objective.upper())
    if spec.hardware.offload:
        raise UserError("spec.full_offload")


def _eight_bit(spec: TrainSpec) -> None:
    """LLM.int8 keeps its scales beside the weights, where neither FSDP2 nor PEFT's DoRA finds them."""
    if spec.lora.dora:
        raise UserError("spec.eight_bit_dora")
    if spec.hardware.placement == "fsdp" or spec.hardware.offload:
        raise UserError("spec.eight_bit_sharded")


def _preference(spec: TrainSpec) -> None:
    if spec.schedule.packing:
        raise UserError("spec.preference_packing", objective=spec.objective)
    if spec.preference.loss not in LOSSES[spec.objective]:
        allowed = ", ".join(LOSSES[spec.objective])
        raise UserError("spec.preference_loss", loss=spec.preference.loss, objective=spec.objective, allowed=allowed)
    if spec.loss == "kto" and spec.schedule.micro_batch < 2:
        raise UserError("spec.kto_batch")
