"""One process per job, in a session of its own: takes the devices, runs the ranks, writes down how it ended.

Covers: the lease, starting and reaping the training processes, stop requests, why it failed, and the next job in the
queue. Does not cover: training. It imports neither torch nor gradio and outlives the app.

By hand: python -m finetune.supervise WORKSPACE JOB
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from assets.errors import UserError
from assets.files import Workspace, end_line, read_json
from assets.leases import Lease, acquire, holder
from finetune import outcome, remedy, shortfall
from finetune.budget import deadline
from finetune.jobs import ROOT, Job, Jobs, identity
from finetune.plan import LaunchPlan
from finetune.progress import phase_of

LEASE_WAIT = 20.0
STOP_GRACE = 600.0  # a step, an evaluation and a save may all lie between the request and the end
STOPPED = 3  # exit code of a run that saved and stopped as asked
POLL = 0.3


def main(workspace: Workspace, job_id: str) -> None:
    """Run one job from start to end."""
    jobs = Jobs(workspace)
    job = jobs.change(job_id, supervisor=identity(os.getpid()))
    plan, folder = jobs.plan(job_id), jobs.folder(job_id)
    lease = _take(workspace, plan, job)
    if lease is None:
        jobs.change(job_id, state="stopped" if jobs.stopping(job_id) else "queued", supervisor=None)
        return
    until = _deadline(jobs, job)
    if until is not None and until <= time.time():
        lease.release()
        jobs.change(job_id, **_too_late(until))
        jobs.start_next()
        return
    jobs.change(job_id, state="running", started=job.started or time.time(), deadline=until)
    signal.signal(signal.SIGTERM, lambda *_: (folder / "stop").write_text("shutdown", encoding="utf-8"))
    oom_before = _oom_kills()
    code = _run(folder, plan, lease, until)
    lease.release()
    ended = _ended(folder, code, _oom_kills() > oom_before)
    jobs.change(job_id, **remedy.after_the_end(jobs, job_id, ended))
    _wait_until_free(workspace, plan)
    jobs.start_next()


def _take(workspace: Workspace, plan: LaunchPlan, job: Job) -> Lease | None:
    deadline = time.monotonic() + LEASE_WAIT
    while True:
        lease = acquire(workspace, plan.devices, {"kind": "job", "id": job.id, "name": job.name})
        if lease is not None or time.monotonic() > deadline:
            return lease
        time.sleep(POLL)


def _wait_until_free(workspace: Workspace, plan: LaunchPlan) -> None:
    """A rank that was killed keeps the lease until the kernel is done with it, and the next job needs it."""
    deadline = time.monotonic() + LEASE_WAIT
    while any(holder(workspace, d) is not None for d in plan.devices) and time.monotonic() < deadline:
        time.sleep(POLL)


def _deadline(jobs: Jobs, job: Job) -> float | None:
    """By when this run has to end; a budget in minutes counts from its first start, also when it tries again by itself."""
    if job.deadline is not None:
        return job.deadline
    try:
        budget = jobs.spec(job.id).budget
    except UserError:  # the training script says what is wrong with it
        return None
    return deadline(budget.minutes, budget.until, job.asked or job.created, time.time())


def _too_late(until: float) -> dict[str, Any]:
    clock = time.strftime("%H:%M", time.localtime(until))
    error = {"key": "train.time.too_late", "values": {"clock": clock}}
    return {"state": "stopped", "ended": time.time(), "supervisor": None, "error": error}


def _run(folder: Path, plan: LaunchPlan, lease: Lease, until: float | None = None) -> int:
    """Start the ranks, wait for them, leave nothing behind. The exit code, negative for a signal."""
    for old in folder.glob("error*.json"):
        old.unlink()
    shortfall.forget(folder)
    for name in ("metrics.jsonl", "samples.jsonl"):
        end_line(folder / name)
    own = {
        "NARANHI_JOB": folder.name,
        "NARANHI_HOME": str(folder.parent.parent),
        "NARANHI_SUPERVISOR": str(os.getpid()),
        **({"NARANHI_DEADLINE": str(until)} if until is not None else {}),
    }
    env = {**os.environ, **plan.env, **own, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "train.log").open("ab") as log:
        process = subprocess.Popen(
            plan.argv,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=lease.handles,
        )
    try:
        return _wait(process, folder)
    finally:
        _end_all(process.pid, own)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> int:
    asked: float | None = None
    while (code := process.poll()) is None:
        time.sleep(POLL)
        if asked is None and (folder / "stop").exists():
            asked = time.monotonic()
        if asked is not None and _give_up(folder, time.monotonic() - asked):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return STOPPED
    return code


def _end_all(group: int, own: dict[str, str]) -> None:
    """Nothing of the job is left: its process group, and the ranks, which a launcher puts into sessions of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    left = [p for p in psutil.process_iter(["environ"]) if own.items() <= (p.info["environ"] or {}).items()]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=LEASE_WAIT)


def _give_up(folder: Path, waited: float) -> bool:
    """Before the first step there is nothing to save, so the run is ended at once."""
    return phase_of(folder) in (None, "start", "download", "quantise", "load") or waited > STOP_GRACE


def _ended(folder: Path, code: int, out_of_memory: bool) -> dict[str, Any]:
    """The fields of a job that has come to an end."""
    fields: dict[str, Any] = {"ended": time.time(), "exit_code": code, "supervisor": None}
    record = dict(read_json(folder / "run.json")) if (folder / "run.json").exists() else None
    if code == STOPPED or (
        code == 0 and record is not None and record.get("stopped")
    ):  # launchers know no exit code but 0 and 1
        return fields | {"state": "stopped", "error": _went_back(folder)}
    if code == 0 and record is not None and outcome.made(folder) is not None:
        return fields | {"state": "finished"}
    return fields | {"state": "failed", "error": _reason(folder, code, out_of_memory)}


def _went_back(folder: Path) -> dict[str, Any] | None:
    """What is told of a run that went wrong and stopped at its last good checkpoint."""
    file = folder / "error.json"
    told = read_json(file) if file.exists() else {"key": ""}
    return {"key": told["key"], "values": told["values"]} if told["key"].startswith("train.back.") else None


def _reason(folder: Path, code: int, out_of_memory: bool) -> dict[str, Any]:
    errors = sorted((dict(read_json(f)) for f in folder.glob("error*.json")), key=_first_cause)
    lost = not errors or errors[0]["key"] == "train.rank_lost"
    if out_of_memory and lost and code in (-signal.SIGKILL, 1):
        return {"key": "train.host_memory", "values": {"signal": "SIGKILL"}}
    if errors:
        return {"key": errors[0]["key"], "values": errors[0]["values"]}
    if code < 0:
        return {"key": "train.killed", "values": {"signal": signal.Signals(-code).name}}
    if code == 1 and (folder / "accelerate.yaml").exists():  # a rank that says why it fails leaves a file
        return {"key": "train.rank_lost", "values": {}}
    return {"key": "train.no_adapter" if code == 0 else "train.crashed", "values": {"reason": str(code)}}


def _first_cause(error: dict[str, Any]) -> tuple[bool, float]:
    """What a rank says of itself comes before what others say of having lost it, and the earlier before the later."""
    return error["key"] == "train.rank_lost", error.get("time", 0.0)


def _oom_kills() -> int:
    """Processes the kernel ended for want of memory so far (this cgroup's count where there is one); 0 when unknown."""
    for file, word in ((Path("/sys/fs/cgroup/memory.events"), "oom_kill"), (Path("/proc/vmstat"), "oom_kill")):
        if file.exists():
            for line in file.read_text(encoding="ascii").splitlines():
                if line.split()[0] == word:
                    return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main(Workspace(Path(sys.argv[1])), sys.argv[2])
