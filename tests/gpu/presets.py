"""Which method, rank and learning rate, measured: the starter model, three seeds, this program's own training script.

    python -m tests.gpu.presets --chatbot chatbot_ko.csv --budget 500          on a GPU; several runs beside one another
    python -m tests.gpu.presets --have rows.jsonl --chatbot chatbot_ko.csv     goes on after rows that are measured already
    python -m tests.gpu.presets --have rows.jsonl --table                      only the table of what there is
                                                                               (presets_rows.jsonl: one H200, 2026-11-25)
    python -m tests.gpu.presets --tiny                                         a rehearsal on a CPU whose figures mean nothing

chatbot_ko.csv (songys/Chatbot_data: Q,A,label) is not part of this repository; without it the built-in sets are measured. Of
it: labels 1 and 2 shuffled by seed 0, 1,600 conversations to train on and 300 held out. Every run is one row of JSON in
--out as soon as it is done; what does not fit into --budget (seconds) is named and left for a later call. The table comes
last: loss per answer token on the held-out part, mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from assets.catalog import STARTER
from tests.gpu.presets_points import SEEDS, Point, points, setting_of, spec_of, table

ROOT = Path(__file__).resolve().parents[2]
FIRST = 90.0  # seconds a run is thought to take before one is done
BUILTIN = ("emotion", "science")


def write_chatbot(source: Path, target: Path) -> None:
    """1,900 conversations of labels 1 and 2 as messages."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in ("1", "2")]
    random.Random(0).shuffle(rows)
    write_talks([(row["Q"], row["A"]) for row in rows[:1900]], target)


def write_talks(pairs: list[tuple[str, str]], target: Path) -> None:
    talks = ([{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs)
    lines = (json.dumps({"messages": talk}, ensure_ascii=False) for talk in talks)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(home: Path, options: argparse.Namespace) -> tuple[str, list[str]]:
    """The model to train and the data sets that are there; files go into the workspace ``home``."""
    from assets.files import Workspace

    workspace = Workspace(home).prepare()
    if options.tiny:
        from tests.models import make_model

        for name in ("chatbot", *BUILTIN):
            write_talks(
                [(f"{name} {n}?", f"{n}번 대답이에요.") for n in range(16)], workspace.uploads / f"{name}.jsonl"
            )
        return str(make_model(home / "tiny", "llama")), ["chatbot"]
    if not options.chatbot:
        return STARTER, list(BUILTIN)
    write_chatbot(options.chatbot, workspace.uploads / "chatbot.jsonl")
    return STARTER, ["chatbot", *BUILTIN]


def measure(point: Point, home: Path, model: str, tiny: bool) -> dict[str, Any]:
    """Train one point in this process; its row, with ``why`` instead of figures when it failed."""
    import torch

    from assets.files import Workspace
    from finetune import train
    from finetune.progress import read

    folder = home / "jobs" / point.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began, row = time.monotonic(), {**asdict(point), "name": point.name}
    build = train.build_trainer
    try:
        if setting_of(point).compensated:
            train.build_trainer = _compensated(build, row)
        train.run(spec_of(point, model, tiny), folder, Workspace(home))
    except Exception as error:
        return row | {"why": f"{type(error).__name__}: {error}"[:300]}
    finally:
        train.build_trainer = build
        gc.collect()
    seen = read(folder)
    memory = seen.latest("gpu_memory") or seen.latest("host_memory")
    row |= {"loss": seen.evals[-1]["loss"], "untouched": seen.evals[0]["loss"], "steps": seen.step}
    row |= {"last_evaluation": seen.evals[-1]["step"], "trained": seen.facts["trainable"], "memory": memory}
    row |= {"forgot": {domain: last / first - 1 for domain, (first, last) in seen.ends.items()}}
    shutil.rmtree(folder)
    return row | {"seconds": round(time.monotonic() - began, 1)}


def _compensated(build: Any, row: dict[str, Any]) -> Any:
    """``build_trainer`` whose adapter begins as what NF4 took away."""

    def built(spec: Any, base: Path, *values: Any) -> Any:
        from tests.gpu.presets_start import compensate

        trainer = build(spec, base, *values)
        row["lost"] = compensate(trainer.model, base)
        return trainer

    return built


def work(home: Path, model: str, tiny: bool) -> None:
    """A worker: points from stdin, rows to what was stdout; whatever libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        row = measure(Point(**json.loads(line)), home, model, tiny)
        out.write(json.dumps(row) + "\n")
        out.flush()


class Queue:
    """Points that wait, handed to workers while there is time for one more."""

    def __init__(self, waiting: list[Point], until: float, out: Path) -> None:
        self._waiting, self._until, self._out = waiting, until, out
        self._lock = threading.Lock()
        self._longest = FIRST
        self.rows: list[dict[str, Any]] = []

    def next(self) -> Point | None:
        with self._lock:
            fits = time.monotonic() + self._longest < self._until
            return self._waiting.pop(0) if self._waiting and fits else None

    def done(self, row: dict[str, Any], seconds: float) -> None:
        with self._lock:
            self._longest = seconds if not self.rows else max(self._longest, seconds)
            self.rows.append(row)
            with self._out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            told = row.get("why") or f"{row['untouched']:.4f} -> {row['loss']:.4f}"
            print(f"{row['name']}: {told} ({seconds:.0f} s)", flush=True)

    def left(self) -> list[Point]:
        return list(self._waiting)


def serve(queue: Queue, argv: list[str], log: TextIO) -> None:
    """One worker process from its first point to its last."""
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
    )
    assert process.stdin and process.stdout
    try:
        while (point := queue.next()) is not None:
            began = time.monotonic()
            process.stdin.write(json.dumps(asdict(point)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                queue.done({**asdict(point), "name": point.name, "why": "the worker died"}, time.monotonic() - began)
                return
            queue.done(json.loads(answer), time.monotonic() - began)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def known(files: list[Path]) -> list[dict[str, Any]]:
    """Rows of earlier calls; runs that failed there are run again."""
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]
    return [row for row in rows if "loss" in row]


def main() -> int:
    options = arguments()
    before = known(options.have)
    if options.table:
        print(table(before))
        return 0
    home = (options.home or _home(options.tiny)).resolve()
    os.environ["NARANHI_HOME"] = str(home)
    if options.worker:
        work(home, options.worker, options.tiny)
        return 0
    began = time.monotonic()
    model, data = prepare(home, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    measured = {row["name"] for row in before}
    wanted = points(data, options.seeds, options.only)
    if options.tiny:
        wanted = list({p.setting: p for p in reversed(wanted)}.values())[::-1]
    queue = Queue([p for p in wanted if p.name not in measured], began + options.budget, options.out)
    argv = [sys.executable, "-m", "tests.gpu.presets", "--worker", model, "--home", str(home)]
    argv += ["--tiny"] if options.tiny else []
    with (home / "workers.log").open("w", encoding="utf-8") as log:
        threads = [threading.Thread(target=serve, args=(queue, argv, log)) for _ in range(options.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    left, failed = queue.left(), [row for row in queue.rows if "why" in row]
    print(f"{len(queue.rows)} runs, {len(failed)} failed, {len(left)} left, {time.monotonic() - began:.0f} s")
    print("".join(f"left for want of time: {point.name}\n" for point in left) + "\n" + table([*before, *queue.rows]))
    if failed:
        print((home / "workers.log").read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
    if options.tiny and not options.home:
        shutil.rmtree(home)
    return 1 if failed else 0


def _home(tiny: bool) -> Path:
    """The usual workspace, which has the starter model."""
    return Path(tempfile.mkdtemp(prefix="presets-")) if tiny else Path(os.environ.get("NARANHI_HOME") or "workspace")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out = Path(os.environ.get("OUT", ".")) / "presets.jsonl"
    parser.add_argument("--budget", type=float, default=500, help="seconds for everything")
    parser.add_argument("--chatbot", type=Path, help="chatbot_ko.csv")
    parser.add_argument("--out", type=Path, default=out, help="where rows go; $OUT/presets.jsonl by default")
    parser.add_argument("--have", type=Path, nargs="+", default=[], help="rows of earlier calls")
    parser.add_argument("--only", nargs="+", default=[], help="words of the names of runs, as qlora-r64 or emotion")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--home", type=Path, help="the workspace with the starter model; $NARANHI_HOME or ./workspace by default"
    )
    parser.add_argument("--workers", type=int, default=1, help="runs beside one another")
    parser.add_argument("--table", action="store_true", help="print the table of --have and end")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with a model of two layers")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
