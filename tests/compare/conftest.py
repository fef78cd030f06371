"""A page over a fake engine, what it tells people, and tiny models for the real one."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from compare.services import CompareServices
from compare.tab_events import Page
from tests.compare.pages import Toasts, build, services_over
from tests.compare.shelf import Shelf
from tests.fake_engine import FakeEngine


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> Toasts:
    said = Toasts()
    monkeypatch.setattr(gr, "Warning", said)
    monkeypatch.setattr(gr, "Info", said)
    return said


@pytest.fixture
def services(tmp_path: Path) -> CompareServices:
    return services_over(FakeEngine(answers={"a": "차가운 답", "b": "따뜻한 답"}), tmp_path)


@pytest.fixture
def page(services: CompareServices, toasts: Toasts) -> Page:
    return build(services)[1]
