"""Markup in answers, data, names and votes, in a real browser: it is shown, and nothing of it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assets.files import Workspace
from compare.csv_store import to_json
from compare.study_items import Answer, needed
from compare.study_store import Studies
from tests import browser
from tests.abuse.site import HTML, Site
from tests.compare.openai_server import Reply, Script, serving
from tests.e2e.test_study import vote
from tests.load.made import links, open_study

pytestmark = pytest.mark.browser
ANSWER = (
    f"{HTML}\n\n[여기](javascript:window.pwned=1) ![그림](https://evil.example/x.png)\n\n"
    "<svg onload=window.pwned=1><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>\n\n"
    '<a href="https://evil.example" onclick="window.pwned=1">링크</a> `<b onmouseover=window.pwned=1>`'
)


@pytest.fixture(scope="module")
def code(site: Site) -> str:
    """A rater's link to a study whose answers are an attack."""
    home = site.home / "work"
    study = open_study(home, items=3)
    tasks = needed(study)
    rows = [Answer(t.prompt_id, t.arm, ANSWER, t.sample, sampling={}, provenance={"arm": {}}) for t in tasks]
    file = Studies(Workspace(home)).items(study.id).path
    file.write_text("".join(to_json(row.__dict__) + "\n" for row in rows), encoding="utf-8")
    return links(home, study.id, 1)[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = browser.installed()
    if path is None:
        pytest.skip("no browser: run python -m tests.browser")
    with sync_playwright() as play:
        driver = play.chromium.launch(executable_path=path, args=browser.FLAGS)
        yield driver
        driver.close()


@pytest.fixture
def page(chromium: Any, site: Site) -> Iterator[Any]:
    """A page that notes what it asks of other servers, and everything that ran though it was only data."""
    context = chromium.new_context(locale="ko-KR", base_url=site.url)
    tab = context.new_page()
    tab.foreign = []
    tab.on("request", lambda r: None if r.url.startswith((site.url, "data:", "blob:")) else tab.foreign.append(r.url))
    tab.on("dialog", lambda dialog: (tab.foreign.append("dialog"), dialog.dismiss()))
    yield tab
    context.close()


def harmless(page: Any) -> bool:
    return (
        page.evaluate("window.pwned") is None and not page.foreign and not page.locator("img[src='x'], iframe").count()
    )


def test_answers_on_the_raters_page(page: Any, code: str) -> None:
    page.goto(f"/rate?c={code}")
    page.locator("[data-do=consent]").first.click()
    page.locator("#n-votebar").wait_for()
    for _ in range(2):  # the practice, whose answers are the study's own
        vote(page, "4")
    page.get_by_text("onerror").first.wait_for()
    assert page.get_by_text("javascript:window.pwned").count() and harmless(page)


def test_answers_in_the_panes_and_names_of_models(page: Any, site: Site) -> None:
    """What a model says, and what a server calls it: neither is the owner's to choose."""
    pieces = tuple(ANSWER[at : at + 7] for at in range(0, len(ANSWER), 7))
    with serving(Script({"attack": [Reply(pieces)]})) as server:
        page.goto("/")
        page.get_by_role("tab", name="비교", exact=True).click()
        for picker in ("#n-base input", "#n-other input"):
            page.locator(picker).fill(f"{server.url}#attack")
            page.locator(picker).press("Tab")
        page.locator("#n-load").click()
        page.locator("#n-text textarea").fill(ANSWER)
        page.locator("#n-ask:not([disabled])").click()
        page.locator("#n-votebar").wait_for()
        assert page.locator(".n-answer").get_by_text("javascript:window.pwned").count() >= 2
        page.wait_for_timeout(300)
        assert harmless(page)


def test_runs_and_votes_on_the_owners_pages(page: Any) -> None:
    page.goto("/")
    page.get_by_role("tab", name="학습", exact=True).click()
    page.get_by_text("onerror").first.wait_for()
    page.get_by_role("tab", name="결과").click()
    page.get_by_text("-2+3").first.wait_for(state="attached")
    page.wait_for_timeout(500)
    assert harmless(page)


def test_data_in_the_training_preview(page: Any, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": ANSWER}, {"role": "assistant", "content": ANSWER}]}
    file = tmp_path / "<img src=x onerror=window.pwned=1>.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for _ in range(12)), encoding="utf-8")
    page.goto("/")
    page.get_by_role("tab", name="학습", exact=True).click()
    page.locator("#train-data label").nth(2).click()
    page.locator("#train-upload input[type=file]").set_input_files(str(file))
    page.locator("#train-preview").get_by_text("javascript:window.pwned").first.wait_for()
    page.wait_for_timeout(500)
    assert harmless(page)


def test_the_policy_stops_a_handler_in_an_attribute(page: Any) -> None:
    """Should markup ever get through, this is what still holds."""
    page.goto("/rate")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=window.pwned=1>')")
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
