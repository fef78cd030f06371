"""The script that merges a run's adapter into its 16-bit base, or makes a GGUF file of the result.

Covers: the process around either, llama.cpp's converter. Does not cover: asking for it (merge.py), the merging
(merge_weights.py). On the CPU, so that no GPU has to be free.

    python -m finetune.merge_run --job workspace/jobs/my-run --kind merge
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import Workspace, lock, read_json
from assets.priority import step_back
from finetune import merge as asked
from finetune import outcome


def gguf(folder: Path, outtype: str, told: Callable[[str], None]) -> dict[str, Any]:
    """Run llama.cpp's converter and reopen what it wrote. UserErrors: "merge.…"."""
    asked.check(folder, "gguf")
    source, script = asked.source(folder), asked.converter()
    assert source is not None and script is not None
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    run = read_json(source / "run.json")
    name = re.sub(r"[^\w.-]+", "-", run["name"]).strip("-.") or "model"
    target = folder / asked.GGUF / f"{name}-{outtype}.gguf"
    outcome.check_room(target, size, "merge.disk")
    target.parent.mkdir(exist_ok=True)
    part = target.with_suffix(".part")
    told("convert")
    done = subprocess.run(
        [sys.executable, str(script), str(source), "--outfile", str(part), "--outtype", outtype],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, flush=True)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        if missing := re.search(r"No module named '([\w.]+)'", done.stdout):
            raise UserError("merge.gguf_module", module=missing[1])
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise UserError("merge.gguf_failed", reason=lines[-1][:200] if lines else str(done.returncode))
    told("check")
    tensors = gguf_tensors(part)
    part.rename(target)
    return {"file": asked.shown(target), "bytes": target.stat().st_size, "tensors": tensors, "type": outtype}


def gguf_tensors(path: Path) -> int:
    """Tensors in a GGUF file, reopened. UserError("merge.gguf_failed") for one that has none or cannot be read."""
    from gguf import GGUFReader

    try:
        tensors = len(GGUFReader(path).tensors)
    except (ValueError, IndexError, KeyError) as error:
        raise UserError("merge.gguf_failed", reason=str(error)[:200]) from error
    if not tensors:
        raise UserError("merge.gguf_failed", reason="0 tensors")
    return tensors


def main() -> int:
    parser = argparse.ArgumentParser(description="Merge a run's adapter into its base, or make a GGUF file of it.")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--kind", choices=list(asked.PHASES), default="merge")
    parser.add_argument("--type", choices=asked.GGUF_TYPES, default=asked.GGUF_TYPES[0])
    options = parser.parse_args()
    folder = options.job.resolve()
    if not (folder / "run.json").is_file():
        parser.error(f"{folder} is no run that has ended")
    with lock(folder / "merge"):  # whoever started this process has written down that it did
        state = asked.begun(asked.read(folder), options.kind, os.getpid())

    def told(phase: str) -> None:
        nonlocal state
        state = replace(state, phase=phase)
        _save(folder, state)

    if os.getsid(0) == os.getpid():  # in a shell of somebody's it would slow down all that follows
        step_back()
    try:
        if options.kind == "merge":
            from finetune.merge_weights import merge

            asked.check(folder, "merge")
            result = merge(folder, Workspace.from_environment(), told)
            state = replace(state, state="done", process=None, result=result)
        else:
            file = gguf(folder, options.type, told)
            state = replace(state, state="done", process=None, gguf=file)
        _save(folder, state)
        return 0
    except Exception as error:
        traceback.print_exc()
        known = error if isinstance(error, UserError) else explained(error)
        _save(folder, asked.failed(state, known))
        return 1


def explained(error: Exception) -> UserError:
    from finetune.train import explain

    told = explain(error)
    if told["key"] == "train.disk_full":
        return UserError("merge.disk_full")
    return UserError("merge.failed", reason=f"{type(error).__name__}: {error}"[:300])


def _save(folder: Path, state: asked.Merge) -> None:
    """A run that was deleted meanwhile stays deleted."""
    if not (folder / "run.json").is_file():
        for name in (asked.MERGED, asked.GGUF):
            shutil.rmtree(folder / name, ignore_errors=True)
        raise SystemExit(1)
    asked.save(folder, state)


if __name__ == "__main__":
    sys.exit(main())
