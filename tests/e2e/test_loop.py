"""The whole loop in a real browser with the real starter: train, stop, resume, lose the app, compare, vote.

One story in order, because each part stands on what the one before it left on disk.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from typing import Any

import pytest

from assets.files import Workspace
from finetune.jobs import Job, Jobs
from finetune.progress import read
from tests.e2e.conftest import App, Tap

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


def until(what: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.3)
    raise TimeoutError(what)


def only_job(app: App) -> Job | None:
    jobs = Jobs(Workspace(app.home)).list()
    assert len(jobs) <= 1
    return jobs[0] if jobs else None


def state(app: App) -> str | None:
    job = only_job(app)
    return job.state if job else None


def step(app: App) -> int:
    job = only_job(app)
    return read(app.home / "jobs" / job.id).step if job else 0


def open_page(chromium: Any, url: str, width: int = 1280, locale: str = "ko-KR") -> Any:
    context = chromium.new_context(viewport={"width": width, "height": 900}, locale=locale)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    page.locator("#train-plan .n-note").wait_for(state="attached")
    return page


def fill(page: Any, name: str, value: str) -> None:
    field = page.locator(f"#train-{name} input").first
    field.fill(value)
    field.blur()


def test_train_stop_resume_and_lose_the_app(app: App, chromium: Any) -> None:
    app.start()
    page = open_page(chromium, app.url)
    page.locator("#train-advanced .label-wrap").click()
    for name, value in (
        ("steps", "40"),
        ("every", "20"),
        ("examples", "1"),
        ("samples", "1"),
        ("sample_tokens", "4"),
        ("max_length", "96"),
    ):
        fill(page, name, value)
    page.get_by_role("button", name="YAML").click()
    page.set_viewport_size({"width": 1280, "height": 4000})  # the editor draws only the lines that are in view
    for line in ("steps: 40", "max_length: 96", "examples: 1", "sample_tokens: 4"):
        page.locator("#train-yaml").get_by_text(line).first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#train-start").dblclick()
    until(lambda: step(app) >= 2)
    page.locator("#train-stop").click()
    until(lambda: state(app) == "stopped")
    page.locator("#train-head .n-badge.stopped").wait_for()
    stopped_at = step(app)
    assert 2 <= stopped_at < 40

    page.locator("#train-resume").click()
    until(lambda: state(app) == "running" and step(app) > stopped_at)
    app.kill()
    before = step(app)
    until(lambda: step(app) > before or state(app) == "finished")
    page.context.close()

    app.start()
    page = open_page(chromium, app.url)
    page.locator("#train-head .n-badge.running, #train-head .n-badge.finished").first.wait_for()
    until(lambda: state(app) == "finished")
    page.locator("#train-head .n-badge.finished").wait_for()
    assert page.locator("#train-loss svg").count() == 1
    job = only_job(app)
    assert job is not None and job.attempt == 2
    steps = [row["step"] for row in read(app.home / "jobs" / job.id).steps]
    assert steps == list(range(1, 41))
    page.context.close()


def test_compare_and_vote_by_keyboard_without_a_name_on_the_wire(app: App, chromium: Any) -> None:
    job = only_job(app)
    assert job is not None and job.state == "finished"
    tap = Tap(app.port)
    page = open_page(chromium, f"http://127.0.0.1:{tap.port}")
    page.locator("#train-compare").click()
    page.locator("#n-load").click()
    page.locator("#n-ask:not([disabled])").wait_for(timeout=180_000)
    time.sleep(2)
    quiet_from = len(tap.received)
    page.locator("#n-ask").click()
    page.locator("#n-votebar").wait_for(timeout=300_000)
    wire = bytes(tap.received[quiet_from:]).decode("utf-8", errors="replace").casefold()
    assert len(wire) > 500
    for name in ("smollm2", job.id, job.name.casefold(), "adapter_model", "model_a", "model_b", "left_is"):
        assert name.casefold() not in wire, name

    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("2")
    page.locator("#n-choice label.selected, #n-choice input:checked").first.wait_for(state="attached")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.locator("#n-revealed").get_by_text("SmolLM2").first.wait_for()
    path = app.home / "ratings" / "ratings.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    row = rows[0]
    assert row["action"] == "vote" and row["blind"] in ("1", "true", "True")
    right = "model_b" if row["left_is"] == "model_a" else "model_a"
    assert row["winner"] == right
    assert row["domain"] == "emotion" and row["response_a"] and row["response_b"]
    tap.close()
    page.context.close()


def test_the_results_show_the_vote_and_both_languages_read_well(app: App, chromium: Any) -> None:
    for locale, tab in (("ko-KR", "결과"), ("en-US", "Results")):
        page = open_page(chromium, app.url, locale=locale)
        page.get_by_role("tab", name=tab, exact=True).click()
        page.get_by_text("SmolLM2").locator("visible=true").first.wait_for()
        assert page.url.endswith("/en") == (locale == "en-US")
        page.context.close()


def test_nothing_overflows_on_a_phone(app: App, chromium: Any) -> None:
    page = open_page(chromium, app.url, width=390)
    for tab in ("학습", "비교", "결과"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    page.context.close()
