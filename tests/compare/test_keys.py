"""keys.js in a real browser, on a page with the vote bar's parts alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser

KEYS = Path(__file__).parents[2] / "assets" / "keys.js"
PAGE = """
<textarea id="comment"></textarea><button id="other">x</button>
<div id="n-votebar"><div id="n-choice">{radios}</div><button id="n-confirm">ok</button></div>
<script>window.votes = []; document.getElementById('n-confirm').onclick = () =>
  votes.push([...document.querySelectorAll('#n-choice input')].findIndex((r) => r.checked) + 1);</script>
"""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = browser.installed()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no browser: run python -m tests.browser")
        pytest.skip("no browser: run python -m tests.browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        driver = play.chromium.launch(executable_path=path, args=browser.FLAGS)
        yield driver
        driver.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    made = chromium.new_page()
    made.set_content(PAGE.format(radios='<input type="radio" name="c">' * 4))
    made.add_script_tag(content=KEYS.read_text(encoding="utf-8"))
    yield made
    made.close()


def chosen(page: Any) -> int:
    return int(page.evaluate("[...document.querySelectorAll('#n-choice input')].findIndex((r) => r.checked) + 1"))


def test_digits_choose_and_enter_confirms(page: Any) -> None:
    page.keyboard.press("Enter")
    assert page.evaluate("votes") == [], "nothing is chosen yet"
    for key in "1234":
        page.keyboard.press(key)
        assert chosen(page) == int(key)
    page.keyboard.press("Enter")
    assert page.evaluate("votes") == [4]


def test_typing_never_votes(page: Any) -> None:
    page.keyboard.press("2")
    page.locator("#comment").click()
    page.keyboard.type("13 좋아요\n4")
    assert chosen(page) == 2 and page.evaluate("votes") == []
    page.locator("#other").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("votes") == [], "Enter on another button is that button's"


@pytest.mark.parametrize(
    "options", ["isComposing: true", "keyCode: 229", "ctrlKey: true", "metaKey: true", "altKey: true", "repeat: true"]
)
def test_composing_modifiers_and_held_keys_never_vote(page: Any, options: str) -> None:
    page.keyboard.press("1")
    for key in ("3", "Enter"):
        page.evaluate(
            f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true, {options}}}))"
        )
    assert chosen(page) == 1 and page.evaluate("votes") == []


def test_a_hidden_bar_is_deaf(page: Any) -> None:
    page.evaluate("document.getElementById('n-votebar').style.display = 'none'")
    page.keyboard.press("1")
    assert chosen(page) == 0
