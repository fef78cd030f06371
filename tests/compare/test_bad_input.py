"""What people do wrong while comparing, with a real engine on a tiny model: the page says it in a sentence and goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from assets.files import Workspace
from assets.words import Words
from compare.desk import Candidate
from compare.local_engine import LocalEngine
from compare.session import Session
from compare.tab_events import Page
from tests.compare.pages import Toasts, ask, build, meet, services_over, told
from tests.compare.pairs import ended
from tests.models import make_adapter, make_model

pytestmark = pytest.mark.usefixtures("one_loop")
WORDS = Words("ko")
SHORT_ONLY = (
    "{% for m in messages %}{% if loop.index > 2 %}{{ raise_exception('one question only') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}>"
)
USERS_ONLY = SHORT_ONLY.replace("loop.index > 2", "m['role'] == 'assistant'")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("bad")
    base = make_model(root / "base", "llama", seed=4, vocab_size=261)  # it writes letters
    return base, make_adapter(base, root / "tuned")


@pytest.fixture
def real(models: tuple[Path, Path], tmp_path: Path, toasts: Toasts) -> Page:
    """A page with base and adapter loaded by the real engine, in this process."""
    page = build(services_over(LocalEngine(Workspace(tmp_path).prepare()), tmp_path))[1]
    load(page, models)
    return page


def load(page: Page, models: tuple[Path, Path], template: str | None = None) -> None:
    base, adapter = map(str, models)
    tuned = Candidate("t", "Tuned", base, adapter, template=template)
    page.services.desk.load(Candidate("b", "Base", base, template=template), tuned)
    assert ended(page.services.desk).error is None


def panes(session: Session) -> list[tuple[str, str]]:
    return [(pane.ended, pane.text) for pane in session.panes()]


def answers(page: Page, session: Session, text: str = "hello there", **settings: Any) -> str:
    given = {"temperature": 0.0, "top_p": 0.9, "tokens": 24} | settings
    return told(ask(page, session, text, "", given["temperature"], given["top_p"], given["tokens"], 0))


def assert_the_next_answer_is_whole(page: Page) -> None:
    session = meet(page)
    answers(page, session)
    assert [ended_ for ended_, _ in panes(session)] == ["length", "length"] and all(text for _, text in panes(session))


def test_an_empty_prompt(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    answers(real, session, " \n ")
    assert toasts == [WORDS("compare.empty")] and session.stage == "ready"


def test_a_hundred_thousand_letters(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    answers(real, session, "가" * 100_000)
    (told_,) = toasts
    assert WORDS("engine.prompt_too_long", tokens=300_013, limit=1024)[:6] in told_ and "1024" in told_
    assert_the_next_answer_is_whole(real)


def test_only_emoji(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    answers(real, session, "😀🫠🏳️‍🌈👨‍👩‍👧")
    assert not toasts and session.stage == "answered"


def test_a_template_that_raises_on_the_roles_given(real: Page, models: tuple[Path, Path], toasts: Toasts) -> None:
    load(real, models, SHORT_ONLY)
    session = meet(real)
    answers(real, session)
    assert session.stage == "answered" and not toasts
    answers(real, session, "why?")
    assert toasts == [WORDS("chat.template_failed", reason="one question only")] and session.stage == "stopped"
    assert_the_next_answer_is_whole(real)


def test_a_template_that_cannot_write_an_answer_is_refused(real: Page, models: tuple[Path, Path]) -> None:
    base, adapter = map(str, models)
    tuned = Candidate("t", "Tuned", base, adapter, template=USERS_ONLY)
    real.services.desk.load(Candidate("b", "Base", base), tuned)
    ended(real.services.desk)
    refused = WORDS("chat.template_failed", reason="one question only")
    assert refused.casefold() in told([real.paint(meet(real))])


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_the_ends_of_the_temperature(real: Page, toasts: Toasts, temperature: float) -> None:
    session = meet(real)
    answers(real, session, temperature=temperature)
    assert not toasts and session.stage == "answered"


def test_top_p_of_nothing_keeps_the_best_token(real: Page, toasts: Toasts) -> None:
    first, second = meet(real), meet(real)
    first.blind = second.blind = False
    answers(real, first, temperature=5.0, top_p=0.0)
    answers(real, second, temperature=0.0)
    assert not toasts and panes(first) == panes(second)


def test_no_tokens_at_all(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    shown = answers(real, session, tokens=0)
    assert panes(session) == [("length", "")] * 2 and WORDS("compare.cut") in shown and not toasts


def test_a_number_that_cannot_be(real: Page, toasts: Toasts) -> None:
    answers(real, meet(real), temperature=-1.0)
    assert toasts == [WORDS("engine.bad_sampling", name="temperature", value=-1.0)]


def test_stopping_while_the_prompt_is_read(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    layer = real.services.engine._groups[0].ready.model.model.layers[0]  # type: ignore[attr-defined]
    hook = layer.register_forward_pre_hook(lambda *_: real.stop(session))
    shown = answers(real, session, "a long one " * 60)
    hook.remove()
    assert panes(session) == [("cancelled", "")] * 2 and WORDS("compare.stopped") in shown
    assert_the_next_answer_is_whole(real)


def test_memory_that_runs_out_marks_what_was_said(real: Page, toasts: Toasts) -> None:
    session = meet(real)
    layer = real.services.engine._groups[0].ready.model.model.layers[1]  # type: ignore[attr-defined]
    left = iter(range(14))

    def fail(*_: Any) -> None:
        if next(left, None) is None:
            raise torch.OutOfMemoryError("planned")

    hook = layer.register_forward_pre_hook(fail)
    shown = answers(real, session)
    hook.remove()
    assert [ended_ for ended_, _ in panes(session)] == ["error", "error"] and all(text for _, text in panes(session))
    assert WORDS("engine.out_of_memory") in shown and not session.can_vote
    assert_the_next_answer_is_whole(real)


def test_an_adapter_deleted_while_in_use(real: Page, models: tuple[Path, Path], toasts: Toasts, tmp_path: Path) -> None:
    going = Path(shutil.copytree(models[1], tmp_path / "going"))
    load(real, (models[0], going))
    shutil.rmtree(going)
    assert_the_next_answer_is_whole(real)
    real.services.desk.load(Candidate("b", "B", str(models[0])), Candidate("t", "T", str(models[0]), str(going)))
    error = ended(real.services.desk).error
    assert WORDS("engine.adapter_not_found", adapter="going") in told([real.paint(meet(real))]) and error is not None
