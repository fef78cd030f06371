"""Copies of models in 4 bits, made once and loaded by training and comparing alike.

Covers: how models are quantised, where a copy is, whether it is whole and made from these very files. Does not cover:
making one (finetune/train_quantise.py) or loading it; a copy is an ordinary checkpoint folder with NF4 weights packed as
float32.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from assets.files import Workspace, read_json
from assets.hub import ModelFiles

RECORD = "quantised.json"
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_quant_storage": "float32",  # the one that FSDP2 gathers on CUDA without changing a byte
}
SAMPLES, SAMPLE_BYTES = 16, 1 << 16


def source_of(files: ModelFiles) -> str:
    """The Hub commit or package version, or a digest of a local folder: its config and samples of its weights."""
    if files.revision is not None:
        return files.revision
    digest = hashlib.sha256((files.folder / "config.json").read_bytes())
    for path in sorted(files.folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for i in range(SAMPLES):
                file.seek(size * i // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return f"local:{digest.hexdigest()[:40]}"


def copy_folder(workspace: Workspace, files: ModelFiles) -> Path:
    """Where the copy of a model belongs, there or not. Copies of other revisions have folders of their own."""
    name = files.id.strip("/").replace("/", "--")[-80:]
    mark = hashlib.sha256(f"{files.id} {source_of(files)}".encode()).hexdigest()[:8]
    return workspace.models / f"{name}-{mark}-nf4"


def find_copy(workspace: Workspace, files: ModelFiles) -> Path | None:
    """The folder of a whole copy, or None. It was made from these files: their source is part of its name."""
    folder = copy_folder(workspace, files)
    record = folder / RECORD
    if not record.exists():
        return None
    sizes = read_json(record)["files"]
    whole = all((folder / n).exists() and (folder / n).stat().st_size == size for n, size in sizes.items())
    return folder if whole else None
