"""How long a run will take, from what this machine has done before.

Covers: a range of seconds from the tokens a run will see and the speed of earlier runs here, or for the starter on CPUs
from a measured speed per core. Does not cover: downloads. None means: nothing comparable has run here yet.
"""

from __future__ import annotations

from statistics import median

from assets.catalog import STARTER
from finetune.jobs import Jobs
from finetune.memory import sequences
from finetune.plan import LaunchPlan
from finetune.progress import read
from finetune.spec import TrainSpec

STARTER_PER_CORE = 75.0  # tokens a second and core, NF4 with rank 16 (2 cores of an AVX-512 server CPU, 2026-11-23)
EVALUATION = 3.0  # held-out tokens go about this much faster than trained ones
START = 25.0  # seconds to import, load and quantise a small model
SPREAD = (0.75, 1.6)
WORK = {"sft": 3.0, "dpo": 4.0, "kto": 6.0}
"""Passes per token, a backward one counting twice: DPO adds the reference, KTO two more of each for its baseline."""


def speed(jobs: Jobs, spec: TrainSpec, plan: LaunchPlan, cores: int) -> float | None:
    """Tokens per second: the median of earlier runs of this model, method and placement, else the starter's default;
    of runs with another objective by how much more or less they do per token."""
    found: list[float] = []
    for job in jobs.list()[:20]:
        if job.facts.get("model") != spec.model.id or job.facts.get("method") != spec.method:
            continue
        if jobs.plan(job.id).placement != plan.placement:
            continue
        rates = [
            row["tokens_per_second"] for row in read(jobs.folder(job.id)).steps[2:] if row.get("tokens_per_second")
        ]
        if len(rates) >= 5:
            found.append(median(rates) * WORK[job.facts.get("objective", "sft")] / WORK[spec.objective])
    if found:
        return median(found)
    known = spec.model.id == STARTER and plan.placement == "cpu"
    return STARTER_PER_CORE * cores * WORK["sft"] / WORK[spec.objective] if known else None


def seconds(
    spec: TrainSpec, rows: int, mean_length: float, rate: float | None, processes: int = 1
) -> tuple[float, float] | None:
    """The range for ``rows`` conversations of ``mean_length`` tokens at ``rate`` tokens per second of all processes. A
    preference pair is a row whose length is that of one of its answers with the prompt."""
    if not rate or not rows:
        return None
    schedule, watch = spec.schedule, spec.watch
    batch = schedule.micro_batch * schedule.accumulation * processes
    length = min(mean_length, schedule.max_length) * sequences(spec)
    steps = schedule.steps or max(1, round(rows / batch * schedule.epochs))
    every = watch.every or max(1, steps // 5)
    evaluations = steps // every + 1
    per_evaluation = watch.examples * length / (rate * EVALUATION) + watch.samples * watch.sample_tokens / (rate / 6)
    total = START + steps * batch * length / rate + evaluations * per_evaluation
    return total * SPREAD[0], total * SPREAD[1]
