"""Does a run take what the planner says? Real training of real shapes, its measured peak beside the estimate.

    python -m tests.gpu.planner                                   on a GPU: as many of 36 points as four minutes allow
    python -m tests.gpu.planner --only fsdp ddp --slots 8         those of several ranks, which are slow on one card
    python -m tests.gpu.planner --shapes tiny tiny_gemma2         a rehearsal on the CPU over gloo
    python -m tests.gpu.planner --again tests/finetune/measured_peaks.json     measured before, against today's estimate

Every point is finetune.train with NF4, rank 16 on all linears, two steps of two micro-batches and no evaluation, in
processes of its own; several points run at the same time within the card's memory and the cores. Ranks share the card
(tests/gpu/ranks_run.py): their memory is real, their speed is not. What does not fit into --budget is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.gpu import cores
from finetune.memory import CONTEXT, RANK
from tests.gpu.contexts import beyond
from tests.gpu.planner_points import ACCUMULATION, HEAD, RULE, STEPS, Point, guess, points, row, spec_of
from tests.gpu.ranks_run import ROOT, Run, execute, folder_of, machine


def write_talks(point: Point, home: Path) -> None:
    """Alone every text is as long as allowed; of several every second one is a bit shorter, so that they are padded."""
    file = home / "uploads" / f"talks-{point.length}-{point.micro}.jsonl"
    if file.exists():
        return
    rows = []
    for n in range(STEPS * ACCUMULATION * point.micro * 4):
        wanted = point.length * 7 // 8 - 32 if point.micro > 1 and n % 2 else 2 * point.length
        answer = "가나다 " * (wanted // 10)  # ten tokens each
        talk = [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"messages": talk}, ensure_ascii=False))
    file.write_text("\n".join(rows), encoding="utf-8")


def measure(point: Point, home: Path, on_gpu: bool, patience: float) -> dict[str, Any]:
    """The run's record: what each rank had reserved and allocated at most, bytes; or why it ended."""
    placement = "" if point.placement == "single" else point.placement
    ranks = point.ranks if placement else 0
    run = Run(point.name, ranks, placement=placement or "fsdp", offload=point.offload, accumulation=ACCUMULATION)
    execute(run, spec_of(point, home), home, on_gpu, patience)
    found: dict[str, Any] = {**asdict(point), "seconds": round(run.seconds, 1)}
    if not run.ok:
        return found | {"why": run.why[:300]}
    each = run.record["ranks"]
    found |= {key: [r[name] for r in each if name in r] for key, name in MEASURED.items()}
    phases = [json.loads(file.read_text()) for file in sorted(folder_of(home, run).glob("memory.*.json"))]
    found |= {"phases": phases[0]} if phases else {}
    shutil.rmtree(folder_of(home, run), ignore_errors=True)  # checkpoints of all points would fill the disk
    return found


MEASURED = {"reserved": "gpu_memory", "allocated": "gpu_allocated", "host": "host_share"}


class Queue:
    """Runs points beside each other as long as the card's memory and the cores allow."""

    def __init__(self, home: Path, on_gpu: bool, memory: float, slots: int, until: float, out: Path) -> None:
        self._home, self._on_gpu, self._until, self._out = home, on_gpu, until, out
        self._memory, self._slots = memory, slots
        self._changed = threading.Condition()
        self.ready: set[str] = set()
        self.found: list[dict[str, Any]] = []

    def made(self, shape: str) -> None:
        with self._changed:
            self.ready.add(shape)
            self._changed.notify_all()

    def run(self, waiting: list[Point], least: float) -> list[Point]:
        """Returns the points for which no time was left; ``least`` seconds are what a run takes."""
        threads: list[threading.Thread] = []
        waiting = list(waiting)
        with self._changed:
            while waiting and time.monotonic() + least < self._until:
                following = next((p for p in waiting if self._fits(p)), None)
                if following is None:
                    self._changed.wait(1)
                    continue
                waiting.remove(following)
                self._take(following, 1)
                threads.append(threading.Thread(target=self._one, args=(following,)))
                threads[-1].start()
        for thread in threads:
            thread.join()
        return waiting

    def _need(self, point: Point) -> float:
        return point.ranks * guess(point).high

    def _fits(self, point: Point) -> bool:
        return point.shape in self.ready and self._need(point) <= self._memory and point.ranks <= self._slots

    def _take(self, point: Point, sign: int) -> None:
        self._memory -= sign * self._need(point)
        self._slots -= sign * point.ranks

    def _one(self, point: Point) -> None:
        found = measure(point, self._home, self._on_gpu, max(5.0, self._until - time.monotonic()))
        with self._changed:
            self.found.append(found)
            self._take(point, -1)
            print(row(found), f"{found['seconds']:.0f} s", flush=True)
            with self._out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            self._changed.notify_all()


def make_bases(shapes: list[str], home: Path, queue: Queue) -> None:
    """All at the same time, each in a process; a shape's runs begin when its base is there."""

    def make(shape: str) -> None:
        argv = [sys.executable, "-m", "tests.gpu.packed_base", shape, str(home / "bases" / shape)]
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(argv, cwd=ROOT, check=True, env=environment, stderr=subprocess.DEVNULL)
        print(f"{shape}: base made", flush=True)
        queue.made(shape)

    for shape in shapes:
        threading.Thread(target=make, args=(shape,), daemon=True).start()


def contexts() -> str:
    """Bytes that the driver counts for one process and for each of two ranks beyond what PyTorch reserved, which is measured
    before any other run; a failure is told and costs only this figure."""
    try:
        one, two = beyond(1), beyond(2) // 2
    except ValueError as error:
        return f"contexts not measured: {error}"
    found = {"process": (one, CONTEXT), "rank of two": (two, CONTEXT + RANK)}
    return ", ".join(f"context of a {k}: {m / 1e9:.2f} GB (estimate {e / 1e9:.2f})" for k, (m, e) in found.items())


def main() -> int:
    import torch

    options = arguments()
    if options.again:
        before = json.loads(options.again.read_text(encoding="utf-8"))
        print("\n".join([HEAD, RULE, *(row(point) for point in before["points"])]))
        return 0
    on_gpu = torch.cuda.is_available()
    began = time.monotonic()
    home = options.home.resolve()
    shutil.rmtree(home, ignore_errors=True)
    (home / "uploads").mkdir(parents=True)
    wanted = points(options.shapes, options.only)
    for point in wanted:
        write_talks(point, home)
    card = int(torch.cuda.get_device_properties(0).total_memory * 0.94) if on_gpu else 2**62
    queue = Queue(home, on_gpu, card, options.slots or cores(), began + options.budget, options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    make_bases(sorted({point.shape for point in wanted}), home, queue)
    print(f"{machine(on_gpu)}, budget {options.budget} s", flush=True)
    if on_gpu:
        print(contexts(), flush=True)
    print(HEAD + "\n" + RULE, flush=True)
    left = queue.run(wanted, options.least)
    for point in left:
        print(f"left out for want of time: {point.name}")
    failed = [f for f in queue.found if "why" in f]
    print(f"{len(queue.found) - len(failed)} points, {len(failed)} failed, {time.monotonic() - began:.0f} s in all")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = ["llama1b", "llama8b", "gemma2_2b", "gemma2_9b"]
    parser.add_argument("--shapes", nargs="+", default=shapes)
    parser.add_argument(
        "--only", nargs="+", default=[], help="words of the names of the points to measure, as fsdp or 1x512"
    )
    parser.add_argument("--budget", type=float, default=270, help="seconds for everything")
    parser.add_argument("--least", type=float, default=40, help="seconds that must be left for a run to begin")
    parser.add_argument("--slots", type=int, default=0, help="processes at the same time (0: one per core)")
    parser.add_argument("--home", type=Path, default=Path("/tmp/planner"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/planner.jsonl"), help="a JSON line per point")
    parser.add_argument("--again", type=Path, help="print the table of a file of measured points")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
