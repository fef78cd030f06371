"""Tiny models of each architecture in the catalogue, with random weights, and real PEFT adapters for them.

Saved like any checkpoint from the Hub: config, safetensors, tokenizer, chat template. Layer sizes are multiples of 64,
as 4-bit kernels on CPUs want them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

ARCHITECTURES = ("llama", "llama_untied", "gemma2", "gemma3")
WINDOW = 16
VOCABULARY = 512
_TURNS = (
    "{{ bos_token }}{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)


def make_model(folder: Path, architecture: str, seed: int = 0, noise: float = 0.08, **changes: Any) -> Path:
    """Write a two- to six-layer model and its tokenizer to ``folder``; ``changes`` go to its config.

    ``noise`` is the spread added to every weight: far enough from zero that answers differ and norms matter.
    """
    import torch

    torch.manual_seed(seed)
    model = _model(architecture, changes).to(torch.bfloat16)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * noise)
    model.save_pretrained(folder, max_shard_size="2GB")
    _save_tokenizer(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int = 0, **options: Any) -> Path:
    """A PEFT LoRA adapter on all linear layers of ``base``, with B not zero. ``options`` go to LoraConfig."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    defaults = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    config = LoraConfig(**{**defaults, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renames
        tuned = get_peft_model(model, config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    tuned.save_pretrained(folder)
    return folder


def _model(architecture: str, changes: dict[str, Any]) -> Any:
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    gemma = {"sliding_window": WINDOW, "query_pre_attn_scalar": 64}
    if architecture in ("llama", "llama_untied"):
        tied = architecture == "llama"
        return LlamaForCausalLM(LlamaConfig(**{**common, "tie_word_embeddings": tied, **changes}))
    if architecture == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**{**common, **gemma, **changes}))
    if architecture == "gemma3":
        layers = {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
        return Gemma3ForCausalLM(Gemma3TextConfig(**{**common, **gemma, **layers, **changes}))
    raise ValueError(architecture)


def _save_tokenizer(folder: Path) -> None:
    """Byte-level without merges: every text has ids, and one Hangul syllable is three of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<start>", "<end>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<start>", "<end>"],
    )
    tokenizer.chat_template = _TURNS
    tokenizer.save_pretrained(folder)
