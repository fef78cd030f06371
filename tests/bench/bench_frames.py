"""Whether the page stays smooth while models load and answers stream: gaps between frames, and how fast the page is sent.

By hand: python -m tests.bench.bench_frames        (needs the starter model and a browser; takes about two minutes)

A clock in the page notes every animation frame; a gap is the time between two of them. The bar is 100 ms on two CPU
cores that do nothing else. Idle gaps of the same page stand beside them: what the browser itself does on this machine.
"""

from __future__ import annotations

import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from assets.catalog import STARTER
from assets.files import Workspace
from finetune import starter
from tests import browser
from tests.bench.bench_page import ROOT, start_app
from tests.models import make_adapter

BAR = 100.0
CLOCK = """() => {
  window.frameGaps = []; let last = performance.now();
  const tick = now => { window.frameGaps.push(now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(now => { last = now; requestAnimationFrame(tick); });
}"""


def gaps(page: Any) -> list[float]:
    """Milliseconds between frames since the last call."""
    found: list[float] = page.evaluate("() => window.frameGaps.splice(0)")
    return found


def row(name: str, found: Sequence[float]) -> str:
    late = sum(gap > BAR for gap in found)
    ordered = sorted(found)
    middle, high = ordered[len(ordered) // 2], ordered[int(0.99 * (len(ordered) - 1))]
    shares = f"median {middle:5.1f} ms, 99 % {high:6.1f} ms, longest {ordered[-1]:6.1f} ms"
    return f"{name:>9}: {len(found):5d} frames, {shares}, over {BAR:.0f} ms: {late}"


class Poller:
    """Asks for the whole page four times a second, and keeps how long each answer took by the phase it fell into."""

    def __init__(self, url: str) -> None:
        self.phase = ""
        self.found: dict[str, list[float]] = {}
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Poller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.25):
            phase, began = self.phase, time.monotonic()
            urllib.request.urlopen(self._url, timeout=60).read()
            self.found.setdefault(phase, []).append((time.monotonic() - began) * 1e3)


def measure(url: str, adapter: Path, poller: Poller) -> dict[str, list[float]]:
    """Gaps of the idle page, while a pair loads, and while both answers are written."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        driver = play.chromium.launch(executable_path=browser.installed(), args=browser.FLAGS)
        page = driver.new_context(viewport={"width": 1280, "height": 900}, locale="ko-KR").new_page()
        page.set_default_timeout(300_000)
        page.goto(url)
        page.get_by_role("tab", name="비교", exact=True).click()
        for field, value in (("n-base", STARTER), ("n-other", str(adapter))):
            box = page.locator(f"#{field} input")
            box.fill(value)
            box.press("Enter")
        page.locator("#n-load:not([disabled])").wait_for()
        time.sleep(3)
        page.evaluate(CLOCK)
        poller.phase = "idle"
        time.sleep(8)
        found = {"idle": gaps(page)}
        poller.phase = "load"
        page.locator("#n-load").click()
        page.locator("#n-ask:not([disabled])").wait_for()
        poller.phase = ""
        found["load"] = gaps(page)
        page.locator("#n-text textarea").fill("오늘 하루를 시로 써 주세요. 길게요.")
        gaps(page)
        poller.phase = "answers"
        page.locator("#n-ask").click()
        page.locator("#n-votebar").wait_for()
        poller.phase = ""
        found["answers"] = gaps(page)
        driver.close()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        workspace = Workspace(Path(home)).prepare()
        made = starter.make(Workspace(ROOT / "workspace").prepare())
        (workspace.models / made.name).symlink_to(made)
        adapter = make_adapter(made, Path(home) / "tuned", lora_alpha=16)
        process, url, _ = start_app(Path(home))
        try:
            with Poller(url) as poller:
                found = measure(url, adapter, poller)
        finally:
            process.terminate()
            process.wait()
    for name, values in found.items():
        print(row(name, values))
    for name in found:
        times = poller.found[name]
        high = quantiles(times, n=20)[-1]
        print(f"{name:>9}: {len(times):5d} pages, median {median(times):5.1f} ms, 95 % within {high:6.1f} ms")


if __name__ == "__main__":
    main()
