"""Adapter folders for tests, written byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

STARTER = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONFIG = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none",
    "base_model_name_or_path": STARTER, "revision": None, "use_dora": False, "modules_to_save": None,
}  # fmt: skip
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def tensor(*shape: int, value: float = 0.5, dtype: str = "F32") -> tuple[str, tuple[int, ...], bytes]:
    numbers = np.full(shape, value, {"F16": "<f2", "F64": "<f8"}.get(dtype, "<f4"))
    data = (numbers.view("<u4") >> 16).astype("<u2") if dtype == "BF16" else numbers
    return dtype, shape, data.tobytes()


def lora(value: float = 0.5, dtype: str = "F32", layers: int = 2, prefix: str = "model.layers") -> Tensors:
    tensors: Tensors = {}
    for layer in range(layers):
        for name, out in (("q_proj", 8), ("v_proj", 4)):
            module = f"base_model.model.{prefix}.{layer}.self_attn.{name}"
            tensors[f"{module}.lora_A.weight"] = tensor(2, 8, dtype=dtype)
            tensors[f"{module}.lora_B.weight"] = tensor(out, 2, value=value, dtype=dtype)
    return tensors


def save(tensors: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def folder(path: Path, tensors: Tensors | bytes | None = None, **config: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    data = tensors if isinstance(tensors, bytes) else save(lora() if tensors is None else tensors)
    (path / "adapter_model.safetensors").write_bytes(data)
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    return path
