"""A run's adapter merged into its base, and GGUF files of the result: asked for, watched and told from the page.

Covers: starting the process that does it, what it says of itself (merge.json in the run's folder), where llama.cpp's
converter is. Does not cover: the work (merge_run.py, which imports torch) or components (tab_merge.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from assets.errors import UserError
from assets.files import lock, read_json, write_json
from finetune import outcome
from finetune.jobs import ROOT, alive, identity

Kind = Literal["merge", "gguf"]
GGUF_TYPES = ("bf16", "q8_0")
RECORD, LOG = "merge.json", "merge.log"
MERGED, GGUF = "merged", "gguf"
PHASES: Mapping[Kind, tuple[str, ...]] = {"merge": ("load", "merge", "save", "check"), "gguf": ("convert", "check")}
CONVERTER = "convert_hf_to_gguf.py"
VARIABLE = "NARANHI_LLAMA_CPP"


@dataclass(frozen=True)
class Merge:
    """What merge.json says. ``state`` is "running", "done" or "failed"; ``process`` (pid, its start); ``error`` key and
    values of a sentence; ``result`` and ``gguf`` what came of the two kinds of work, {} before."""

    kind: Kind = "merge"
    state: str = "running"
    phase: str = ""
    process: tuple[int, float] | None = None
    error: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    gguf: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def share(self) -> float:
        phases = PHASES[self.kind]
        return phases.index(self.phase) / len(phases) if self.phase in phases else 0.0


def read(folder: Path) -> Merge | None:
    """How far a run's merging is, None when nobody asked. One whose process is gone has failed. UserError("merge.record")
    for a record that cannot be read, or of a newer version."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        values = {k: v for k, v in read_json(path).items() if k in Merge.__dataclass_fields__}
        found = Merge(**{**values, "process": tuple(values["process"]) if values.get("process") else None})
    except (AttributeError, ValueError, TypeError) as error:
        raise UserError("merge.record") from error
    if found.version > Merge.version:
        raise UserError("merge.record")
    if found.running and not alive(found.process):
        return Merge(found.kind, "failed", found.phase, None, _error("merge.killed"), found.result, found.gguf)
    return found


def save(folder: Path, merge: Merge) -> None:
    write_json(folder / RECORD, vars(merge))


def failed(merge: Merge, error: UserError) -> Merge:
    return Merge(merge.kind, "failed", merge.phase, None, _error(error.key, error.values), merge.result, merge.gguf)


def start(folder: Path, kind: Kind, outtype: str = GGUF_TYPES[0]) -> None:
    """Begin in a process of its own, which outlives this one. UserErrors say what is missing first."""
    with lock(folder / "merge"):
        before = read(folder)
        if before is not None and before.running:
            raise UserError("merge.running")
        check(folder, kind)
        argv = [sys.executable, "-m", "finetune.merge_run", "--job", str(folder), "--kind", kind, "--type", outtype]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=env | {"NARANHI_HOME": str(folder.parent.parent), "TOKENIZERS_PARALLELISM": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        save(folder, begun(before, kind, process.pid))


def begun(before: Merge | None, kind: Kind, pid: int) -> Merge:
    """The record of work that this process does; what came of earlier work stays."""
    done = before or Merge()
    return Merge(kind, "running", PHASES[kind][0], identity(pid), {}, done.result, done.gguf)


def check(folder: Path, kind: Kind) -> None:
    """UserErrors: "merge.nothing" before there is a result, "merge.whole" where nothing has to be merged, "merge.first"
    and "merge.no_converter" for a GGUF file without its source or its tool."""
    made = outcome.made(folder)
    if made is None or not (made / "run.json").is_file():
        raise UserError("merge.nothing")
    if kind == "merge" and made.name == outcome.MODEL:
        raise UserError("merge.whole", folder=shown(made))
    if kind == "gguf" and source(folder) is None:
        raise UserError("merge.first")
    if kind == "gguf" and converter() is None:
        raise UserError("merge.no_converter", variable=VARIABLE)


def source(folder: Path) -> Path | None:
    """The whole model that a run has: trained as one, or merged."""
    return next((folder / name for name in (outcome.MODEL, MERGED) if (folder / name / "config.json").is_file()), None)


def converter() -> Path | None:
    """llama.cpp's script: what NARANHI_LLAMA_CPP names (it, or its folder), else the one on the PATH."""
    told = os.environ.get(VARIABLE, "").strip()
    if told:
        path = Path(told).expanduser()
        path = path / CONVERTER if path.is_dir() else path
        return path if path.is_file() else None
    found = shutil.which(CONVERTER)
    return Path(found) if found else None


def shown(path: Path) -> str:
    """What a run has made as people find it: by its place below the workspace."""
    parts = path.parts
    return "/".join(parts[len(parts) - 1 - parts[::-1].index("jobs") :]) if "jobs" in parts else path.name


def wait(folder: Path, seconds: float) -> Merge | None:
    """The state once nothing runs any more, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := read(folder)) is not None and found.running and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _error(key: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"key": key, "values": dict(values or {})}
