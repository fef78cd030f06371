"""The folder that a run elsewhere leaves, written by hand: whole, half, stopped, failed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

SPEC = TrainSpec(
    ModelSpec("org/tiny"),
    DataSpec("talks.jsonl", "file", heldout=0.25),
    name="멀리서",
    lora=LoraSpec(rank=4, alpha=8),
    schedule=ScheduleSpec(steps=4, accumulation=1, learning_rate=5e-3, max_length=128),
    watch=WatchSpec(every=2, samples=1, sample_tokens=4),
)


def safetensors(numbers: int = 8) -> bytes:
    """One float32 tensor in the format of the safetensors library."""
    entry = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}
    head = json.dumps({"a": entry, "__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4 * numbers)


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def adapter() -> dict[str, bytes]:
    return {"adapter/adapter_config.json": b'{"r": 4}', "adapter/adapter_model.safetensors": safetensors()}


def checkpoint(step: int) -> dict[str, bytes]:
    """A whole one: its mark lists the size of every other file."""
    files = {"adapter_model.safetensors": safetensors(), "optimizer.pt": b"moments", "origin.json": b"{}"}
    mark = {"version": 1, "files": {name: len(data) for name, data in files.items()}}
    files["complete.json"] = json.dumps(mark).encode()
    return {f"checkpoints/checkpoint-{step}/{name}": data for name, data in files.items()}


def curves(steps: int = 4) -> dict[str, bytes]:
    rows = [{"event": "phase", "phase": "start", "time": 100.0}, {"event": "facts", "total_steps": 4, "time": 100.5}]
    rows += [{"event": "phase", "phase": "train", "time": 101.0}]
    rows += [
        {"event": "step", "step": n, "loss": 2.0 - n / 10, "seconds": 1.0, "time": 101.0 + n}
        for n in range(1, steps + 1)
    ]
    sample = {"step": steps, "prompt": "질문", "answer": "답", "time": 110.0}
    return {"metrics.jsonl": lines(*rows), "samples.jsonl": lines(sample), "train.log": "한 줄\n".encode()}


def record(stopped: bool = False) -> dict[str, bytes]:
    told = {"version": 1, "stopped": stopped, "base": {"id": "org/tiny", "revision": None}, "name": "멀리서"}
    return {"run.json": json.dumps(told).encode()}


def finished() -> dict[str, bytes]:
    return {"spec.yaml": SPEC.to_yaml().encode(), **curves(), **checkpoint(4), **adapter(), **record()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
