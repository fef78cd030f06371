"""Every page looked at by axe in a real browser, in both languages, light and dark: names, contrast, and the keyboard.

Covers: WCAG 2.2 A and AA as far as axe can tell, names of controls that say something, the way to each primary button by
Tab alone with the focus in sight. Does not cover: pages that only a run in progress shows; how it sounds read aloud.
Models answer from a small server, so that nothing has to be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest

from assets.files import Workspace
from assets.words import Words
from compare.rating import Rating
from compare.ratings import RatingsFile
from finetune.jobs import Job, Jobs
from finetune.spec import DataSpec, ModelSpec, TrainSpec
from tests.compare.openai_server import Reply, Script, serving
from tests.e2e.conftest import App
from tests.e2e.test_study import SCROLL, token, vote
from tests.load.made import links, open_study

pytestmark = pytest.mark.browser
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LANGUAGES = {"ko": "/", "en": "/en"}
RUN = """(given) => axe.run(document, given).then((found) => found.violations.flatMap((rule) =>
  rule.nodes.map((node) => [rule.id, node.target.join(' '), node.html.slice(0, 160), node.failureSummary.slice(0, 300)])))"""
# Names as a screen reader would say them, of everything that can be used now.
NAMES = """() => {
  axe.setup(document.body);
  const all = [...document.querySelectorAll('input, textarea, select, button, [role=button], [role=tab], a[href]')];
  const used = all.filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('[aria-hidden=true]'));
  const named = used.map((e) => [axe.commons.text.accessibleText(e).trim(), e.outerHTML.slice(0, 140)]);
  axe.teardown();
  return named;
}"""
UNSAID = {"", "Textbox", "Radio", "Dropdown", "Number", "Checkbox", "Checkbox Group", "Slider", "File", "Code", "HTML"}
# Whether the goal has the focus; else where it is and whether that is seen.
FOCUS = """(goal) => {
  const at = document.activeElement;
  if (at.closest(goal)) return ['', true, ''];
  const shows = (e) => { const s = e && getComputedStyle(e);
    return !!s && ((s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0) || s.boxShadow !== 'none'); };
  const around = [at, at.closest('label'), at.parentElement, at.closest('.wrap'), at.closest('.block')];
  const name = at.id || at.closest('[id]')?.id || at.tagName;
  return [name, at.tagName === 'BODY' || around.some(shows), at.outerHTML.slice(0, 120)];
}"""


@dataclass(frozen=True)
class Known:
    """Something in gradio's own markup that nothing here can change. ``part`` is in the element's selector or markup."""

    rule: str
    part: str
    why: str


KNOWN: tuple[Known, ...] = ()


@pytest.fixture(scope="module")
def filled(app: App) -> Iterator[dict[str, str]]:
    """The app with a finished run, votes and a study for raters in each language. Raters' codes by language."""
    workspace = Workspace(app.home).prepare()
    jobs = Jobs(workspace)
    folder = jobs.workspace.jobs / "20260101-000000-abcd"
    (folder / "adapter").mkdir(parents=True)
    spec = TrainSpec(
        ModelSpec("HuggingFaceTB/SmolLM2-135M-Instruct"), DataSpec("naranhi/emotion-ko"), name="다정한 말투"
    )
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    (folder / "train.log").write_text("step 1\n", encoding="utf-8")
    jobs.save(Job(folder.name, spec.name, "finished", 1.0, ended=2.0))
    RatingsFile(workspace.ratings / "ratings.csv", "0").append(*map(_vote, range(12)))
    codes = {}
    for language in LANGUAGES:
        study = open_study(app.home, items=3, language=language)
        codes[language] = links(app.home, study.id, 1)[0]
    app.start()
    yield codes


def _vote(number: int) -> Rating:
    return Rating(
        rating_id=f"r{number}",
        rater=f"rater-{number % 3}",
        domain=("emotion", "science")[number % 2],
        prompt_id=f"emotion-{number:04d}",
        conversation=[{"role": "user", "content": "오늘 너무 지쳤어요."}],
        response_a="힘내세요.",
        response_b="많이 힘드셨겠어요.\n\n- 쉬기\n- 걷기",
        model_a="HuggingFaceTB/SmolLM2-135M-Instruct",
        model_b="tuned@0",
        left_is=("model_a", "model_b")[number % 2],
        winner=("model_b", "model_b", "model_a", "tie")[number % 4],
        comment="더 다정해요" if number % 5 == 0 else "",
        blind=True,
        layout="columns",
    )


@dataclass
class Looker:
    """A page, and what axe says of its states."""

    page: Any
    language: str
    found: list[str]

    def go(self, address: str) -> None:
        self.page.goto(address)
        self.page.evaluate(AXE)

    def look(self, where: str) -> None:
        """Every rule, then every control's name."""
        self._rules(where, TAGS)
        for name, markup in self.page.evaluate(NAMES):
            if name in UNSAID:
                self.found.append(f"{self.language} {where}: a control is called {name!r}\n  {markup}")

    def look_twice(self, where: str) -> None:
        """And again in the dark, for what is looked at in one language only."""
        self.look(where)
        self.page.emulate_media(color_scheme="dark")
        self.page.locator(".dark").first.wait_for()
        self._rules(f"{where}, dark", ["color-contrast"])
        self.page.emulate_media(color_scheme="light")

    def _rules(self, where: str, rules: list[str]) -> None:
        given = {"runOnly": rules, "resultTypes": ["violations"]}
        for rule, target, markup, why in self.page.evaluate(RUN, given):
            if not any(known.rule == rule and known.part in target + markup for known in KNOWN):
                self.found.append(f"{self.language} {where}: {rule} {target}\n  {markup}\n  {why}")

    def walk(self, goal: str, most: int = 150) -> None:
        """Press Tab until ``goal`` has the focus, which must be seen all the way."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            name, seen, markup = self.page.evaluate(FOCUS, goal)
            if not name:
                return
            if not seen:
                self.found.append(f"{self.language}: the focus is not seen at {name}\n  {markup}")
        self.found.append(f"{self.language}: {goal} is not reached by {most} presses of Tab")

    def tab(self, key: str) -> None:
        self.page.get_by_role("tab", name=Words(self.language)(key), exact=True).click()


@pytest.fixture(params=list(LANGUAGES))
def looker(chromium: Any, app: App, filled: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Looker]:
    """Korean in the light and English in the dark: what a page looks like does not hang on its language."""
    language = str(request.param)
    looks = {"ko": ("ko-KR", "light"), "en": ("en-US", "dark")}
    locale, scheme = looks[language]
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900},
        locale=locale,
        base_url=app.url,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield Looker(page, language, [])
    context.close()


def test_the_owners_pages(looker: Looker) -> None:
    looker.go(LANGUAGES[looker.language])
    _train(looker)
    looker.tab("app.tab.compare")
    if looker.language == "ko":
        _compare(looker)
    _study(looker)
    _results(looker)
    assert looker.found == [], "\n".join(looker.found)


def _train(looker: Looker) -> None:
    words, page = Words(looker.language), looker.page
    page.locator("#train-plan .n-note").wait_for(state="attached")
    assert page.locator(".dark").count() == (looker.language == "en"), "the theme follows the system"
    page.locator("#train-preview .n-talk").first.wait_for()
    looker.look("training")
    if looker.language == "ko":
        looker.walk("#train-start")
    for fold in page.locator("#train-advanced .label-wrap, #train-new .label-wrap[aria-expanded=false]").all():
        if fold.is_visible():
            fold.click()
    page.get_by_text(words("train.memory"), exact=True).first.wait_for()
    looker.look("training, all folds open")


def _compare(looker: Looker) -> None:
    page = looker.page
    pieces = ("하늘은 **파란빛**을 ", "더 많이 흩어서 ", "파랗게 보여요.\n\n1. 첫째\n2. 둘째\n\n`code`")
    with serving(Script({"one": [Reply(pieces)], "two": [Reply(("글쎄요.",))]})) as server:
        page.locator("#n-load").wait_for()
        looker.look_twice("nothing loaded")
        for picker, model in (("#n-base input", "one"), ("#n-other input", "two")):
            page.locator(picker).fill(f"{server.url}#{model}")
            page.locator(picker).press("Tab")
        looker.walk("#n-load")
        page.keyboard.press("Enter")
        page.locator("#n-load").wait_for(state="hidden")
        page.locator("#n-ask:not([disabled])").wait_for()
        page.wait_for_timeout(500)  # the page is painted once more when loading has ended
        page.locator("#n-text textarea").fill("하늘은 왜 파란가요?")
        looker.walk("#n-ask")
        page.keyboard.press("Enter")
        page.locator("#n-votebar").wait_for()
        looker.look_twice("two answers")
        page.locator("body").click(position={"x": 4, "y": 4})
        page.keyboard.press("2")
        page.locator("#n-confirm:not([disabled])").wait_for()
        page.wait_for_timeout(300)
        looker.look_twice("a choice")
        page.keyboard.press("Enter")
        page.locator("#n-revealed").wait_for()
        looker.look_twice("revealed")


def _study(looker: Looker) -> None:
    words, page = Words(looker.language), looker.page
    page.locator("#n-mode").get_by_text(words("compare.mode.study"), exact=True).click()
    page.locator(".n-study").first.wait_for()
    looker.look("studies")
    page.locator("#n-study-new").click()
    page.locator("#n-study-title").wait_for()
    looker.look("a new study")


def _results(looker: Looker) -> None:
    looker.tab("app.tab.results")
    looker.page.locator(".n-vote-row").first.wait_for(state="attached")
    looker.page.evaluate("document.querySelectorAll('.n-results details').forEach((fold) => { fold.open = true; })")
    looker.page.wait_for_timeout(300)
    looker.look("results")


def test_the_raters_page_and_the_way_in(looker: Looker, filled: dict[str, str]) -> None:
    page = looker.page
    looker.go(f"/rate?c={filled[looker.language]}")
    page.locator("[data-do=consent]").wait_for()
    looker.look("welcome")
    looker.walk("[data-do=consent]", 20)
    page.keyboard.press("Enter")
    page.locator("#n-votebar").wait_for()
    looker.look("practice")
    vote(page, "1")
    vote(page, "2")
    page.evaluate(SCROLL)
    page.wait_for_function("!document.querySelector('#n-choice')?.disabled")
    page.keyboard.press("2")
    page.wait_for_function("!document.querySelector('#n-confirm').disabled")
    looker.look("an item, chosen")
    before = token(page)
    looker.walk("#n-confirm", 60)
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('.n-rating').dataset.token !== before", arg=before)
    for _ in range(2):
        vote(page, "1")
    page.locator(".n-rating-code").wait_for()
    looker.look("the end")
    looker.go("/owner")
    looker.look("the owner's page")
    looker.walk("button", 5)
    assert looker.found == [], "\n".join(looker.found)
