"""Bases in 4 bits with random weights in a real model's shape, written as the copy that training loads.

By hand: python -m tests.gpu.packed_base llama8b /tmp/bases/llama8b

One random matrix of each size is quantised and stands in every layer: bytes and shapes are those of the real model, and a
9B base takes seconds and the disk of its 4 bits alone. Losses mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from finetune.memory_shape import Shape

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama1b": (
        "llama",
        {"hidden": 2048, "layers": 16, "intermediate": 8192, "heads": 32, "kv_heads": 8, "head_dim": 64},
    ),
    "llama1b_untied": (
        "llama",
        {"hidden": 2048, "layers": 16, "intermediate": 8192, "heads": 32, "kv_heads": 8, "head_dim": 64},
    ),
    "llama8b": (
        "llama",
        {"hidden": 4096, "layers": 32, "intermediate": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128},
    ),
    "llama70b": (
        "llama",
        {"hidden": 8192, "layers": 80, "intermediate": 28672, "heads": 64, "kv_heads": 8, "head_dim": 128},
    ),
    "gemma2_2b": (
        "gemma2",
        {"hidden": 2304, "layers": 26, "intermediate": 9216, "heads": 8, "kv_heads": 4, "head_dim": 256},
    ),
    "gemma2_9b": (
        "gemma2",
        {"hidden": 3584, "layers": 42, "intermediate": 14336, "heads": 16, "kv_heads": 8, "head_dim": 256},
    ),
    "tiny": ("llama", {"hidden": 128, "layers": 2, "intermediate": 256, "heads": 2, "kv_heads": 1, "head_dim": 64}),
    "tiny_gemma2": (
        "gemma2",
        {"hidden": 128, "layers": 2, "intermediate": 256, "heads": 2, "kv_heads": 1, "head_dim": 64},
    ),
}
VOCABULARY = {"llama": 128256, "gemma2": 256000}
TIED = ("llama1b", "gemma2_2b", "gemma2_9b", "tiny_gemma2")
SHARD = 2 * 2**30


def shape_of(name: str) -> Shape:
    """As the planner knows it."""
    kind, numbers = SHAPES[name]
    vocab = 512 if name.startswith("tiny") else VOCABULARY[kind]
    return Shape.of({**numbers, "vocab": vocab, "tied": name in TIED}, kind)


def config_of(name: str) -> Any:
    """As transformers knows it."""
    from transformers import Gemma2Config, LlamaConfig

    kind, _ = SHAPES[name]
    shape = shape_of(name)
    common = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": 8192,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    }
    if kind == "llama":
        return LlamaConfig(**common, architectures=["LlamaForCausalLM"])
    gemma = {"sliding_window": 4096, "query_pre_attn_scalar": shape.head_dim}
    return Gemma2Config(**common, **gemma, architectures=["Gemma2ForCausalLM"])


def write(name: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from assets.files import write_json
    from finetune.train_quantise import _architecture, _packed, _save, _tensors
    from tests.models import _save_tokenizer

    folder.mkdir(parents=True)
    config_of(name).save_pretrained(folder)
    config, layers, wanted = _architecture(folder, torch.bfloat16)
    with torch.device("meta"):
        sizes = {n: tuple(t.shape) for n, t in AutoModelForCausalLM.from_config(config_of(name)).state_dict().items()}
    torch.manual_seed(0)
    made: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}
    shard: dict[str, torch.Tensor] = {}
    for tensor in sorted(wanted):
        size = sizes[tensor]
        if tensor in layers:
            if size not in made:
                made[size] = _packed("", _random(size), torch.bfloat16, torch.device("cpu"))
            shard |= {tensor + key: value for key, value in made[size].items()}
        else:
            shard[tensor] = _random(size) if len(size) > 1 else torch.ones(size, dtype=torch.bfloat16)
        if sum(t.nbytes for t in shard.values()) > SHARD:
            _save(shard, folder)
            shard = {}
    _save(shard, folder)
    config.save_pretrained(folder)
    places = {key: path.name for path, key in _tensors(folder)}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    _save_tokenizer(folder)


def _random(size: tuple[int, ...]) -> Any:
    """Rows repeat after 64: drawing every number of a large embedding would take longer than training."""
    import torch

    block = torch.randn(min(64, size[0]), *size[1:], dtype=torch.float32).mul_(0.02).to(torch.bfloat16)
    return block.repeat(-(-size[0] // 64), 1)[: size[0]].contiguous()


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
