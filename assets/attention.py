"""Which attention of transformers computes a model rightly. One rule, for training and for comparing."""

from __future__ import annotations

from typing import Any


def attention_for(config: Any, cuda: bool) -> str:
    """ "sdpa", or "eager" where that is wrong. ``config`` is transformers' configuration of the model.

    Soft-capped scores (Gemma 2) have no SDPA. On CUDA torch's memory-efficient kernel gives a wrong last row, or
    faults, on keys that a single head spreads over all others (seen with torch 2.11: query 257, keys 512).
    """
    config = config.get_text_config()
    capped = config.model_type == "gemma2" or getattr(config, "attn_logit_softcapping", None) is not None
    spread = cuda and getattr(config, "num_key_value_heads", None) == 1
    return "eager" if capped or spread else "sdpa"
