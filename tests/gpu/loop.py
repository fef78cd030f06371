"""The loop on one GPU with random weights in a real model's shape: train QLoRA, then base and adapter side by side.

By hand, from the folder of app.py: python -m tests.gpu.loop llama8b gemma2_9b   (or "tiny" to rehearse on a CPU)

Prints per model: training speed and peak memory beside the planner's estimate, then the speed of both answers.
Random weights say nothing about quality, only that everything runs, how fast, and in how much memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from assets.files import Workspace
from finetune.memory import Shape, estimate
from finetune.progress import read
from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("llama_untied", {}),
    "llama8b": (
        "llama_untied",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
        },
    ),
    "gemma2_9b": (
        "gemma2",
        {
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
        },
    ),
}


MODELS_FOLDER = "NARANHI_BENCH_MODELS"


def write_base(name: str, folder: Path) -> Path:
    """The checkpoint, if it is not there; on a GPU the weights are drawn there: seconds instead of minutes."""
    if (folder / "tokenizer.json").exists():
        return folder
    import torch

    from tests.models import make_model

    architecture, changes = MODELS[name]
    if torch.cuda.is_available():
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            make_model(folder, architecture, noise=0.01, **changes)
        torch.set_default_dtype(torch.float32)
        torch.cuda.empty_cache()
    else:
        make_model(folder, architecture, **changes)
    return folder


def training(base: Path, workspace: Workspace, small: bool) -> dict[str, Any]:
    """A short run by the script itself; tokens per second, peak bytes, losses."""
    length = 128 if small else 1024
    text = "가나다라마바사 " * (length // 12)
    talks = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": text}]} for n in range(64)
    ]
    (workspace.uploads / "talks.jsonl").write_text(
        "\n".join(json.dumps(t, ensure_ascii=False) for t in talks), encoding="utf-8"
    )
    spec = TrainSpec(
        ModelSpec(str(base)),
        DataSpec("talks.jsonl", "file", heldout=0.1),
        lora=LoraSpec(rank=16, alpha=32),
        schedule=ScheduleSpec(steps=10, micro_batch=2, accumulation=1, learning_rate=2e-4, max_length=length),
        watch=WatchSpec(every=5, examples=2, samples=1, sample_tokens=8),
    )
    folder = workspace.jobs / base.name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    argv = [sys.executable, "-m", "finetune.train", "--spec", str(folder / "spec.yaml"), "--out", str(folder)]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "NARANHI_HOME": str(workspace.root)})
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    progress = read(folder)
    shape = Shape.from_config(json.loads((base / "config.json").read_text(encoding="utf-8")))
    return {
        "train_seconds": round(time.monotonic() - began),
        "tokens_per_second": round(max(row["tokens_per_second"] for row in progress.steps)),
        "peak_gib": round((progress.latest("gpu_memory") or 0) / 2**30, 2),
        "estimate_gib": round(estimate(shape, spec).total / 2**30, 2),
        "loss": [round(row["loss"], 3) for row in progress.steps[:: len(progress.steps) - 1]],
        "folder": folder,
    }


def answering(base: Path, adapter: Path, workspace: Workspace, small: bool) -> dict[str, Any]:
    """Both answers from the engine in its own process, greedy."""
    from compare.engine import Arm, Done, Loaded, LoadSpec, Sampling
    from compare.worker import WorkerEngine

    engine = WorkerEngine(workspace, workspace.root / "engine.log")
    began = time.monotonic()
    arms = (Arm("a", str(base)), Arm("b", str(base), str(adapter)))
    loaded = next(event for event in engine.load(LoadSpec(arms)) if isinstance(event, Loaded))
    seconds = time.monotonic() - began
    question = [{"role": "user", "content": "안녕 " * (16 if small else 60)}]
    turns = {key: question for key in ("a", "b")}
    sampling = Sampling(temperature=0, max_new_tokens=8 if small else 96)
    for _ in range(2):  # the first answer warms up kernels
        done = [event for event in engine.stream(turns, None, sampling) if isinstance(event, Done)]
    engine.unload()
    return {
        "load_seconds": round(seconds, 1),
        "device": loaded.device,
        "held_gib": round(loaded.memory_bytes / 2**30, 2),
        "check": loaded.check,
        "answers": {
            d.arm: (d.reason, d.tokens, round(d.tokens_per_second, 1), round(d.seconds_to_first, 2), d.error)
            for d in done
        },
    }


def main(names: list[str]) -> None:
    for name in names:
        with tempfile.TemporaryDirectory() as home:
            workspace = Workspace(Path(home)).prepare()
            os.environ["NARANHI_HOME"] = home
            base = write_base(name, Path(os.environ.get(MODELS_FOLDER, home)) / name)
            trained = training(base, workspace, name == "tiny")
            folder = trained.pop("folder")
            print(name, "train", trained, flush=True)
            print(name, "answer", answering(base, folder / "adapter", workspace, name == "tiny"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["tiny"])
