"""Does 70B train in 24 GB a card? Its shape with random weights in 4 bits; every rank has no more of the card than that.

    python -m tests.gpu.big                                    on a GPU of 100 GB or more, 45 GB of disk
    python -m tests.gpu.big --shape tiny --runs 2x64           a rehearsal on the CPU over gloo, caps left out

Four ranks share one card (tests/gpu/ranks_run.py): that they fit and that every 4-bit module is gathered exactly is real,
their speed is not, and a step takes minutes. ``--runs`` are ranks x tokens, with "o" behind for offload to the host's memory;
those of one --runs go beside each other, those of the next after them. One step of one conversation a rank, no evaluation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.memory import CONTEXT, RANK, Estimate
from finetune.spec import TrainSpec
from tests.gpu.planner import write_talks
from tests.gpu.planner_points import Point, guess, spec_of
from tests.gpu.ranks_run import ROOT, Run, execute, machine

CARD = 24.0
HEAD = (
    "| tokens | ranks | offload | result | 4-bit modules | loss | reserved GB | allocated GB | estimate, with what is "
    "outside PyTorch | host GB a rank (RSS) | its share (PSS) | s |"
)


def parse(text: str, shape: str) -> Point:
    """Of "4x1024o": 4 ranks, 1,024 tokens, offloaded."""
    ranks, tokens = text.rstrip("o").split("x")
    return Point(shape, int(tokens), 1, True, int(ranks), "fsdp", text.endswith("o"))


def spec_for(point: Point, home: Path) -> TrainSpec:
    spec = spec_of(point, home)
    return replace(spec, schedule=replace(spec.schedule, steps=1, accumulation=1))


def measure(point: Point, home: Path, on_gpu: bool, until: float) -> dict[str, Any]:
    cap = CARD - (CONTEXT + RANK) / 1e9
    run = Run(point.name, point.ranks, offload=point.offload, accumulation=1, cap=cap if on_gpu else 0.0)
    execute(run, spec_for(point, home), home, on_gpu, max(5.0, until - time.monotonic()))
    canary = run.record.get("canary", {})
    if run.ok and not (canary["modules"] == canary["of"] == canary["sharded"]):
        run.ok, run.why = False, f"canary {canary}"
    found = {"point": point.name, "ok": run.ok, "why": run.why[:300], "seconds": run.seconds, "losses": run.losses}
    found |= {"canary": canary, "ranks": run.record.get("ranks", [])}
    print(row(point, found, guess(point)), flush=True)
    return found


def row(point: Point, found: dict[str, Any], made: Estimate) -> str:
    ranks, canary = found["ranks"], found["canary"]

    def most(key: str) -> str:
        return f"{max((r.get(key) or 0) for r in ranks) / 1e9:.2f}" if ranks else "–"

    cells = [
        f"{point.length:,}",
        f"{point.ranks}",
        "yes" if point.offload else "no",
        "fits" if found["ok"] else f"**no**: {found['why'][:160]}",
        f"{canary.get('modules', 0)}/{canary.get('of', 0)}",
        " ".join(f"{loss:.4f}" for loss in found["losses"].values()),
        most("gpu_memory"),
        most("gpu_allocated"),
        f"{made.total / 1e9:.2f} ({made.low / 1e9:.1f}–{made.high / 1e9:.1f})",
        most("host_memory"),
        most("host_share"),
        f"{found['seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """0 when every run fitted and was exact, and none was left out."""
    import torch

    options = arguments()
    on_gpu, began = torch.cuda.is_available(), time.monotonic()
    home = options.home.resolve()
    shutil.rmtree(home, ignore_errors=True)
    (home / "uploads").mkdir(parents=True)
    waves = [[parse(text, options.shape) for text in wave] for wave in options.runs]
    wanted = [point for wave in waves for point in wave]
    for point in wanted:
        write_talks(point, home)
    argv = [sys.executable, "-W", "ignore", "-m", "tests.gpu.packed_base", options.shape]
    subprocess.run([*argv, str(home / "bases" / options.shape)], cwd=ROOT, check=True)
    print(f"{machine(on_gpu)}, {options.shape} in NF4, rank 16 on all linears")
    print(f"base made after {time.monotonic() - began:.0f} s\n{HEAD}\n{'|---' * 12}|", flush=True)
    found: list[dict[str, Any]] = []
    until = began + options.budget
    for wave in waves:
        if until - time.monotonic() < options.least:
            print("left out for want of time:", ", ".join(point.name for point in wave))
            continue
        with ThreadPoolExecutor(len(wave)) as pool:
            found += pool.map(lambda point: measure(point, home, on_gpu, until), wave)
        options.out.write_text(json.dumps(found), encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if sum(one["ok"] for one in found) == len(wanted) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama70b")
    parser.add_argument("--runs", nargs="+", action="append", help="as 4x1024 1x2048o")
    parser.add_argument("--budget", type=float, default=480, help="seconds for everything")
    parser.add_argument("--least", type=float, default=100, help="seconds that must be left for runs to begin")
    parser.add_argument("--home", type=Path, default=Path("/tmp/big"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/big.json"))
    options = parser.parse_args()
    options.runs = options.runs or [["1x2048o"], ["4x1024"], ["4x2048"], ["4x1024o"]]
    return options


if __name__ == "__main__":
    sys.exit(main())
