"""DoRA in rows: what an adapter with lengths of its own multiplies a layer's output by.

Covers: the factor per output of y = (m / |W + s B A|) (W x + s B A x), Liu et al. 2024 (arXiv:2402.09353), from the weights
the layer really has, 4 bits included; multiplying by it. Does not cover: B A x itself (decode_lora.py).
"""

from __future__ import annotations

import torch
from torch import nn

from assets.errors import UserError


def gain(module: nn.Linear, update: torch.Tensor, lengths: torch.Tensor, adapter: str, name: str) -> torch.Tensor:
    """m / |W + update| as [out] in float32. ``update``: s B A [out, in]; ``lengths``: m [out].

    UserError("engine.adapter_other_base") for lengths of another layer, ("engine.adapter_unsupported") on weights that
    cannot be read back.
    """
    if lengths.shape != (module.out_features,):
        raise UserError("engine.adapter_other_base", adapter=adapter, module=name)
    whole = _weights(module, adapter)
    norms = (whole + update.to(whole.device)).norm(dim=1)
    return lengths.float().to(whole.device) / norms


def _weights(module: nn.Linear, adapter: str) -> torch.Tensor:
    """W [out, in] in float32."""
    state = getattr(module.weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        unpacked: torch.Tensor = dequantize_4bit(module.weight.data, state).float()
        return unpacked
    if not module.weight.is_floating_point():
        raise UserError("engine.adapter_unsupported", adapter=adapter, what="use_dora")
    return module.weight.data.float()


def stretch(own: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Multiply a row's output [q, out] in place; a layer's own bias is added after that, so it stays as it is."""
    if bias is not None:
        own -= bias
    own *= factor
    if bias is not None:
        own += bias
