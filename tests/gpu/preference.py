"""DPO and KTO on one GPU: they begin exactly at their reference, what a stop changes, memory as estimated.

By hand, on a machine with a GPU: python -m tests.gpu.preference [--hidden 2048 --layers 16 …]

The base has random weights in the shape asked for (Llama 3.2 1B by default), NF4; the parent is an adapter that two
steps of plain fine-tuning made. Every run is a process of its own, so that peaks are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from assets.files import Workspace, read_json
from finetune.memory import Shape, estimate
from finetune.progress import read
from finetune.spec import DataSpec, TrainSpec
from tests.finetune.preference_rows import KEPT, said, store
from tests.gpu.random_base import make_base, make_spec

PARENT = "jobs/parent/adapter"
KINDS = ("whole", "twice", "cut")


def rows(length: int) -> list[dict[str, Any]]:
    """Pairs of about ``length`` tokens a side; the tokenizer takes three per syllable."""
    words = ["나란히 ", "놓고 ", "비교해요. ", "오늘은 ", "비가 ", "왔어요. "]

    def text(n: int, step: int) -> str:
        return "".join(words[(n * 7 + i * step) % len(words)] for i in range(length // 8))

    return [
        {"prompt": said(q, "user"), "chosen": said(text(n, 1)), "rejected": said(text(n, 5))}
        for n, q in enumerate(KEPT[:24])
    ]


def start(spec: TrainSpec, home: Path, name: str, stop: bool = False) -> subprocess.Popen[bytes]:
    folder = home / "jobs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    if stop:
        (folder / "stop").touch()
    else:
        (folder / "stop").unlink(missing_ok=True)
    argv = [sys.executable, "-m", "finetune.train", "--spec", str(folder / "spec.yaml"), "--out", str(folder)]
    with (folder / "train.log").open("ab") as log:
        return subprocess.Popen(argv, env={**os.environ, "NARANHI_HOME": str(home)}, stdout=log, stderr=log)


def ended(process: subprocess.Popen[bytes], home: Path, name: str) -> None:
    if process.wait() not in (0, 3):
        raise SystemExit(f"{name}\n{(home / 'jobs' / name / 'train.log').read_text()[-3000:]}")


def told(spec: TrainSpec, home: Path, shape: Shape) -> str:
    """One row: first loss, last margin, whether the same run gives the same again, whole and after a stop, peak against
    estimate."""
    whole, twice, cut = (home / "jobs" / f"{spec.name}-{kind}" for kind in KINDS)
    losses = [[(row["step"], row["loss"]) for row in read(folder).steps] for folder in (whole, twice, cut)]
    files = [(folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in (whole, twice, cut)]
    parted = [
        max(abs(a[1] - b[1]) for a, b in zip(losses[0], other, strict=True))
        if other != losses[0] or file != files[0]
        else None
        for other, file in zip(losses[1:], files[1:], strict=True)
    ]
    same = ["the same" if gap is None else f"differs by {gap:.1e}" for gap in parted]
    record = read_json(whole / "run.json")
    peak = record["ranks"][0].get("gpu_memory", 0) / 1e9
    canary = f"{record['canary']['modules']}/{record['canary']['of']}"
    guess = estimate(shape, spec).total / 1e9
    margin = read(whole).latest("margin")
    return (
        f"| {spec.objective} | {losses[0][0][1]!r} | {margin:.4f} | {same[0]} | {same[1]} | {canary} | "
        f"{peak:.2f} | {guess:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    sizes = {
        "hidden": 2048,
        "layers": 16,
        "intermediate": 8192,
        "heads": 32,
        "kv_heads": 8,
        "vocab": 128256,
        "length": 512,
    }
    for name, value in sizes.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="preference-"))
    workspace = Workspace(home).prepare()
    make_base(home / "base", options)
    shape = Shape.from_config(json.loads((home / "base" / "config.json").read_text()))
    plain = make_spec(home, options.length)
    ended(start(plain, home, "parent"), home, "parent")
    file = store(workspace, rows(options.length))
    schedule = replace(plain.schedule, steps=4, micro_batch=2, accumulation=2)
    specs = [
        replace(
            plain,
            name=objective,
            data=DataSpec(file, "preferences", heldout=0.2),
            objective=objective,
            start=PARENT,
            schedule=schedule,
            watch=replace(plain.watch, every=2),
        )
        for objective in ("dpo", "kto")
    ]
    first = [(f"{s.name}-{kind}", start(s, home, f"{s.name}-{kind}", kind == "cut")) for s in specs for kind in KINDS]
    for name, process in first:
        ended(process, home, name)
    again = [(f"{s.name}-cut", start(s, home, f"{s.name}-cut")) for s in specs]
    for name, process in again:
        ended(process, home, name)
    print("| objective | first loss | last gap | once more | after a stop | 4-bit layers | peak GB | estimate GB |")
    print("|---|---|---|---|---|---|---|---|")
    for spec in specs:
        print(told(spec, home, shape))


if __name__ == "__main__":
    main()
