from __future__ import annotations

import pytest
from transformers import Gemma2Config, Gemma3Config, Gemma3TextConfig, LlamaConfig

from assets.attention import attention_for


@pytest.mark.parametrize(
    ("config", "cpu", "cuda"),
    [
        (LlamaConfig(num_attention_heads=32, num_key_value_heads=8), "sdpa", "sdpa"),
        (LlamaConfig(num_attention_heads=8, num_key_value_heads=1), "sdpa", "eager"),
        (Gemma2Config(), "eager", "eager"),
        (Gemma3TextConfig(num_attention_heads=4, num_key_value_heads=1), "sdpa", "eager"),
        (Gemma3Config(), "sdpa", "sdpa"),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_attention_that_computes_the_model_rightly(config: object, cpu: str, cuda: str) -> None:
    assert attention_for(config, cuda=False) == cpu
    assert attention_for(config, cuda=True) == cuda
