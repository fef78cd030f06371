"""One training run of several processes on one card, or on the CPU: start it, wait for it, read what it wrote.

Covers: the environment that a launcher would set, NCCL ranks that share a card, caps. Does not cover: judging the
result (fsdp_exact.py).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.spec import TrainSpec
from tests.gpu.random_base import BATCH

ROOT = Path(__file__).resolve().parent.parent.parent
ONE_CARD = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass
class Run:
    """``ranks`` 0 is one process without a launcher. ``after`` is the stopped run that it goes on from, ``cap`` GB of
    the card for each rank, ``fails`` the error that it must end with, ``accumulation`` 0 for the same batch per step
    whatever the ranks."""

    name: str
    ranks: int
    placement: str = "fsdp"
    offload: bool = False
    stop: bool = False
    after: str = ""
    no_bf16: bool = False
    cap: float = 0.0
    fails: str = ""
    accumulation: int = 0
    alone: bool = False
    ok: bool = False
    why: str = ""
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def machine(on_gpu: bool) -> str:
    """The head of a table: when, on what, with which torch."""
    import torch

    card = torch.cuda.get_device_name(0) if on_gpu else "CPU, gloo"
    return f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}"


def folder_of(home: Path, run: Run) -> Path:
    return home / "jobs" / (run.after or run.name).replace(" ", "-").replace(",", "")


def spec_of(run: Run, spec: TrainSpec) -> TrainSpec:
    accumulation = run.accumulation or BATCH // max(1, run.ranks)
    return replace(spec, schedule=replace(spec.schedule, accumulation=accumulation))


def environment(home: Path, run: Run, on_gpu: bool) -> dict[str, str]:
    env = {**os.environ, "NARANHI_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {"OMP_NUM_THREADS": "2" if on_gpu else "1", "PYTHONUNBUFFERED": "1"}
    own = ROOT / "tests" / ("gpu/ranks" if on_gpu else "finetune/cpu_ranks")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(own), str(ROOT), env.get("PYTHONPATH", "")]))
    env |= {} if on_gpu else {"NARANHI_TEST_CPU_FSDP": "1"}
    env |= {"NARANHI_TEST_CAP": str(run.cap)} if run.cap else {}
    env |= {"NARANHI_TEST_NO_BF16": "1"} if run.no_bf16 else {}
    if not run.ranks:
        return env
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env |= {"WORLD_SIZE": str(run.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if run.placement == "fsdp":
        env |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
        env |= {"FSDP_OFFLOAD_PARAMS": str(run.offload).lower()}
    return env | (ONE_CARD if on_gpu else {})


def start(run: Run, spec: TrainSpec, folder: Path, home: Path, on_gpu: bool) -> list[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, run.ranks)
    (folder / "spec.yaml").write_text(spec_of(run, spec).to_yaml(), encoding="utf-8")
    argv = [sys.executable, "-m", "finetune.train", "--spec", str(folder / "spec.yaml"), "--out", str(folder)]
    env = environment(home, run, on_gpu)
    processes = []
    for rank in range(each):
        # One device for all: each is the first rank of a host of its own. gloo tells ranks of one host apart.
        place = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NCCL_HOSTID": f"host{rank}"} if on_gpu else {}
        if not on_gpu:
            place = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(each)}
        own = env | ({"RANK": str(rank), **place} if run.ranks else {})
        with (folder / f"rank{rank}.log").open("ab") as log:
            processes.append(subprocess.Popen(argv, cwd=ROOT, env=own, stdout=log, stderr=log))
    return processes


def wait(processes: list[subprocess.Popen[bytes]], patience: float) -> str:
    """Until all have ended; the others are ended when one fails. What went wrong, or nothing."""
    deadline = time.monotonic() + patience
    why = ""
    while any(p.poll() is None for p in processes) and not why:
        time.sleep(0.2)
        failed = [rank for rank, p in enumerate(processes) if p.poll() not in (None, 0, 3)]
        if failed:
            time.sleep(3)  # for the others' own words
            why = f"rank {failed[0]} ended with {processes[failed[0]].returncode}"
        elif time.monotonic() > deadline:
            why = f"not done after {patience:.0f} s"
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    bad = [p.returncode for p in processes if p.returncode not in (0, 3)]
    return why or (f"exit codes {bad}" if bad else "")


def execute(run: Run, spec: TrainSpec, home: Path, on_gpu: bool, patience: float) -> None:
    """Fill in what came of it: losses, the record, or why it failed."""
    from finetune.progress import read

    folder = folder_of(home, run)
    (folder / "stop").unlink(missing_ok=True)
    if run.stop:
        folder.mkdir(parents=True)
        (folder / "stop").touch()
    began = time.monotonic()
    run.why = wait(start(run, spec, folder, home, on_gpu), patience)
    run.seconds = time.monotonic() - began
    run.losses = {row["step"]: row["loss"] for row in read(folder).steps}
    if run.why:
        errors = [json.loads(file.read_text()) for file in sorted(folder.glob("error*.json"))]
        errors.sort(key=lambda e: (e["key"] == "train.rank_lost", e["time"]))
        run.why += f": {errors[0]['key']} {errors[0]['values']}" if errors else ""
        if not run.fails:
            log = min(folder.glob("rank*.log"))
            print(f"--- {run.name}, {log.name}\n{log.read_text(errors='replace')[-1800:]}", flush=True)
        return
    run.record = json.loads((folder / "run.json").read_text())
    run.ok = True
