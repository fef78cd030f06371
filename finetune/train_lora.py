"""The adapter's configuration for a model that is loaded.

Covers: plain LoRA, rsLoRA and DoRA, targets that must be layers of the model, a rank that its smallest matrix can hold.
Does not cover: an adapter that exists already (train_start.py).
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from torch import nn

from assets.errors import UserError
from finetune.spec import LoraSpec


def lora_config(lora: LoraSpec, model: Any) -> LoraConfig:
    """UserErrors: "train.no_targets" when a named target is no layer of the model, "train.rank_too_large" when a layer's
    update could never have that rank."""
    targets: Any = lora.targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",") if name.strip()]
        leaves = {name.rsplit(".", 1)[-1] for name, _ in _linears(model)}
        missing = [name for name in targets if name not in leaves]
        if missing or not targets:
            raise UserError("train.no_targets", names=", ".join(missing) or lora.targets)
    _check_rank(lora.rank, targets, model)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _linears(model: Any) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _check_rank(rank: int, targets: Any, model: Any) -> None:
    head = model.get_output_embeddings()
    wanted = {
        name: min(layer.in_features, layer.out_features)
        for name, layer in _linears(model)
        if (layer is not head if targets == "all-linear" else name.rsplit(".", 1)[-1] in targets)
    }
    narrow = min(wanted, key=lambda name: wanted[name])
    if rank > wanted[narrow]:
        raise UserError("train.rank_too_large", rank=rank, limit=wanted[narrow], module=narrow)
