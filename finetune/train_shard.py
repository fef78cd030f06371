"""FSDP2 full shard that gathers the frozen bytes unchanged and leaves on each GPU what would be gathered whole anyway.

Covers: the options that transformers and accelerate take, the policy they are given instead of their own, embeddings and
head. Does not cover: proving that the bytes are the same (train_canary.py) or choosing this placement (plan.py).
"""

from __future__ import annotations

import logging
from typing import Any

from torch.distributed.fsdp import MixedPrecisionPolicy

from finetune import train_ranks as ranks


def options() -> dict[str, Any]:
    """For TrainingArguments. FSDP's own activation checkpointing stays off: with it PEFT saves an empty adapter."""
    if not ranks.sharded():
        return {}
    logging.getLogger("transformers.training_args").addFilter(_wanted)
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
            "cpu_ram_efficient_loading": False,
            "cpu_offload": ranks.offloaded(),
            "activation_checkpointing": False,
        },
    }


def _wanted(record: logging.LogRecord) -> bool:
    """transformers recommends that very activation checkpointing, and whoever reads the log might follow."""
    return "redundant AllGather" not in record.getMessage()


def shard_exactly(trainer: Any, whole: bool = False) -> None:
    """Gather every parameter in the dtype it is stored in.

    accelerate would cast to bf16 on the way, which rewrites packed NF4 bytes that look like a NaN, and rounds outputs.
    Embeddings and head stay whole on every GPU, under CPU offload too: TRL's fused loss needs the whole head there, and
    FSDP2 would hold a buffer of the same size beside it while it gathers, which is more than the shards save. Where the
    ``whole`` model is trained they are shards like the rest: what FSDP ignores gets no gradient from other ranks.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
    if whole:
        return
    model = trainer.model
    plugin.ignored_modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    for module in plugin.ignored_modules:
        module.to(trainer.args.device)
