"""What a run has to fetch and to write: bytes to download, bytes of disk, and how long fetching takes.

Covers: figures before anything is fetched, from the model's shape and what is on this disk. Does not cover: the time of
training (forecast.py). Looking never asks the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from assets.hub import ModelFiles
from assets.quantised import find_copy
from finetune.jobs import Jobs
from finetune.memory import Shape, adapter_parameters
from finetune.plan import LaunchPlan
from finetune.progress import read
from finetune.spec import ModelSpec, TrainSpec

SPEED = (5e6, 100e6)  # bytes a second where nothing was fetched yet: a slow home line to a data centre
SMALL = 20 * 2**20  # tokenizer, configuration, logs
WEIGHT, STATES = 4, 8  # bytes per trained number: its own, and AdamW's two moments


@dataclass(frozen=True)
class Needs:
    """Bytes, and the seconds that fetching takes as a range. ``free`` is what the disk has left now."""

    download: int
    disk: int
    free: int
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def enough(self) -> bool:
        return self.disk <= self.free


def needs(spec: TrainSpec, plan: LaunchPlan, shape: Shape, jobs: Jobs, free: int) -> Needs:
    """``free`` is the disk's free space in bytes."""
    download = missing(spec.model, shape)
    trained = shape.parameters if spec.method == "full" else adapter_parameters(shape, spec)
    checkpoints = (spec.watch.keep + 1 + spec.watch.keeps_best) * trained * (WEIGHT + STATES)
    copy = _copy(spec, plan, shape, jobs.workspace)
    slow, fast = _speeds(jobs)
    seconds = (download / fast, download / slow)
    return Needs(download, download + copy + checkpoints + WEIGHT * trained + SMALL, free, seconds)


def missing(model: ModelSpec, shape: Shape) -> int:
    """Bytes of weights that are not on this disk yet, taken as 16 bits a number; 0 for a folder."""
    return 0 if at_hand(model) else 2 * shape.parameters


def at_hand(model: ModelSpec) -> bool:
    """Whether the weights are on this disk."""
    return model.id == STARTER or Path(model.id).expanduser().is_dir() or cached(model) is not None


def cached(model: ModelSpec) -> Path | None:
    """The folder of a Hub snapshot whose weights are all here."""
    from huggingface_hub import try_to_load_from_cache

    def there(name: str) -> Path | None:
        try:
            found = try_to_load_from_cache(model.id, name, revision=model.revision)
        except ValueError:  # an id that the Hub would refuse, too
            return None
        return Path(found) if isinstance(found, str) else None

    if (index := there("model.safetensors.index.json")) is not None:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return index.parent if all(there(name) for name in names) else None
    single = there("model.safetensors")
    return single.parent if single is not None else None


def _copy(spec: TrainSpec, plan: LaunchPlan, shape: Shape, workspace: Workspace) -> int:
    """Bytes of the copy in 4 bits that shards are read from, unless it is there."""
    if plan.placement != "fsdp" or spec.method != "qlora":
        return 0
    size = int(shape.linear * 0.516) + 2 * shape.embedding
    folder = cached(spec.model)
    try:
        made = folder and find_copy(workspace, ModelFiles(spec.model.id, folder, folder.name))
    except (OSError, UserError):
        return size
    return 0 if made else size


def _speeds(jobs: Jobs) -> tuple[float, float]:
    """Bytes a second, slow and fast: half and one and a half times what this machine had lately."""
    found = []
    for job in jobs.list()[:40]:
        if not job.elsewhere and job.state != "queued":
            facts = read(jobs.folder(job.id)).facts
            if facts.get("downloaded") and facts.get("download_seconds"):
                found.append(facts["downloaded"] / facts["download_seconds"])
    usual = median(found[:5]) if found else None
    return SPEED if usual is None else (usual / 2, usual * 1.5)
