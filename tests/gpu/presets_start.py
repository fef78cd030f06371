"""An adapter that begins as what quantising took away, on a base that stays as it is.

Covers: the best low-rank part of W - NF4(W) per layer by SVD (one step of LoftQ, Li et al. 2023). Does not cover: training.
PEFT's replace_lora_weights_loftq does the same on CUDA only and without dividing by the adapter's scale (alpha / rank),
which would put twice the correction in here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


@torch.no_grad()
def compensate(model: Any, base: Path) -> tuple[float, float]:
    """Set A and B of every layer in four bits. The error of the weights before and after, as a share of their norm."""
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit
    from peft.utils.loftq_utils import _SafetensorLoader

    weights = _SafetensorLoader(model, str(base))
    norm = before = after = 0.0
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        whole = weights.get_tensor(name.removeprefix("base_model.model.") + ".weight")
        near = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        lost = whole.to(near.device, torch.float32) - near
        rank, scale = layer.r["default"], layer.scaling["default"]
        left, size, right = torch.linalg.svd(lost, full_matrices=False)
        root = size[:rank].sqrt()
        b, a = left[:, :rank] * root / scale, root[:, None] * right[:rank]
        for weight, value in ((layer.lora_A, a), (layer.lora_B, b)):
            own = weight["default"].weight
            own.data = value.to(own.device, own.dtype).contiguous()
        norm += float(whole.float().square().sum())
        before += float(lost.square().sum())
        after += float((lost - scale * b @ a).square().sum())
    if not norm:
        raise ValueError("no layer in four bits")
    return (before / norm) ** 0.5, (after / norm) ** 0.5
