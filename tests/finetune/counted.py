"""Counts the bytes that are alive in a pass through a model, without computing anything: fake tensors, followed storages.

Covers: a decoder with LoRA on layers that unpack their weight like bitsandbytes' Linear4bit, under 16-bit autocast, as on
CUDA. Does not cover: the allocator, the loss (TRL's is a kernel of its own).
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Gemma2ForCausalLM, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from finetune.memory_shape import Shape


class Alive(TorchDispatchMode):
    """Bytes of the storages made inside that are still there, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        inside = out.untyped_storage().nbytes() if func is torch.ops.aten._softmax_backward_data.default else 0
        self.most = max(self.most, self.now + inside)  # CUDA's kernel multiplies gradient and softmax first
        return out

    def _follow(self, storage: Any) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class Unpacked(torch.autograd.Function):
    """bitsandbytes' MatMul4Bit: the weight unpacked for one product, forward and backward; the input is not saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, outs: int, ins: int) -> torch.Tensor:
        ctx.size = (outs, ins)
        return nn.functional.linear(x, torch.empty(outs, ins, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient @ torch.empty(*ctx.size, dtype=gradient.dtype), None, None


class Linear(bnb.nn.Linear4bit):  # type: ignore[misc]
    """Looks 4-bit to PEFT, which then wraps it as such; a fake tensor cannot be a Params4bit."""

    def __init__(self, ins: int, outs: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = ins, outs, None
        self.compute_dtype = torch.bfloat16
        self.weight = nn.Parameter(torch.empty(ins * outs // 8, 1), requires_grad=False)
        self.weight.compress_statistics, self.weight.quant_type, self.weight.quant_state = True, "nf4", None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Unpacked.apply(x, self.out_features, self.in_features)


@dataclass(frozen=True)
class Counted:
    """Bytes: ``held`` between the passes, ``most`` in the backward pass."""

    held: int
    most: int


def as_on_cuda(patch: pytest.MonkeyPatch) -> None:
    """PEFT asks whether autocast is on without saying for what, and means CUDA; without padding SDPA needs no mask. Whoever
    names a device gets the truth: autocast itself asks that way for what it has to put back."""
    truly = torch.is_autocast_enabled
    patch.setattr(torch, "is_autocast_enabled", lambda *device: truly(*device) if device else True)
    patch.setattr(modeling_llama, "create_causal_mask", lambda *_, **__: None)
    patch.setattr(BaseTunerLayer, "_move_adapter_to_device_of_base_layer", lambda *_, **__: None)
    patch.setattr(nn.Module, "to", lambda module, *_, **__: module)


def config_of(shape: Shape) -> Any:
    from transformers import Gemma2Config, LlamaConfig

    numbers = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
    }
    if shape.eager:
        return Gemma2Config(**numbers, query_pre_attn_scalar=shape.head_dim, attn_implementation="eager")
    return LlamaConfig(**numbers, attn_implementation="sdpa")


def _model(shape: Shape, checkpointing: bool, rank: int, dropout: float) -> Any:
    kind: Any = Gemma2ForCausalLM if shape.eager else LlamaForCausalLM
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = kind(config_of(shape))
    finally:
        torch.set_default_dtype(torch.float32)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(parent, name, Linear(child.in_features, child.out_features))
    model.is_loaded_in_4bit = True
    options = SimpleNamespace(r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules="all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renames
        tuned = get_peft_model(model, LoraConfig(**vars(options), task_type="CAUSAL_LM"))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return tuned.train()


def count(shape: Shape, texts: int, length: int, checkpointing: bool, rank: int = 16, dropout: float = 0.0) -> Counted:
    """One micro-batch of ``texts`` texts through all layers and back."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        decoder = _model(shape, checkpointing, rank, dropout).get_base_model().model
        ids = torch.zeros((texts, length), dtype=torch.long)
        alive = Alive()
        with alive:
            with torch.autocast("cpu", torch.bfloat16):
                out = decoder(input_ids=ids, use_cache=False).last_hidden_state
            held, alive.most = alive.now, 0
            out.backward(torch.empty_like(out))
        return Counted(held, alive.most)
