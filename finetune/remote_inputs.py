"""What a run needs on another machine: its data, the adapter it goes on from, this program.

Covers: which files of the workspace go along and under which names, what cannot go, the program as a zip. Does not cover:
the base model, which the other machine downloads itself.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from assets import preferences
from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from finetune import start as starting
from finetune.jobs import ROOT
from finetune.sources import upload_path
from finetune.spec import TrainSpec

PROGRAM = ("assets", "finetune")
LEFT_OUT = ("pictures", "guides", "__pycache__")
ONLY_HERE = ("gradio", "scipy", "segno", "gguf", "httpx")
"""Packages of requirements.txt that the page and the comparison need and training does not."""


def inputs(workspace: Workspace, spec: TrainSpec) -> dict[str, Path]:
    """Files by their place below the workspace. UserError for what only this machine has: "elsewhere.local_model",
    "elsewhere.outside" for data or an adapter that is not in the workspace."""
    model = spec.model.id
    if model != STARTER and (Path(model).expanduser().is_dir() or model.startswith(("/", ".", "~"))):
        raise UserError("elsewhere.local_model", model=model)
    if spec.method == "full":  # only adapters and their checkpoints are brought back
        raise UserError("elsewhere.full")
    found: list[Path] = []
    if spec.data.kind == "file":
        found.append(upload_path(workspace, spec.data.id))
    if spec.data.kind == "preferences":
        made = preferences.read(workspace, spec.data.id)
        found += [made.path, made.path.with_suffix(".json")]
    if spec.start:
        adapter = starting.read(workspace, spec.start).folder
        found += [path for path in sorted(adapter.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {_inside(workspace, path): path for path in found}


def _inside(workspace: Workspace, path: Path) -> str:
    root = workspace.root.resolve()
    if not path.resolve().is_relative_to(root):
        raise UserError("elsewhere.outside", file=str(path))
    if not path.is_file():
        raise UserError("data.missing", name=path.name)
    return path.resolve().relative_to(root).as_posix()


def program() -> bytes:
    """The code that trains, with the texts and tables it reads, as a zip that is the same for the same code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for room in PROGRAM:
            for path in sorted((ROOT / room).rglob("*")):
                name = path.relative_to(ROOT)
                if path.is_file() and not set(name.parts) & set(LEFT_OUT):
                    archive.writestr(zipfile.ZipInfo(name.as_posix()), path.read_bytes())
    return buffer.getvalue()


def requirements() -> list[str]:
    """The pinned packages that training needs."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [line for line in pinned if re.split(r"[=<>!\[]", line)[0] not in ONLY_HERE]
