"""Hours of ordinary use, and whether the app keeps anything of it: memory, handles, threads, temporary files.

By hand: make soak, or python -m tests.load.soak [--minutes 60] [--visitors 4] [--raters 8] [--stand-in]
Covers: the app's process with visitors who come, look, ask and leave, raters who vote, an owner's page that watches a run
which trains the starter (``--stand-in``: a script that writes as a run does). Does not cover: the engine's process, votes
being lost (server.py). Prints a dated table with a line per twelfth of the time; ends with 1 when something grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx
import psutil

from assets.files import Workspace
from finetune import starter
from finetune.jobs import Jobs
from tests.bench.bench_page import start_job
from tests.finetune.fake_run import Runs, end
from tests.load.made import links, open_study
from tests.load.server import ROOT, App, Browser, join, rate

MIB = 2**20
# What a process may gain between the second and the last third: its allocator's slack, and pages, of which a number is
# remembered for a while after they are closed (assets/sessions.py).
MEMORY, HANDLES, THREADS, FILES = 48.0, 12, 8, 4


@dataclass(frozen=True)
class Sample:
    """``memory`` in MiB; ``files``: in gradio's folder of temporary files."""

    seconds: float
    memory: float
    handles: int
    threads: int
    files: int


@dataclass(frozen=True)
class Soaked:
    """``visits`` and ``votes`` that were made while the samples were taken."""

    samples: tuple[Sample, ...]
    visits: int
    votes: int

    def growth(self) -> dict[str, float]:
        """The median of the last third minus that of the second: in the first, what is read once is read."""
        third = max(1, len(self.samples) // 3)
        middle, last = self.samples[third : 2 * third], self.samples[-third:]
        names = ("memory", "handles", "threads", "files")
        return {n: median(getattr(s, n) for s in last) - median(getattr(s, n) for s in middle) for n in names}

    @property
    def grew(self) -> list[str]:
        most = {"memory": MEMORY, "handles": HANDLES, "threads": THREADS, "files": FILES}
        return [name for name, value in self.growth().items() if value > most[name]]

    def __str__(self) -> str:
        head = f"{datetime.now(UTC):%Y-%m-%d} · {self.visits} visits · {self.votes} votes\n\n"
        rows = ["| minute | memory, MiB | handles | threads | temporary files |", "|---:|---:|---:|---:|---:|"]
        for sample in self.samples[:: max(1, len(self.samples) // 12)]:
            counts = f"{sample.handles} | {sample.threads} | {sample.files}"
            rows.append(f"| {sample.seconds / 60:.1f} | {sample.memory:.0f} | {counts} |")
        grown = ", ".join(f"{name} {value:+.0f}" for name, value in self.growth().items())
        return head + "\n".join(rows) + f"\n\nsecond third to last: {grown}"


def sample(app: App, temporary: Path, began: float) -> Sample:
    process = psutil.Process(app.process.pid)
    with process.oneshot():
        memory, threads, handles = process.memory_info().rss / MIB, process.num_threads(), process.num_fds()
    files = sum(path.is_file() for path in temporary.rglob("*"))
    return Sample(time.monotonic() - began, memory, handles, threads, files)


@dataclass
class Page:
    """One page in a browser: its session, the connection that keeps it alive, and the events it sends."""

    app: App
    web: httpx.AsyncClient

    def __post_init__(self) -> None:
        self.session = f"{random.getrandbits(60):x}"

    async def send(self, kind: str) -> None:
        """Every event that a page sends by itself on "load" or "tick", and their stream to its end."""
        own = set(self.app.config["page"][""]["dependencies"])
        for event in self.app.config["dependencies"]:
            if event["id"] in own and event["backend_fn"] and any(target[1] == kind for target in event["targets"]):
                asked = {"data": [None] * len(event["inputs"]), "fn_index": event["id"], "session_hash": self.session}
                await join(self.web, self.app, asked)
        where = f"{self.app.url}/gradio_api/queue/data?session_hash={self.session}"
        async with self.web.stream("GET", where) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:") and json.loads(line[5:]).get("msg") == "close_stream":
                    return

    async def alive(self) -> None:
        """As a page that is open does; cancelled when it is closed."""
        async with self.web.stream("GET", f"{self.app.url}/gradio_api/heartbeat/{self.session}") as stream:
            async for _ in stream.aiter_bytes():
                pass


async def visit(page: Page, until: float, count: list[int]) -> None:
    """Visitors one after the other: come, look, leave."""
    while time.monotonic() < until:
        opened = Page(page.app, page.web)
        beat = asyncio.create_task(opened.alive())
        (await page.web.get(f"{page.app.url}/")).raise_for_status()
        await opened.send("load")
        await asyncio.sleep(random.uniform(0.5, 2))
        await opened.send("tick")
        beat.cancel()
        with suppress(asyncio.CancelledError):
            await beat
        count[0] += 1


async def watch(page: Page, until: float) -> None:
    """The owner's page, open all the time: it asks for the runs every other second."""
    beat = asyncio.create_task(page.alive())
    await page.send("load")
    while time.monotonic() < until:
        await page.send("tick")
        await asyncio.sleep(2)
    beat.cancel()
    with suppress(asyncio.CancelledError):
        await beat


async def measure(app: App, temporary: Path, seconds: float, found: list[Sample]) -> None:
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        found.append(sample(app, temporary, began))
        await asyncio.sleep(min(10.0, seconds / 36))


async def use(app: App, codes: list[str], seconds: float, visitors: int) -> Soaked:
    """Everybody at once; the samples of that time."""
    until = time.monotonic() + seconds
    votes: list[str] = []
    visits, samples = [0], list[Sample]()
    limits, host = httpx.Limits(max_connections=None), {"host": f"visitor.test:{app.port}"}
    async with (
        httpx.AsyncClient(timeout=60, limits=limits, trust_env=False, headers=host) as web,
        httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as own,
    ):
        await asyncio.gather(
            measure(app, app.home / "tmp", seconds, samples),
            watch(Page(app, own), until),
            *(visit(Page(app, web), until, visits) for _ in range(visitors)),
            *(rate(Browser(app, code, web), seconds, 3.0, votes) for code in codes),
        )
    return Soaked(tuple(samples), visits[0], sum(line.startswith("vote") for line in votes))


@contextmanager
def training(runs: Runs, stand_in: bool) -> Iterator[None]:
    """Runs that go on inside: trainings of the starter one after the other, or a script that writes as they do."""
    workspace = runs.workspace
    if stand_in:
        job = runs.create("wait")
        runs.steps(job)
        try:
            yield
        finally:
            runs.clean()
        return
    jobs, first = start_job(workspace)
    others = [start_job(workspace)[1] for _ in range(11)]  # one runs, the others queue behind it
    try:
        yield
    finally:
        for job_id in (*reversed(others), first):
            jobs.stop(job_id)
        for job in Jobs(workspace).list():
            if job.active and job.supervisor:
                end(job.supervisor[0])


def run(home: Path, seconds: float, raters: int, visitors: int, stand_in: bool) -> Soaked:
    """The whole soak on a workspace of its own."""
    runs = Runs(home)
    workspace = runs.workspace
    made = starter.make(Workspace(ROOT / "workspace").prepare())
    (workspace.models / made.name).symlink_to(made)
    study = open_study(workspace.root, items=min(400, max(40, round(seconds / 2))))
    codes = links(workspace.root, study.id, raters)
    (workspace.root / "tmp").mkdir()
    app = App(workspace.root, GRADIO_TEMP_DIR=str(workspace.root / "tmp"))
    try:
        with training(runs, stand_in):
            return asyncio.run(use(app, codes, seconds, visitors))
    finally:
        app.end()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--visitors", type=int, default=4)
    parser.add_argument("--raters", type=int, default=8)
    parser.add_argument("--stand-in", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), given.minutes * 60, given.raters, given.visitors, given.stand_in)
    print(found)
    sys.exit(bool(found.grew))


if __name__ == "__main__":
    main()
