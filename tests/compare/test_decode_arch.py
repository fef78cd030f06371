from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from compare.decode_arch import NO_WINDOW, describe
from compare.decode_fused import fused_step, prepare
from compare.decode_gemm import Nf4Weight
from tests.models import ARCHITECTURES, WINDOW, make_model


def weights_of(model: Any) -> dict[str, Nf4Weight]:
    """Stand-ins with the sizes of every linear layer in the blocks."""
    nothing = torch.empty(0)
    return {
        name: Nf4Weight(nothing, nothing, module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }


def load(folder: Path, architecture: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(make_model(folder, architecture), dtype=torch.bfloat16).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_of_the_catalogue_is_known(tmp_path: Path, architecture: str) -> None:
    model = load(tmp_path, architecture)
    found = describe(model, weights_of(model))
    assert found is not None and len(found.layers) == model.config.num_hidden_layers
    gemma = architecture.startswith("gemma")
    assert found.shifted == found.tanh == gemma and (found.heads, found.kv_heads, found.head_dim) == (2, 1, 64)
    assert (found.cap > 0) == (found.last_cap > 0) == (architecture == "gemma2")
    assert {layer.window for layer in found.layers} == ({WINDOW, NO_WINDOW} if gemma else {NO_WINDOW})
    first = found.layers[0]
    assert first.groups["qkv"].sizes == [128, 64, 64] and first.groups["down"].names == (
        "model.layers.0.mlp.down_proj",
    )
    assert (first.after_mlp is not None) == gemma and (first.head_norms is not None) == (architecture == "gemma3")
    assert len(found.kinds) == (2 if architecture == "gemma3" else 1)


def test_a_layer_that_the_kernels_do_not_take_leaves_the_step_to_transformers(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    weights = weights_of(model)
    del weights["model.layers.1.mlp.up_proj"]
    assert describe(model, weights) is None


def test_other_precisions_and_activations_are_left_to_transformers(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    model.config.hidden_act = "relu"
    assert describe(model, weights_of(model)) is None
    model.config.hidden_act = "silu"
    assert describe(model.float(), weights_of(model)) is None


def test_unknown_architectures_are_left_to_transformers() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_hidden_layers=1, **sizes)).bfloat16()
    assert describe(model, weights_of(model)) is None


def test_a_model_on_a_cpu_has_no_kernels(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    assert prepare(model) is None and fused_step(model, [None]) is None
