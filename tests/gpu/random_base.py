"""What GPU scripts train on without a network: a Llama of any shape with random weights, and long enough talks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

BATCH, STEPS = 4, 2


def make_base(folder: Path, options: argparse.Namespace) -> None:
    """A Llama of the wanted shape with random bf16 weights, written shard by shard."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.models import _save_tokenizer

    config = LlamaConfig(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        intermediate_size=options.intermediate,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        vocab_size=options.vocab,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    _save_tokenizer(folder)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LlamaForCausalLM(config).named_parameters()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        random = torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02
        shard[name] = (1 + random if "norm" in name else random).cpu()
        if sum(t.nbytes for t in shard.values()) > 2 * 2**30 or number == len(shapes) - 1:
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def make_spec(home: Path, length: int) -> TrainSpec:
    (home / "uploads").mkdir(parents=True, exist_ok=True)
    words = ["나란히 ", "놓고 ", "비교해요. ", "오늘은 ", "비가 ", "왔어요. "]
    with (home / "uploads" / "talks.jsonl").open("w", encoding="utf-8") as file:
        for n in range(20):
            answer = "".join(words[(n * 7 + i * (n + 1)) % len(words)] for i in range(length // 8))
            talk = [{"role": "user", "content": f"질문 {n}"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": talk}, ensure_ascii=False) + "\n")
    return TrainSpec(
        ModelSpec(str(home / "base")),
        DataSpec("talks.jsonl", "file", heldout=0.2),
        lora=LoraSpec(rank=16, alpha=32),
        schedule=ScheduleSpec(
            steps=STEPS, accumulation=BATCH, max_length=length, warmup=0.0, scheduler="constant", learning_rate=1e-3
        ),
        watch=WatchSpec(every=STEPS, examples=4, samples=1, sample_tokens=2),
    )
