"""The comparison tab without a browser: a page over any engine, what it shows, what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assets.files import Workspace
from assets.words import Words
from compare import results, tab
from compare.engine import Engine
from compare.services import CompareServices
from compare.session import Session
from compare.tab_events import Page
from tests.compare.pairs import BASE, TUNED, ended, no_prompts, store

OWNER, VISITOR = SimpleNamespace(owner=True), SimpleNamespace(owner=False)


class Toasts(list[str]):
    def __call__(self, message: str, **options: Any) -> None:
        assert options["title"]
        self.append(message)


def build(services: CompareServices, language: str = "ko") -> tuple[gr.Blocks, Page]:
    with gr.Blocks(analytics_enabled=False) as demo:
        made = tab.build(Words(language), services)
        results.build(Words(language), services)
    return demo, made.page


def telling(shown: Iterable[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """Those that change anything."""
    return [one for one in shown if any(update != gr.skip() for update in one.values())]


def last(shown: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    return telling(shown)[-1]


def final(shown: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    """What each component shows in the end."""
    found: dict[Any, Any] = {}
    for one in shown:
        for component, update in one.items():
            before = found.get(component)
            both = isinstance(update, dict) and isinstance(before, dict)
            found[component] = before | update if both else update
    return found


def meet(page: Page, request: Any = OWNER) -> Session:
    session = Session()
    page.show(session, None, request)
    return session


def followed(page: Page, session: Session) -> Iterator[dict[Any, Any]]:
    """What the events show that come after a page was opened or loading begun."""
    yield from page.follow(session)
    yield page.settle(session)
    yield page.ready()


def load(page: Page) -> None:
    page.services.desk.load(BASE, TUNED)
    assert ended(page.services.desk).error is None


def ask(page: Page, session: Session, text: str = "힘들어요", *settings: Any) -> list[dict[Any, Any]]:
    return telling(page.ask(session, text, "emotion", None, *(settings or ("", 0.7, 0.9, 32, 0))))


def told(shown: Iterable[dict[Any, Any]]) -> str:
    return json.dumps([list(s.values()) for s in shown], ensure_ascii=False, default=str).casefold()


def services_over(engine: Engine, home: Path) -> CompareServices:
    workspace = Workspace(home).prepare()
    return CompareServices(
        workspace, engine, store(workspace.ratings), lambda request: request.owner, "0.1", no_prompts
    )
