"""Raters who vote all at once through the real server, as their browsers would.

By hand: make load, or python -m tests.load.server [--seconds 600] [--raters 30] [--pause 3] [--apps 1] [--kill]
Starts the app on a workspace of its own, opens a study, lets every rater go through the rater's page over HTTP (queue and
event stream included), and compares what was acknowledged with what is in ratings.csv. ``--kill`` ends one app by SIGKILL
half-way and starts it again. Ends with 1 when a vote was lost or doubled, or 95 % did not take less than 0.3 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.load.check import Outcome, check
from tests.load.made import links, open_study
from tests.load.rate import CHOICES

ROOT = Path(__file__).resolve().parents[2]
P95 = 0.3
_TOKEN = re.compile(r'data-token="([0-9a-f]+)"')
_SCREEN = re.compile(r'data-screen="(\w+)"')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class App:
    """The app in a process of its own."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home, self.port, self.env = home, free_port(), env
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Returns once the page is there."""
        env = {**os.environ, "NARANHI_HOME": str(self.home), "NARANHI_PORT": str(self.port), "HF_HUB_OFFLINE": "1"}
        env |= self.env
        with (self.home / f"app-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/config", timeout=10) as page:
                    self.config = config = json.loads(page.read())
            except OSError:
                time.sleep(0.2)
                continue
            self.events = {d["api_name"]: d["id"] for d in config["dependencies"] if d["api_name"]}
            return
        raise RuntimeError(f"the app did not start: {(self.home / f'app-{self.port}.log').read_text()[-2000:]}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def join(web: httpx.AsyncClient, app: App, asked: dict[str, Any]) -> httpx.Response:
    """An event, as soon as the server takes it: everybody here comes from one address, of which it takes only so much."""
    while True:
        answer = await web.post(f"{app.url}/gradio_api/queue/join", json=asked)
        if answer.status_code != 429:
            return answer.raise_for_status()
        await asyncio.sleep(float(answer.headers["retry-after"]))


@dataclass
class Browser:
    """One rater's page: ``screen`` is the HTML last shown."""

    app: App
    code: str
    web: httpx.AsyncClient
    screen: str = ""
    session: str = field(default_factory=lambda: f"{random.getrandbits(60):x}")

    @property
    def token(self) -> str:
        found = _TOKEN.search(self.screen)
        return found[1] if found else ""

    @property
    def on(self) -> str:
        found = _SCREEN.search(self.screen)
        return found[1] if found else ""

    async def act(self, do: str, **more: Any) -> str:
        """One event of the page; the note beside the screen. httpx.HTTPError when the app is not there."""
        event = "rate_open" if do == "open" else "rate_act"
        text = json.dumps({"c": self.code, "do": do, **more}, ensure_ascii=False)
        asked = {"data": [text], "fn_index": self.app.events[event], "session_hash": self.session, "event_data": None}
        answer = await join(self.web, self.app, asked)
        screen, note = await self._result(answer.json()["event_id"])
        if isinstance(screen, str):
            self.screen = screen
        return str(note)

    async def _result(self, event_id: str) -> list[Any]:
        where = f"{self.app.url}/gradio_api/queue/data?session_hash={self.session}"
        async with self.web.stream("GET", where) as stream:
            if stream.status_code == 429:
                await asyncio.sleep(float(stream.headers["retry-after"]))
                return await self._result(event_id)
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {}
                if said.get("msg") == "process_completed" and said.get("event_id") == event_id:
                    if not said["success"]:
                        raise RuntimeError(str(said))
                    found: list[Any] = said["output"]["data"]
                    return found
        raise httpx.RemoteProtocolError("the stream ended early")


async def rate(browser: Browser, seconds: float, pause: float, lines: list[str]) -> None:
    """One rater for ``seconds``, or to the end of the list; goes on after an app that was killed is back."""
    chance = random.Random(browser.code)
    until = time.monotonic() + seconds
    do: dict[str, Any] = {"do": "open"}
    while time.monotonic() < until and browser.on != "done":
        began = time.perf_counter()
        try:
            note = await browser.act(**do)
        except httpx.HTTPError:
            await asyncio.sleep(0.5)  # the same act again: an unanswered vote has its token
            continue
        took = time.perf_counter() - began
        if do["do"] == "vote" and not note and browser.token != do["token"]:
            lines.append(f"vote {do['token']} {took:.4f}\n")
        elif note:
            raise RuntimeError(note)
        do = _next(browser, chance, do, lines)
        await asyncio.sleep(chance.expovariate(1 / pause))


def _next(browser: Browser, chance: random.Random, last: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    if browser.on == "welcome":
        return {"do": "consent"}
    if last["do"] == "vote" and browser.token and chance.random() < 0.05:
        lines.append(f"undo {last['token']} 0\n")
        return {"do": "undo", "token": browser.token}
    given = {"comment": '줄\n바꿈, "따옴표" =1+1 👩‍👩‍👧', "layout": "columns", "seconds": 9.5}
    return {"do": "vote", "token": browser.token, "choice": chance.choice(CHOICES), **given}


async def load(apps: list[App], codes: list[str], seconds: float, pause: float, kill: bool) -> list[str]:
    """Everyone at once; the lines that check.py reads."""
    lines: list[str] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as web:
        browsers = [Browser(apps[n % len(apps)], code, web) for n, code in enumerate(codes)]
        raters = [rate(browser, seconds, pause, lines) for browser in browsers]
        await asyncio.gather(*raters, *([_restart(apps[-1], seconds / 2)] if kill else []))
    return lines


async def _restart(app: App, after: float) -> None:
    await asyncio.sleep(after)
    app.end(signal.SIGKILL)
    await asyncio.to_thread(app.start)


def run(home: Path, seconds: float, raters: int, pause: float, apps: int = 1, kill: bool = False) -> Outcome:
    """The whole load on a workspace of its own."""
    study = open_study(home, items=min(400, max(40, round(2 * seconds / pause))))
    codes = links(home, study.id, raters)
    started = [App(home) for _ in range(apps)]
    try:
        lines = asyncio.run(load(started, codes, seconds, pause, kill))
    finally:
        for app in started:
            app.end()
    return check(home, lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--raters", type=int, default=30)
    parser.add_argument("--pause", type=float, default=3)
    parser.add_argument("--apps", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), given.seconds, given.raters, given.pause, given.apps, given.kill)
    print(found)
    sys.exit(found.lost > 0 or found.doubled > 0 or found.refused > 0 or found.p95 >= P95)


if __name__ == "__main__":
    main()
