"""The comparison tab without a browser: a page over any engine, what it shows, what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterable
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


def last(shown: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    return list(shown)[-1]


def meet(page: Page, request: Any = OWNER) -> Session:
    session = Session()
    list(page.show(session, None, request))
    return session


def load(page: Page) -> None:
    page.services.desk.load(BASE, TUNED)
    assert ended(page.services.desk).error is None


def ask(page: Page, session: Session, text: str = "힘들어요", *settings: Any) -> list[dict[Any, Any]]:
    return list(page.ask(session, text, "emotion", None, *(settings or ("", 0.7, 0.9, 32, 0))))


def told(shown: Iterable[dict[Any, Any]]) -> str:
    return json.dumps([list(s.values()) for s in shown], ensure_ascii=False, default=str).casefold()


def services_over(engine: Engine, home: Path) -> CompareServices:
    workspace = Workspace(home).prepare()
    return CompareServices(
        workspace, engine, store(workspace.ratings), lambda request: request.owner, "0.1", no_prompts
    )
