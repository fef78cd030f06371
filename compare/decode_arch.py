"""What a decode step of a known architecture consists of: layers, norms, windows, constants.

Covers: Llama, Gemma 2 and Gemma 3 with all linear layers in NF4 that our kernels take. Does not cover: any other model;
those take their steps through transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compare.decode_gemm import Nf4Weight

NO_WINDOW = 1 << 30
_GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_LAYERS = {"LlamaDecoderLayer": "llama", "Gemma2DecoderLayer": "gemma2", "Gemma3DecoderLayer": "gemma3"}
_ACTIVATIONS = {"silu": False, "gelu_pytorch_tanh": True}


@dataclass(frozen=True)
class Group:
    """Layers that read the same input: their names in the model, their weights."""

    names: tuple[str, ...]
    weights: tuple[Nf4Weight, ...]

    @property
    def sizes(self) -> list[int]:
        return [weight.n for weight in self.weights]


@dataclass(frozen=True)
class Layer:
    """``after_attention`` and ``after_mlp``: norms of what is added to the residual, where there are any."""

    groups: Mapping[str, Group]
    before_attention: torch.Tensor
    after_attention: torch.Tensor | None
    before_mlp: torch.Tensor
    after_mlp: torch.Tensor | None
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    window: int
    kind: str | None


@dataclass(frozen=True)
class Architecture:
    """``shifted``: norms multiply by 1 + weight; ``tanh``: GELU in place of SiLU; caps of 0: none."""

    layers: Sequence[Layer]
    last_norm: torch.Tensor
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    scale: float
    cap: float
    last_cap: float
    shifted: bool
    tanh: bool

    @property
    def kinds(self) -> list[str | None]:
        return sorted({layer.kind for layer in self.layers}, key=str)


def describe(model: Any, weights: Mapping[str, Nf4Weight]) -> Architecture | None:
    """None for a model whose step our kernels do not compute. ``weights``: those the kernels take, by module name."""
    base, config = model.base_model, model.config
    layers = getattr(base, "layers", None)
    if not layers or {type(layer).__name__ for layer in layers} - set(_LAYERS):
        return None
    if len({parameter.device for parameter in model.parameters()}) > 1:
        return None
    family = _LAYERS[type(layers[0]).__name__]
    attention = layers[0].self_attn
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    dim = attention.head_dim
    if activation not in _ACTIVATIONS or dim < 16 or dim & (dim - 1) or base.norm.weight.dtype != torch.bfloat16:
        return None
    names = {id(module): name for name, module in model.named_modules()}
    found = [_layer(layer, names, weights, family) for layer in layers]
    if any(layer is None for layer in found):
        return None
    return Architecture(
        layers=[layer for layer in found if layer is not None],
        last_norm=base.norm.weight,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=dim,
        eps=config.rms_norm_eps,
        scale=float(attention.scaling),
        cap=float(getattr(attention, "attn_logit_softcapping", None) or 0) if family == "gemma2" else 0.0,
        last_cap=float(getattr(config, "final_logit_softcapping", None) or 0),
        shifted=family != "llama",
        tanh=_ACTIVATIONS[activation],
    )


def _layer(layer: Any, names: Mapping[int, str], weights: Mapping[str, Nf4Weight], family: str) -> Layer | None:
    groups = {}
    for key, parts in _GROUPS.items():
        own = [names[id(layer.get_submodule(part))] for part in parts]
        if not all(name in weights for name in own):
            return None
        groups[key] = Group(tuple(own), tuple(weights[name] for name in own))
    attention = layer.self_attn
    sandwich = family != "llama"
    return Layer(
        groups=groups,
        before_attention=layer.input_layernorm.weight,
        after_attention=layer.post_attention_layernorm.weight if sandwich else None,
        before_mlp=(layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm).weight,
        after_mlp=layer.post_feedforward_layernorm.weight if sandwich else None,
        head_norms=(attention.q_norm.weight, attention.k_norm.weight) if family == "gemma3" else None,
        window=getattr(attention, "sliding_window", None) or NO_WINDOW,
        kind=attention.layer_type if family == "gemma3" else None,
    )
