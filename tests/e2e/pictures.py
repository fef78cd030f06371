"""The pictures of the README, taken from the real app.

By hand: python -m tests.e2e.pictures HOME     HOME is a workspace with a finished run; votes are cast in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests import browser
from tests.e2e.conftest import ROOT, App

PICTURES = ROOT / "assets" / "pictures"
TABS = {"ko": ("ko-KR", "학습", "비교", "결과"), "en": ("en-US", "Train", "Compare", "Results")}
STUDY = {"ko": ("평가", "감정 대화, 원본과 튜닝한 모델"), "en": ("Studies", "Emotional dialogue: base and tuned")}
PHONE = {"width": 390, "height": 844}


def main(home: Path) -> None:
    PICTURES.mkdir(exist_ok=True)
    app = App(home)
    app.start()
    try:
        with sync_playwright() as play:
            driver = play.chromium.launch(executable_path=browser.installed(), args=browser.FLAGS)
            for language in sys.argv[2:] or TABS:
                shoot(driver, app, language)
            driver.close()
    finally:
        app.stop()


def shoot(driver: Any, app: App, language: str) -> None:
    locale, _, compare, results = TABS[language]
    page = driver.new_context(viewport={"width": 1180, "height": 860}, locale=locale).new_page()
    page.set_default_timeout(300_000)
    page.goto(app.url)
    page.locator("#train-loss svg").wait_for()
    page.locator("#train-plan .n-note.good").wait_for(state="attached")
    page.wait_for_timeout(1500)
    page.screenshot(path=PICTURES / f"train-{language}.png")
    page.locator("#train-compare").click()
    page.get_by_role("tab", name=compare, exact=True).and_(page.locator("[aria-selected=true]")).wait_for()
    page.locator("#n-load").click()
    page.locator("#n-ask:not([disabled])").wait_for()
    for choice in ("2", "1"):
        page.locator("#n-ask").click()
        page.locator("#n-votebar").wait_for()
        page.locator("body").click(position={"x": 4, "y": 4})
        page.keyboard.press(choice)
        page.wait_for_timeout(1200)
        page.screenshot(path=PICTURES / f"compare-{language}.png")
        page.keyboard.press("Enter")
        page.locator("#n-revealed").wait_for()
        page.wait_for_timeout(800)
        page.screenshot(path=PICTURES / f"reveal-{language}.png")
        page.locator("#n-next").click()
        page.wait_for_timeout(1500)
    page.get_by_role("tab", name=results, exact=True).click()
    page.wait_for_timeout(4000)
    page.screenshot(path=PICTURES / f"results-{language}.png")
    page.get_by_role("tab", name=compare, exact=True).click()
    link = study(page, language)
    page.context.close()
    rate(driver, link, language)


def study(page: Any, language: str) -> str:
    """A small study of the two loaded models, its answers made for real; a rater's address."""
    mode, name = STUDY[language]
    page.locator("#n-mode").get_by_text(mode, exact=True).click()
    page.locator("#n-study-new").click()
    page.locator("#n-study-title textarea, #n-study-title input").first.fill(name)
    page.locator(".n-study-estimate").wait_for()
    number = page.locator("#n-study-per-set input[type=number]")
    number.fill("3")
    number.blur()
    page.wait_for_timeout(1500)
    page.screenshot(path=PICTURES / f"study-{language}.png")
    page.locator("#n-study-create").click()
    page.locator("#n-study-start").click()
    page.locator("#n-study-open").click(timeout=900_000)
    page.locator("#n-study-add").click()
    made = page.locator(".n-study-link [data-copy]").first
    made.wait_for()
    return str(made.get_attribute("data-copy"))


def rate(driver: Any, link: str, language: str) -> None:
    """What a rater sees on a phone: the first practice pair."""
    locale = TABS[language][0]
    page = driver.new_context(viewport=PHONE, device_scale_factor=2, locale=locale).new_page()
    page.goto(link)
    page.locator("[data-do=consent]").click()
    page.locator(".n-rating").wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=PICTURES / f"rate-{language}.png")
    page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
