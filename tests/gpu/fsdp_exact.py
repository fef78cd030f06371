"""Is training over shards exact, and what does it take? Real ranks on one card, against one process.

    python -m tests.gpu.fsdp_exact                                           an 8B shape with random weights on a GPU
    python -m tests.gpu.fsdp_exact --layers 2 --hidden 128 --intermediate 256 --heads 2 --kv-heads 1 --vocab 512 --length 64

Without a GPU the same runs go over gloo, offload left out: a rehearsal. NCCL refuses two ranks on one device of one
host, so every rank is told another host name; traffic then goes over loopback: memory and numbers are real, speed is
not. Needs no network, about 25 GB of disk for 8B, and prints one table at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from finetune.spec import TrainSpec  # noqa: E402
from tests.gpu.random_base import BATCH, STEPS, make_base, make_spec  # noqa: E402

LOSS_CLOSE = 2e-3
ONE_CARD = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass
class Run:
    """One training run. ``ranks`` 0 is one process without a launcher. ``after`` is the stopped run that it goes on from."""

    name: str
    ranks: int
    offload: bool = False
    stop: bool = False
    after: str = ""
    ok: bool = False
    why: str = ""
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def runs(ranks: list[int], offload: bool) -> list[Run]:
    found = [Run("one process", 0)]
    found += [Run(f"{n} ranks", n) for n in ranks if n > 1]
    found += [Run("4 ranks, stopped", 4, stop=True), Run("goes on with 2", 2, after="4 ranks, stopped")]
    if offload:
        found += [Run(f"{n} ranks, offload", n, offload=True) for n in ranks]
    return found


def environment(home: Path, run: Run, on_gpu: bool) -> dict[str, str]:
    env = {**os.environ, "NARANHI_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {"OMP_NUM_THREADS": "4" if on_gpu else "1", "PYTHONUNBUFFERED": "1"}
    path = [str(ROOT), env.get("PYTHONPATH", "")]
    if not on_gpu:
        path.insert(0, str(ROOT / "tests" / "finetune" / "cpu_ranks"))
        env["NARANHI_TEST_CPU_FSDP"] = "1"
    env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if not run.ranks:
        return env
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env |= {"WORLD_SIZE": str(run.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    env |= {"FSDP_OFFLOAD_PARAMS": str(run.offload).lower()}
    return env | (ONE_CARD if on_gpu else {})


def start(run: Run, spec: TrainSpec, folder: Path, home: Path, on_gpu: bool) -> list[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, run.ranks)
    spec = replace(spec, schedule=replace(spec.schedule, accumulation=BATCH // each))
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
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
    from finetune.progress import read

    folder = home / "jobs" / (run.after or run.name).replace(" ", "-").replace(",", "")
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
        for log in sorted(folder.glob("rank*.log")):
            print(f"--- {run.name}, {log.name}\n{log.read_text(errors='replace')[-2500:]}", flush=True)
        return
    run.record = json.loads((folder / "run.json").read_text())
    run.ok = True


def judge(run: Run, reference: Run) -> None:
    """Every byte compared, nothing left unsharded, losses those of one process."""
    canary = run.record["canary"]
    if canary["modules"] != canary["of"] or canary["sha256"] != reference.record["canary"]["sha256"]:
        run.ok, run.why = False, "canary"
    if run.ranks > 1 and canary["sharded"] != canary["of"]:
        run.ok, run.why = False, "not sharded"
    if difference(run, reference) > LOSS_CLOSE:
        run.ok, run.why = False, "loss"
    wanted = [1] if run.stop else list(range(1, STEPS + 1))
    if sorted(run.losses) != wanted:
        run.ok, run.why = False, f"steps {sorted(run.losses)}"


def difference(run: Run, reference: Run) -> float:
    shared = run.losses.keys() & reference.losses.keys()
    return max((abs(run.losses[k] - reference.losses[k]) for k in shared), default=float("inf"))


def reopen(home: Path, spec: TrainSpec, run: Run, on_gpu: bool) -> str:
    """The adapter of a sharded run on the base in one process: its evaluation again, as that run wrote it down."""
    import torch
    from peft import PeftModel

    from assets.chat import ChatFormat
    from assets.files import Workspace
    from assets.hub import locate
    from assets.quantised import find_copy
    from finetune import sources
    from finetune.train import encode
    from finetune.train_model import load_base
    from finetune.train_save import verify_adapter

    folder = home / "jobs" / run.name.replace(" ", "-") / "adapter"
    facts = verify_adapter(folder)
    workspace = Workspace(home)
    files = locate(workspace, spec.model.id)
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    precision = "bfloat16" if on_gpu or run.record["spec"]["hardware"]["precision"] == "auto" else "float32"
    model = PeftModel.from_pretrained(
        load_base(find_copy(workspace, files) or files.folder, spec, precision, device), folder
    )
    source = sources.load(workspace, spec.data)
    rows = encode(source.heldout[: spec.watch.examples], ChatFormat.from_folder(files.folder), spec)
    total = count = 0.0
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=device)
            labels = torch.tensor([row["labels"]], device=device)
            learnt = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * learnt
            count += learnt
    wrote = run.record["metrics"]["eval_loss"]["last"]
    return f"{facts}, held-out loss {total / count:.4f} per token (the run wrote {wrote:.4f}, a mean over rows)"


def table(done: list[Run], reference: Run) -> str:
    lines = ["| run | exact | canary | losses | largest difference | GPU peak per rank | host share at load | s |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for run in done:
        ranks, canary = run.record.get("ranks", []), run.record.get("canary", {})
        gpu = " ".join(f"{r.get('gpu_memory', 0) / 1e9:.1f}" for r in ranks)
        host = " ".join(f"{(r.get('host_share_loaded') or 0) / 1e9:.1f}" for r in ranks)
        losses = " ".join(f"{loss:.4f}" for _, loss in sorted(run.losses.items()))
        said = "yes" if run.ok else f"**no**: {run.why[:120]}"
        seen = f"{canary.get('modules', 0)}/{canary.get('of', 0)}"
        off = f"{difference(run, reference):.1e}"
        lines.append(f"| {run.name} | {said} | {seen} | {losses} | {off} | {gpu} | {host} | {run.seconds:.0f} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape = {"layers": 32, "hidden": 4096, "intermediate": 14336, "heads": 32, "kv-heads": 8, "vocab": 128256}
    for name, value in {**shape, "length": 1024, "budget": 450}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--no-offload", action="store_true")
    parser.add_argument("--home", type=Path, default=Path("/tmp/fsdp_exact"))
    return parser.parse_args()


def main() -> int:
    """0 when every run was exact; runs for which no time was left are named."""
    import torch

    options = arguments()
    on_gpu = torch.cuda.is_available()
    began = time.monotonic()
    home = options.home.resolve()
    shutil.rmtree(home, ignore_errors=True)
    print("making the base", flush=True)
    make_base(home / "base", options)
    spec = make_spec(home, options.length)
    copy(home, spec)
    made = time.monotonic() - began
    done: list[Run] = []
    for run in runs(options.ranks, on_gpu and not options.no_offload):
        left = options.budget - (time.monotonic() - began)
        if left < 20 or (run.after and not next(r for r in done if r.name == run.after).ok):
            print(f"left out for want of time or of what it goes on from: {run.name}", flush=True)
            continue
        print(f"{run.name} …", flush=True)
        execute(run, spec, home, on_gpu, left)
        done.append(run)
        if run.ok:
            judge(run, done[0])
    where = torch.cuda.get_device_name(0) if on_gpu else "CPU, gloo"
    shape = f"{options.layers} layers of {options.hidden}, {options.length} tokens, {BATCH} conversations a step"
    print(
        f"\n{time.strftime('%Y-%m-%d')}, {where}, torch {torch.__version__}; {shape}; base and copy made in {made:.0f} s\n"
    )
    print(table(done, done[0]))
    last = next((r for r in reversed(done) if r.ok and r.ranks > 1 and not (r.stop or r.after or r.offload)), None)
    if last is not None:
        print(f"\nadapter of “{last.name}” reopened: {reopen(home, spec, last, on_gpu)}")
    return 0 if all(run.ok for run in done) else 1


def copy(home: Path, spec: TrainSpec) -> None:
    """Made before the first run, so that one process loads the very same file."""
    from assets.files import Workspace
    from assets.hub import locate
    from finetune.train_quantise import ensure
    from finetune.train_watch import Report

    workspace = Workspace(home).prepare()
    ensure(workspace, locate(workspace, spec.model.id), spec, Report(home, False))


if __name__ == "__main__":
    sys.exit(main())
