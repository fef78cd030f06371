from __future__ import annotations

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from compare.decode_norm import fuse_norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_llamas_norm_keeps_its_roundings(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(192, eps=1e-5).to(dtype)
    torch.nn.init.normal_(norm.weight, mean=0.7)
    states = torch.randn(3, 5, 192).to(dtype) * 4
    before = norm(states)
    assert fuse_norms(torch.nn.Sequential(norm)) == 1
    after = norm(states)
    assert after.dtype == dtype
    torch.testing.assert_close(after, before)
    assert (after == before).float().mean() > 0.99 or dtype == torch.float32


def test_other_norms_stay() -> None:
    class Shifted(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) + hidden_states * 0.1

    others = torch.nn.Sequential(Gemma3RMSNorm(64), Shifted(64), torch.nn.LayerNorm(64), torch.nn.Linear(4, 4))
    assert fuse_norms(others) == 0
    assert all("forward" not in vars(module) for module in others)
