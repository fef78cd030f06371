"""How far off the forecasts of a run's duration are, against what runs took.

Covers: real runs of the starter model on this machine, made here, or the runs that a workspace has. Each is forecast from
those before it alone, as the page would have done. Runs made here are compared a second time on a clock that goes on only
while the run itself computes (its processes' CPU time), which leaves out whoever else uses the machine. Does not cover:
downloads.

By hand: python -m tests.bench.bench_forecast --make 12           (starter model, about a minute a run on two cores)
         python -m tests.bench.bench_forecast --workspace workspace
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from assets.catalog import STARTER
from assets.files import Workspace, read_lines
from finetune import gpu, plan
from finetune.forecast import Forecast, Rows, forecast, speed
from finetune.history import Ran, ran
from finetune.jobs import Jobs
from finetune.shapes import shape_of
from finetune.spec import DataSpec, ModelSpec, ScheduleSpec, TrainSpec, WatchSpec

USUAL = ScheduleSpec(steps=14, micro_batch=1, accumulation=1, max_length=96)
SCHEDULES = (
    USUAL,
    USUAL,
    replace(USUAL, steps=24),
    replace(USUAL, steps=12, micro_batch=2),
    replace(USUAL, steps=20, micro_batch=2),
    replace(USUAL, steps=18, checkpointing=False),
    replace(USUAL, steps=30),
    replace(USUAL, max_length=160),
    replace(USUAL, steps=10, accumulation=2),
    replace(USUAL, steps=18),
    replace(USUAL, steps=12, micro_batch=2, accumulation=2),
    replace(USUAL, steps=20),
)
"""A person's runs one after the other: mostly the same settings, now and then others."""
WORK = "work.json"
DATA = ("naranhi/emotion-ko", "naranhi/science-ko")


@dataclass(frozen=True)
class Compared:
    name: str
    forecast: Forecast
    took: float

    @property
    def error(self) -> float:
        """Of the middle, as a share of what it took."""
        return self.forecast.middle / self.took - 1

    @property
    def inside(self) -> bool:
        return self.forecast.low <= self.took <= self.forecast.high


def make(jobs: Jobs, count: int) -> None:
    """Run that many, one after the other, and wait."""
    machine = gpu.read(jobs.workspace.root)
    for number, schedule in enumerate(SCHEDULES[:count]):
        data = DataSpec(DATA[number % 5 == 4])
        watch = WatchSpec(examples=4, samples=1, sample_tokens=8)
        spec = TrainSpec(ModelSpec(STARTER), data, name=f"{number}", schedule=schedule, watch=watch)
        folder = jobs.new_folder()
        job = jobs.create(spec, plan.make(spec, machine, shape_of(jobs.workspace, spec.model), folder), folder, "")
        work = follow(jobs, job.id)
        (folder / WORK).write_text(json.dumps(work), encoding="utf-8")
        ended = jobs.get(job.id)
        print(f"run {number}: {ended.state}, {(ended.ended or 0) - (ended.started or 0):.0f} s", flush=True)


def follow(jobs: Jobs, job_id: str) -> list[tuple[float, float]]:
    """Wait for a run to end. (time, CPU seconds of its processes until then), four times a second."""
    seen: dict[int, float] = {}
    points = [(time.time(), 0.0)]
    while (job := jobs.get(job_id)).active:
        try:
            children = psutil.Process(job.supervisor[0]).children(recursive=True) if job.supervisor else []
        except psutil.NoSuchProcess:
            children = []
        for process in children:
            with suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                seen[process.pid] = used.user + used.system
        points.append((time.time(), sum(seen.values())))
        time.sleep(0.25)
    return points


def by_own_work(jobs: Jobs, copy: Workspace) -> Jobs:
    """The same runs with every time on the clock of their own work."""
    made = Jobs(copy)
    for job in jobs.list():
        folder, target = jobs.folder(job.id), copy.jobs / job.id
        if not (folder / WORK).exists() or job.started is None or job.ended is None:
            continue
        points = json.loads((folder / WORK).read_text(encoding="utf-8"))
        times, work = [p[0] for p in points], [p[1] / gpu.cores() for p in points]

        def own(when: float, times: list[float] = times, work: list[float] = work) -> float:
            place = min(max(bisect_left(times, when), 1), len(times) - 1)
            share = (when - times[place - 1]) / max(1e-9, times[place] - times[place - 1])
            return times[0] + work[place - 1] + min(max(share, 0.0), 1.0) * (work[place] - work[place - 1])

        target.mkdir(parents=True)
        for name in ("spec.yaml", "plan.json"):
            shutil.copyfile(folder / name, target / name)
        rows = [_moved(row, own) for row in read_lines(folder / "metrics.jsonl")]
        (target / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        made.save(replace(job, created=own(job.created), started=own(job.started), ended=own(job.ended)))
    return made


def _moved(row: dict[str, Any], own: Callable[[float], float]) -> dict[str, Any]:
    if "seconds" not in row:
        return {**row, "time": own(row["time"])}
    seconds = max(1e-3, own(row["time"]) - own(row["time"] - row["seconds"]))
    moved = {**row, "time": own(row["time"]), "seconds": seconds}
    if row.get("tokens_per_second"):
        moved["tokens_per_second"] = row["tokens_per_second"] * row["seconds"] / seconds
    return moved


def compare(jobs: Jobs) -> list[Compared]:
    """Every run that ended by itself in one go, forecast from what had ended before it was created."""
    machine = gpu.read(jobs.workspace.root)
    found: list[Compared] = []
    before: list[tuple[float, Ran]] = []
    for job in reversed(jobs.list()):
        one = ran(jobs, job)
        if one is None or one.took is None or job.state != "finished" or job.ended is None:
            continue
        known = [r for ended, r in reversed(before) if ended <= job.created]
        shape = shape_of(jobs.workspace, one.spec.model)
        rows = rows_of(jobs, job.id)
        basis = speed(
            known, one.spec, jobs.plan(job.id), shape, machine, rows.mean_length(one.spec.schedule.max_length)
        )
        told = forecast(one.spec, rows, basis, one.processes)
        if told is not None:
            found.append(Compared(job.name, told, one.took))
        before.append((job.ended, one))
    return found


def rows_of(jobs: Jobs, job_id: str) -> Rows:
    """What the page counts before a run, from what the run counted itself."""
    from finetune.progress import read

    facts = read(jobs.folder(job_id)).facts
    return Rows(int(facts["rows"]), [facts["tokens"] / facts["rows"]], int(facts["heldout"]))


def show(found: list[Compared]) -> None:
    print("\n| run | from | steps | forecast | took | error | inside |\n|---|---|---|---|---|---|---|")
    for one in found:
        span = f"{one.forecast.low:.0f}–{one.forecast.high:.0f} s ({one.forecast.middle:.0f})"
        inside = "yes" if one.inside else "no"
        steps, basis = one.forecast.steps, one.forecast.basis
        print(f"| {one.name} | {basis} | {steps} | {span} | {one.took:.0f} s | {one.error:+.0%} | {inside} |")
    by_basis: dict[str, list[Compared]] = defaultdict(list)
    for one in found:
        by_basis[one.forecast.basis].append(one)
    print("\n| from | runs | median error | largest | inside the range |\n|---|---|---|---|---|")
    for basis, ones in by_basis.items():
        errors = [abs(one.error) for one in ones]
        inside = sum(one.inside for one in ones)
        print(f"| {basis} | {len(ones)} | {median(errors):.0%} | {max(errors):.0%} | {inside} of {len(ones)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Forecasts against what runs took.")
    parser.add_argument("--make", type=int, default=0, help="make that many runs of the starter first")
    parser.add_argument("--workspace", type=Path, help="a workspace with runs; default: a temporary one")
    parser.add_argument("--starter", type=Path, default=Path("workspace/models"), help="where the starter model is")
    options = parser.parse_args()
    root = options.workspace or Path(tempfile.mkdtemp(prefix="naranhi-forecast-"))
    workspace = Workspace(root.resolve()).prepare()
    name = STARTER.rsplit("/", 1)[-1]
    if options.make and not (workspace.models / name).exists():
        shutil.copytree(options.starter / name, workspace.models / name)
    jobs = Jobs(workspace)
    make(jobs, options.make)
    print("\nby the clock:")
    show(compare(jobs))
    own = by_own_work(jobs, Workspace(Path(tempfile.mkdtemp(prefix="naranhi-forecast-work-"))).prepare())
    if own.list():
        print("\nby the runs' own work:")
        show(compare(own))


if __name__ == "__main__":
    main()
