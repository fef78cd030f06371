"""How fast the page answers while nothing happens and while a job trains, as a ratio within one run.

By hand: python -m tests.bench.bench_page        (needs the starter model; takes about two minutes)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median, quantiles

from assets.catalog import STARTER
from assets.files import Workspace
from finetune import gpu, plan, starter
from finetune.jobs import Jobs
from finetune.memory import Shape
from finetune.progress import read
from finetune.spec import DataSpec, ModelSpec, with_recipe

ROOT = Path(__file__).resolve().parents[2]


def start_app(home: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """The app, its address, and the seconds until its page was there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "NARANHI_HOME": str(home), "NARANHI_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/"
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.05)
        else:
            return process, url, time.monotonic() - began


def latencies(url: str, count: int = 60) -> list[float]:
    """Seconds per request for the whole page, a request every quarter of a second."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        urllib.request.urlopen(url, timeout=30).read()
        found.append(time.monotonic() - began)
        time.sleep(0.25)
    return found


def start_job(workspace: Workspace) -> tuple[Jobs, str]:
    spec = with_recipe("quick", ModelSpec(STARTER), DataSpec("naranhi/emotion-ko"))
    jobs = Jobs(workspace)
    folder = jobs.new_folder()
    config = starter.folder(workspace) / "config.json"
    shape = Shape.from_config(json.loads(config.read_text(encoding="utf-8")))
    made = plan.make(spec, gpu.read(workspace.root), shape, folder)
    return jobs, jobs.create(spec, made, folder, "bench").id


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        workspace = Workspace(Path(home)).prepare()
        made = starter.make(Workspace(ROOT / "workspace").prepare())
        (workspace.models / made.name).symlink_to(made)
        process, url, started = start_app(Path(home))
        try:
            idle = latencies(url)
            jobs, job = start_job(workspace)
            while read(jobs.folder(job)).step < 1:
                time.sleep(0.5)
            busy = latencies(url)
            jobs.stop(job)
            while jobs.get(job).active:
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
    rows = {"idle": idle, "training": busy}
    print(f"page there after {started:.2f} s")
    for name, values in rows.items():
        p95 = quantiles(values, n=20)[-1]
        print(f"{name:>9}: median {median(values) * 1e3:.1f} ms, 95 % within {p95 * 1e3:.1f} ms")
    print(f"training / idle: {median(busy) / median(idle):.2f}")


if __name__ == "__main__":
    main()
