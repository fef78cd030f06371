"""Whether the page stays smooth while models load and while answers stream: the longest gap between two frames.

By hand: python -m tests.bench.bench_frames        (needs the starter model and a browser; takes about two minutes)

A clock in the page notes every animation frame; a gap is the time between two of them. The bar is 100 ms on two CPU
cores that do nothing else. Idle gaps of the same page stand beside them: what the browser itself does on this machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
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


def measure(url: str, adapter: Path) -> dict[str, list[float]]:
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
        time.sleep(5)
        found = {"idle": gaps(page)}
        page.locator("#n-load").click()
        page.locator("#n-ask:not([disabled])").wait_for()
        found["load"] = gaps(page)
        page.locator("#n-text textarea").fill("오늘 하루를 시로 써 주세요. 길게요.")
        gaps(page)
        page.locator("#n-ask").click()
        page.locator("#n-votebar").wait_for()
        found["answers"] = gaps(page)
        driver.close()
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        workspace = Workspace(Path(home)).prepare()
        made = starter.make(Workspace(ROOT / "workspace").prepare())
        (workspace.models / made.name).symlink_to(made)
        adapter = make_adapter(made, Path(home) / "tuned", lora_alpha=16)
        process, url, _ = start_app(Path(home))
        try:
            found = measure(url, adapter)
        finally:
            process.terminate()
            process.wait()
    for name, values in found.items():
        print(row(name, values))
    late = [gap for name in ("load", "answers") for gap in found[name] if gap > BAR]
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
