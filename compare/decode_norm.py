"""RMS norms in two kernels instead of eight: at one token per row, launches are what a norm costs.

Covers: norms as Llama has them, rounded as there. Does not cover: any other norm; those stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def fuse_norms(model: nn.Module) -> int:
    """Replace the forward of every norm that a probe shows to be Llama's; the number of those replaced."""
    fused = 0
    for module in model.modules():
        weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
        if eps is None or weight is None or weight.dim() != 1:
            continue
        forward = _fused(weight, eps)
        probe = torch.linspace(-3, 4, weight.shape[0], dtype=weight.dtype, device=weight.device)[None]
        with torch.inference_mode():
            alike = torch.allclose(forward(probe), module(probe), rtol=0.01, atol=1e-4)
        if alike:
            module.forward = forward
            fused += 1
    return fused


def _fused(weight: torch.Tensor, eps: float) -> Any:
    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        return weight * functional.rms_norm(hidden_states, weight.shape, None, eps)

    return forward
