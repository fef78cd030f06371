"""run.json: what anybody needs to repeat a run, to load its adapter, or to judge its figures.

Covers: revisions, data hash, settings, versions, the machine, the plan. Does not cover: metrics and the canary's count,
which the run adds (train.py), or the verdict of a comparison.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from assets.chat import DATE, ChatFormat
from assets.files import read_json
from assets.hub import ModelFiles
from finetune import train_ranks as ranks
from finetune.gpu import cores
from finetune.sources import Source
from finetune.spec import TrainSpec

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
SETTINGS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "NCCL_DEBUG")


def describe(
    spec: TrainSpec, files: ModelFiles, chat: ChatFormat, source: Source, began: float, folder: Path
) -> dict[str, Any]:
    """The record but for what came of the run. ``plan`` is null for a run that was started by hand."""
    plan = folder / "plan.json"
    return {
        "version": 1,
        "name": spec.name,
        "base": {"id": files.id, "revision": files.revision},
        "template_hash": chat.template_hash,
        "template": spec.model.template,
        "date": DATE,
        "system": spec.data.system,
        "dataset": {
            **asdict(spec.data),
            "sha256": source.sha256,
            "train": len(source.train),
            "heldout": len(source.heldout),
        },
        "spec": spec.to_dict(),
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "environment": environment(),
        "plan": read_json(plan) if plan.exists() else None,
        "started_at": began,
        "finished_at": time.time(),
    }


def environment() -> dict[str, Any]:
    """The system, what it computes on, and the variables that change how; never the whole environment: tokens are in it."""
    return {
        "system": platform.platform(),
        "cores": cores(),
        "memory": psutil.virtual_memory().total,
        "cuda": torch.version.cuda,
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else [],
        "processes": ranks.world(),
        "placement": ranks.placement(),
        "offload": ranks.offloaded(),
        "variables": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def _gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {"name": found.name, "memory": found.total_memory, "capability": f"{found.major}.{found.minor}"}
