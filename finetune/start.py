"""The adapter that a run goes on from: where it is, what it says about itself, whether the run fits it.

Covers: resolving the folder, base, template, rank, scale and targets, each refused in one sentence. Does not cover: the
weights themselves, which the training script compares tensor by tensor (train_start.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assets.catalog import find_model
from assets.errors import UserError
from assets.files import Workspace, read_json
from finetune.spec import LoraSpec, TrainSpec

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Start:
    """An adapter folder. ``lora`` is what a run that goes on from it must have; ``run`` its run.json, {} without one."""

    folder: Path
    base: str
    lora: LoraSpec
    run: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.run.get("name") or self.folder.name)

    @property
    def system(self) -> str:
        return str(self.run.get("system") or "")

    @property
    def template(self) -> str | None:
        """Jinja text that it was trained with in place of the model's own."""
        return self.run.get("template")

    @property
    def sha256(self) -> str:
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def place(workspace: Workspace, start: str) -> Path:
    """The folder that a spec names, below the workspace unless it is absolute."""
    return (workspace.root / Path(start).expanduser()).resolve()


def written(workspace: Workspace, folder: Path) -> str:
    """A folder as a spec names it: by its place in the workspace where it is inside."""
    path = folder.expanduser().resolve()
    return path.relative_to(workspace.root).as_posix() if path.is_relative_to(workspace.root) else str(path)


def read(workspace: Workspace, start: str) -> Start:
    """UserError: "start.missing", or "start.not_lora" for an adapter that is more than LoRA or DoRA."""
    folder = place(workspace, start)
    if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise UserError("start.missing", folder=start)
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError("start.not_lora", folder=start)
    run = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    asked = run.get("spec", {}).get("lora", {}).get("targets")
    targets = (
        config["target_modules"]
        if isinstance(config["target_modules"], str)
        else ",".join(sorted(config["target_modules"]))
    )
    lora = LoraSpec(
        rank=int(config["r"]),
        alpha=int(config["lora_alpha"]),
        targets=asked or targets,
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
    )
    base = (run.get("base") or {}).get("id") or config.get("base_model_name_or_path") or ""
    return Start(folder, base, lora, run)


def adopt(spec: TrainSpec, start: Start) -> TrainSpec:
    """The spec with the shape of the adapter that it goes on from."""
    return replace(spec, lora=replace(start.lora, dropout=spec.lora.dropout))


def check(workspace: Workspace, spec: TrainSpec, template_hash: str | None = None) -> Start | None:
    """The start of a run, None when it begins afresh. UserError("start.…") with what differs and what to do."""
    if not spec.start:
        return None
    start = read(workspace, spec.start)
    if start.base and not _same_model(start.base, spec.model.id):
        raise UserError("start.base_differs", adapter=start.name, base=start.base, model=spec.model.id)
    for name in ("rank", "alpha", "rslora", "dora"):
        have, want = getattr(start.lora, name), getattr(spec.lora, name)
        if have != want:
            raise UserError("start.shape_differs", adapter=start.name, what=name, have=have, want=want)
    if _targets(start.lora.targets) != _targets(spec.lora.targets) and "all-linear" not in (
        start.lora.targets,
        spec.lora.targets,
    ):
        have, want = start.lora.targets, spec.lora.targets
        raise UserError("start.shape_differs", adapter=start.name, what="targets", have=have, want=want)
    known = start.run.get("template_hash")
    if template_hash and known and known != template_hash:
        raise UserError("start.template_differs", adapter=start.name)
    return start


def _targets(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")}


def _same_model(one: str, other: str) -> bool:
    cards = find_model(one), find_model(other)
    if cards[0] is not None and cards[1] is not None:
        return cards[0] == cards[1]
    if Path(one).is_absolute():  # an adapter made elsewhere names the folder that its base was loaded from
        return Path(one).resolve() == Path(other).expanduser().resolve() or Path(other).name in one
    return one == other
