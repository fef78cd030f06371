"""A study in a real browser: the owner makes it and hands out links, people rate on two devices, nothing gives a model
away. The answers are written into the store, so that no model is needed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from assets.files import Workspace
from compare.ratings import RatingsFile
from compare.study import Study
from compare.study_items import Answer, needed
from compare.study_serve import StudyService
from compare.study_store import Studies
from tests.e2e.conftest import App, Tap

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]
NAME = "코니냐 젬마냐"
PROMPTS = 3
LONG = "어떤 순간이 가장 힘드셨는지 조금 더 들려주실 수 있나요? " * 40


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("study")
    Workspace(home).prepare()
    running = App(home)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def links(app: App, chromium: Any) -> list[str]:
    """Two raters' addresses, as the owner's page gives them."""
    page = new_page(chromium, app.url)
    page.get_by_role("tab", name="비교", exact=True).click()
    page.locator("#n-mode").get_by_text("평가", exact=True).click()
    page.locator("#n-study-new").click()
    page.locator("#n-study-title textarea, #n-study-title input").first.fill(NAME)
    models = page.locator("#n-study-models input")
    for model in ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-2-2b-it"):
        if not page.locator("#n-study-models").get_by_text(re.compile(model[-12:-9])).count():
            models.fill(model)
            models.press("Enter")
    page.locator(".n-study-estimate").wait_for()
    before = page.locator(".n-study-estimate").inner_text()
    number = page.locator("#n-study-per-set input[type=number]")
    number.fill(str(PROMPTS))
    number.blur()
    page.wait_for_function(
        "before => (document.querySelector('.n-study-estimate')?.innerText ?? before) !== before", arg=before
    )
    page.locator("#n-study-create").click()
    page.locator("#n-study-start").wait_for()
    write_answers(app)
    page.get_by_role("button", name="모든 평가").click()
    page.locator(".n-study").filter(has_text=NAME).click()
    page.locator("#n-study-open").click()
    page.locator("#n-study-count input").fill("2")
    page.locator("#n-study-add").click()
    made = page.locator(".n-study-link [data-copy]")
    made.nth(1).wait_for()
    found = [str(made.nth(at).get_attribute("data-copy")) for at in range(2)]
    assert page.locator(".n-study-link svg").count() == 2, "a QR code each"
    assert page.get_by_text("이 컴퓨터에서만").count() == 1, "the page says that phones cannot reach it"
    page.context.close()
    return found


def only_study(app: App) -> Study:
    (study,) = Studies(Workspace(app.home)).list()
    return study


def write_answers(app: App) -> None:
    study, items = only_study(app), Studies(Workspace(app.home)).items(only_study(app).id)
    first = study.arms[0].key
    for task in needed(study):
        text = "힘내세요." if task.arm == first else "많이 힘드셨겠어요."
        items.append(Answer(task.prompt_id, task.arm, f"{text} {LONG} {task.sample}", task.sample))


def new_page(chromium: Any, url: str, width: int = 1280) -> Any:
    page = chromium.new_context(viewport={"width": width, "height": 800}, locale="ko-KR").new_page()
    page.set_default_timeout(30_000)
    page.goto(url)
    return page


def rows(app: App) -> list[dict[str, str]]:
    path = app.home / "ratings" / "ratings.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def token(page: Any) -> str:
    return str(page.locator(".n-rating").get_attribute("data-token"))


SCROLL = """async () => {
  for (const end of document.querySelectorAll('[data-end]')) {
    end.scrollIntoView({ block: 'center' });
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
}"""


def read_both(page: Any) -> None:
    """As a reader does: the end of one answer is on screen for a moment, then that of the other."""
    page.evaluate(SCROLL)
    page.wait_for_function("!document.querySelector('#n-choice')?.disabled")


def vote(page: Any, key: str) -> None:
    before = token(page)
    read_both(page)
    page.keyboard.press(key)
    page.wait_for_function("!document.querySelector('#n-confirm').disabled")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('.n-rating').dataset.token !== before", arg=before)


def test_one_list_on_two_devices_by_keyboard_without_a_name_on_the_wire(
    app: App, links: list[str], chromium: Any
) -> None:
    tap = Tap(app.port)
    url = links[0].replace(f":{app.port}", f":{tap.port}")
    page = new_page(chromium, url)
    page.locator("[data-do=consent]").wait_for()
    assert "109" in page.locator(".n-rating-consent").inner_text()
    assert page.locator("#tabs").count() == 0, "nothing of the tabs"
    page.locator("[data-do=consent]").click()
    page.locator("#n-votebar").wait_for()
    for _ in range(2):
        assert "연습" in page.locator(".n-rating-count").inner_text()
        vote(page, "1")
    assert page.locator(".n-rating-count b").inner_text() == "1"
    vote(page, "2")
    vote(page, "3")
    page.locator("[data-do=undo]").click()
    page.locator(".n-rating-count b").get_by_text("2", exact=True).wait_for()
    again = token(page)
    page.locator("[data-toggle=n-rating-pause]").click()
    page.locator("#n-rating-pause").wait_for()
    page.context.close()

    page = new_page(chromium, url, width=390)
    page.locator("#n-votebar").wait_for()
    assert token(page) == again, "it goes on where it was"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.close()

    page = new_page(chromium, url)
    page.locator("#n-votebar").wait_for()
    read_both(page)
    page.locator("#n-choice label").nth(3).click()
    page.locator(".n-scale-of-left label").nth(1).click()
    page.locator(".n-rating-comment textarea").fill("둘 다 1 아쉬워요")
    page.locator("#n-confirm").click()
    page.wait_for_function("before => document.querySelector('.n-rating').dataset.token !== before", arg=again)
    while page.locator("#n-votebar").count():
        vote(page, "1")
    code = page.locator(".n-rating-code b").inner_text()
    assert re.fullmatch(r"[A-Z2-7]{4}-[A-Z2-7]{4}", code)
    page.reload()
    page.locator(".n-rating-code b").get_by_text(code, exact=True).wait_for()
    wire = bytes(tap.received).decode("utf-8", errors="replace").casefold()
    tap.close()
    study = only_study(app)
    told = ["smollm", "gemma", "model_a", "left_is", NAME, *(arm.key for arm in study.arms), *study.prompt_ids]
    assert len(wire) > 10_000 and [name for name in told if name.casefold() in wire] == []
    page.context.close()


def test_the_rows_say_what_was_done(app: App, links: list[str]) -> None:
    study = only_study(app)
    mine = [row for row in rows(app) if row["study_id"] == study.id]
    votes, undone = ([row for row in mine if row["action"] == action] for action in ("vote", "undo"))
    assert len({row["rating_id"] for row in votes}) == len(votes), "two presses of Enter are one vote"
    assert [row["kind"] for row in votes[:2]] == ["practice", "practice"]
    assert [row["target_rating_id"] for row in undone] == [votes[3]["rating_id"]]
    listed = [row for row in votes if row["kind"] != "practice"]
    workspace = Workspace(app.home)
    service = StudyService(Studies(workspace), RatingsFile(workspace.ratings / "ratings.csv", "0"), "0")
    done = service.progress(study.id).raters[0]
    assert done.stage == "done" and len(listed) == done.total + 1, "the list, and the one taken back"
    second = votes[2]
    left = second["left_is"]
    assert second["winner"] == ("model_b" if left == "model_a" else "model_a")
    bad = next(row for row in listed if row["winner"] == "both_bad")
    assert bad["comment"] == "둘 다 1 아쉬워요" and bad["criteria"] not in ("", "{}") and bad["layout"] == "columns"
    assert {row["rater"] for row in mine} == {votes[0]["rater"]} and "127.0.0.1" not in str(mine)


def test_on_a_phone_one_votes_once_both_answers_were_on_screen(app: App, links: list[str], chromium: Any) -> None:
    page = new_page(chromium, links[1], width=390)
    page.locator("[data-do=consent]").click()
    page.locator("#n-votebar").wait_for()
    for _ in range(2):
        vote(page, "1")
    page.wait_for_timeout(600)
    before = token(page)
    assert page.evaluate("document.querySelector('#n-choice').disabled")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_timeout(600)
    assert token(page) == before and page.locator("#n-choice input:checked").count() == 0
    left, right = (page.locator(f".n-rating-answer.n-{place}").bounding_box() for place in ("left", "right"))
    assert left["y"] + left["height"] <= right["y"], "one above the other"
    vote(page, "1")
    (row,) = [r for r in rows(app) if r["kind"] != "practice" and r["rater"] == rows(app)[-1]["rater"]]
    assert row["layout"] == "stacked"
    page.context.close()


def test_a_link_that_does_not_open_says_whom_to_ask(app: App, links: list[str], chromium: Any) -> None:
    page = new_page(chromium, f"{app.url}/rate?c=nobody.at-all")
    page.locator(".n-rating h1").wait_for()
    assert "링크를" in page.locator(".n-rating-lead").inner_text() and page.locator("button:visible").count() == 0
    Studies(Workspace(app.home)).set_state(only_study(app).id, "closed")
    page.goto(links[1])
    page.get_by_text("이 평가는 끝났어요").wait_for()
    page.context.close()


def test_results_open_at_this_study(app: App, links: list[str], chromium: Any) -> None:
    study = only_study(app)
    outside = {
        "rating_id": "outside",
        "study_id": "",
        "item_id": "",
        "kind": "free",
        "created_at": "2030-01-01T00:00:00.000Z",
    }
    ratings = RatingsFile(app.home / "ratings" / "ratings.csv", "0")
    ratings.append(replace(next(vote for vote in ratings.read().votes if vote.kind == "main"), **outside))
    page = new_page(chromium, app.url)
    page.get_by_role("tab", name="비교", exact=True).click()
    page.locator("#n-mode").get_by_text("평가", exact=True).click()
    page.locator(".n-study").filter(has_text=NAME).click()
    page.locator("#n-study-results").click()
    page.get_by_text(f"{study.target}표 가운데").locator("visible=true").first.wait_for()
    assert page.get_by_role("tab", name="결과", exact=True).get_attribute("aria-selected") == "true"
    page.context.close()
